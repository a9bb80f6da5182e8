import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression, Ridge

from wsr.engine import logistic, newton
from wsr.engine.logistic import fit_logistic
from wsr.engine.newton import NEVER
from wsr.engine.probe import PROBES, fit_probe, fixed_head_loss, linear_probe, roberta_head
from wsr.errors import WsrError

TOLERANCE = 1e-4


def texts(points, train, hidden, classes, *, scale=1.0, separation=1.0, seed=0):
    """Correlated, badly conditioned features of a few models; returns train and test features and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, train + 60).astype(np.int32)
    labels[:classes] = np.arange(classes)
    means = 3 * separation * generator.normal(size=(classes, hidden)) / np.sqrt(hidden)
    rotation = np.linalg.qr(generator.normal(size=(hidden, hidden)))[0] * np.logspace(0.6, -1, hidden)
    common = generator.normal(size=(len(labels), hidden)) + means[labels]
    noise = 0.2 * generator.normal(size=(points, len(labels), hidden))
    features = (scale * ((common + noise) @ rotation + 0.3)).astype(np.float32)
    return features[:, :train], labels[:train], features[:, train:], labels[train:]


def sklearn_heads(features, labels, inverse_l2):
    """The optimum in float64, as a head of two columns where there are two classes."""
    oracle = LogisticRegression(C=inverse_l2, solver="newton-cholesky", tol=1e-12, max_iter=500)
    oracle.fit(features.astype(np.float64), labels)
    kernel, bias = oracle.coef_.T, oracle.intercept_
    if kernel.shape[1] == 1:
        kernel, bias = np.hstack([-kernel / 2, kernel / 2]), np.hstack([-bias / 2, bias / 2])
    return kernel, bias


def losses(features, labels, kernel, bias):
    return -log_softmax(features.astype(np.float64) @ kernel + bias, axis=1)[np.arange(len(labels)), labels]


def objective(features, labels, kernel, bias, inverse_l2):
    penalty = np.square(kernel[:, 1] - kernel[:, 0] if kernel.shape[1] == 2 else kernel).sum() / 2
    return inverse_l2 * losses(features, labels, kernel, bias).sum() + penalty


# Newton's line search says so when float64 has no more to give.
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("points", "train", "hidden", "classes", "options", "inverse_l2"),
    [
        pytest.param(2, 200, 24, 2, {}, 1.0, id="two classes"),
        pytest.param(2, 200, 24, 5, {}, 1.0, id="five classes"),
        pytest.param(2, 300, 24, 20, {}, 1.0, id="twenty classes"),
        pytest.param(2, 200, 24, 2, {"scale": 100}, 1.0, id="two classes, large features"),
        pytest.param(2, 200, 24, 5, {"scale": 100}, 1.0, id="five classes, large features"),
        pytest.param(2, 200, 24, 5, {"scale": 0.01}, 1.0, id="small features"),
        pytest.param(2, 200, 24, 2, {"separation": 8}, 1.0, id="two classes, separable"),
        pytest.param(2, 200, 24, 5, {"separation": 8}, 100.0, id="five classes, separable, weak penalty"),
        pytest.param(2, 40, 96, 2, {}, 1.0, id="two classes, fewer texts than features"),
        pytest.param(2, 40, 96, 5, {"scale": 100}, 1.0, id="five classes, fewer texts than features, large"),
        pytest.param(2, 200, 24, 5, {}, 0.01, id="strong penalty"),
        pytest.param(2, 200, 24, 5, {"scale": 1e-4}, 1.0, id="tiny features"),
    ],
)
def test_linear_probe_reaches_the_optimum_of_scikit_learn(points, train, hidden, classes, options, inverse_l2):
    train_x, train_y, test_x, test_y = texts(points, train, hidden, classes, **options)
    result = linear_probe(train_x, train_y, test_x, test_y, classes=classes, inverse_l2=inverse_l2)
    assert result.heads["kernel"].shape == (points, hidden, classes)
    assert result.converged.all()
    np.testing.assert_allclose(result.inverse_l2, inverse_l2)
    for point in range(points):
        oracle = sklearn_heads(train_x[point], train_y, inverse_l2)
        found = [np.asarray(result.heads[name][point], np.float64) for name in ("kernel", "bias")]
        best = objective(train_x[point], train_y, *oracle, inverse_l2)
        assert objective(train_x[point], train_y, *found, inverse_l2) == pytest.approx(best, rel=1e-5)
        expected = losses(test_x[point], test_y, *oracle)
        np.testing.assert_allclose(result.losses[point].mean(), expected.mean(), rtol=0, atol=TOLERANCE)
        # A float32 logit of a hundred is not known to 1e-4, so large losses are compared relatively.
        assert np.all(np.abs(result.losses[point] - expected) <= TOLERANCE * np.maximum(1, expected))
        scores = test_x[point].astype(np.float64) @ oracle[0] + oracle[1]
        np.testing.assert_array_equal(result.predictions[point], scores.argmax(axis=1))


def test_linear_probe_equals_scikit_learns_own_probabilities():
    for classes in (2, 5):
        train_x, train_y, test_x, test_y = texts(1, 150, 16, classes)
        oracle = LogisticRegression(tol=1e-10, max_iter=10_000).fit(train_x[0].astype(np.float64), train_y)
        expected = -np.log(oracle.predict_proba(test_x[0].astype(np.float64)))[np.arange(len(test_y)), test_y]
        found = linear_probe(train_x, train_y, test_x, test_y, classes=classes, inverse_l2=1.0).losses[0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_a_class_without_training_texts_is_left_out():
    train_x, train_y, test_x, test_y = texts(1, 200, 16, 4)
    kept, seen = train_y != 2, test_y != 2
    train_x, train_y = train_x[:, kept], train_y[kept]
    result = linear_probe(train_x, train_y, test_x, test_y, classes=4, inverse_l2=1.0)
    kernel, bias = sklearn_heads(train_x[0], train_y, 1.0)
    expected = losses(test_x[0][seen], np.where(test_y == 3, 2, test_y)[seen], kernel, bias)
    np.testing.assert_allclose(result.losses[0][seen], expected, rtol=0, atol=TOLERANCE)
    assert np.all(np.isfinite(result.losses))
    assert np.all(result.losses[0][~seen] > -NEVER - 0.01)
    assert not np.any(result.predictions == 2)


@pytest.mark.parametrize("inverse_l2", [None, 1.0])
@pytest.mark.parametrize("classes", [2, 3])
def test_one_class_only_is_certain_of_it(classes, inverse_l2):
    train_x, _, test_x, _ = texts(2, 30, 8, 2)
    ones = np.ones(60, np.int32)
    result = linear_probe(train_x, ones[:30], test_x, ones, classes=classes, inverse_l2=inverse_l2)
    assert np.all(result.predictions == 1)
    np.testing.assert_allclose(result.losses, 0, atol=1e-5)


@pytest.mark.parametrize("inverse_l2", [None, 1.0])
def test_points_do_not_influence_each_other(inverse_l2):
    train_x, train_y, test_x, test_y = texts(3, 120, 16, 3)
    train_x[1] *= 100  # a point that takes many more iterations
    test_x[1] *= 100
    data = {"classes": 3, "inverse_l2": inverse_l2}
    together = linear_probe(train_x, train_y, test_x, test_y, **data).losses
    for point in range(3):
        alone = linear_probe(train_x[[point]], train_y, test_x[[point]], test_y, **data).losses[0]
        assert np.all(np.abs(together[point] - alone) <= TOLERANCE * np.maximum(1, alone))


@pytest.mark.parametrize("classes", [2, 3])
def test_a_batch_of_points_as_on_an_accelerator_equals_points_one_by_one(classes):
    train_x, train_y, test_x, test_y = texts(3, 120, 16, classes)
    train_x[1] *= 100  # a point that takes many more iterations
    test_x[1] *= 100
    arguments = jnp.asarray(train_x), jnp.asarray(train_y), jnp.float32(1)
    together = fixed_head_loss(
        test_x, test_y, logistic.programs_of(logistic._fit).together(*arguments, classes=classes).heads
    )
    alone = fixed_head_loss(test_x, test_y, fit_logistic(*arguments, classes=classes).heads)
    assert np.all(np.abs(together - alone) <= TOLERANCE * np.maximum(1, alone))
    np.testing.assert_allclose(together.mean(axis=1), alone.mean(axis=1), rtol=1e-5)


def test_one_point_more_is_the_same_program_and_the_same_bits():
    train_x, train_y, _, _ = texts(3, 50, 12, 3)
    few = fit_probe(train_x[:2], train_y, classes=3, inverse_l2=1.0).heads
    compiled = logistic.programs_of(logistic._fit).alone._cache_size()
    many = fit_probe(train_x, train_y, classes=3, inverse_l2=1.0).heads
    assert logistic.programs_of(logistic._fit).alone._cache_size() == compiled
    for name, leaf in few.items():
        np.testing.assert_array_equal(many[name][:2], leaf)


@pytest.mark.parametrize(("train", "scale"), [(200, 1.0), (200, 100.0), (40, 1.0)])
def test_regression_is_ridge(train, scale):
    train_x, _, test_x, _ = texts(2, train, 64, 2, scale=scale)
    generator = np.random.default_rng(1)
    train_y, test_y = (generator.normal(2, 1, n).astype(np.float32) for n in (train, 60))
    result = linear_probe(train_x, train_y, test_x, test_y, classes=1, inverse_l2=0.5)
    for point in range(2):
        oracle = Ridge(alpha=2.0).fit(train_x[point].astype(np.float64), train_y)
        expected = oracle.predict(test_x[point].astype(np.float64))
        np.testing.assert_allclose(result.predictions[point], expected, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_allclose(result.losses[point], (expected - test_y) ** 2, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("train", "hidden", "classes", "separation"),
    [
        pytest.param(160, 384, 3, 1, id="fewer texts than features", marks=pytest.mark.long),
        pytest.param(40, 96, 2, 8, id="well separated"),
    ],
)
def test_separable_classes_at_huge_features_reach_the_optimum(train, hidden, classes, separation):
    """The penalty is all but absent, and float32 all but exhausted: an earlier solver was 93 nats off, or at NaN."""
    train_x, train_y, test_x, test_y = texts(1, train, hidden, classes, separation=separation, scale=1e4)
    result = linear_probe(train_x, train_y, test_x, test_y, classes=classes, inverse_l2=1.0)
    head = sklearn_heads(train_x[0] / 1e4, train_y, 1e8)
    expected = losses(test_x[0] / 1e4, test_y, *head).mean()
    assert result.losses.mean() == pytest.approx(expected, rel=1e-3, abs=TOLERANCE)
    assert result.converged.all()


@pytest.mark.parametrize("inverse_l2", [None, 1.0])
@pytest.mark.parametrize("classes", [1, 3])
def test_a_probe_without_an_optimum_says_so(classes, inverse_l2):
    train_x, train_y, test_x, test_y = texts(2, 60, 8, 3)
    train_x[0, 5, 3] = np.nan
    result = linear_probe(train_x, train_y, test_x, test_y, classes=classes, inverse_l2=inverse_l2)
    assert result.converged.tolist() == [False, True]


def test_a_probe_stopped_before_its_optimum_says_so(monkeypatch):
    train_x, train_y, test_x, test_y = texts(1, 61, 9, 3)  # a size of its own, so that the program is compiled anew
    monkeypatch.setattr(newton, "NEWTON_STEPS", 1)
    assert not linear_probe(train_x, train_y, test_x, test_y, classes=3, inverse_l2=100.0).converged.any()


def test_fixed_head_loss_is_that_of_the_probe():
    train_x, train_y, test_x, test_y = texts(2, 80, 8, 3)
    result = linear_probe(train_x, train_y, test_x, test_y, classes=3)
    heads = fit_probe(train_x, train_y, classes=3).heads
    np.testing.assert_allclose(fixed_head_loss(test_x, test_y, heads), result.losses, rtol=1e-5, atol=1e-6)


def test_roberta_head_learns_what_a_linear_probe_cannot():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(2, 300, 8)).astype(np.float32)
    features[1] = features[0]
    labels = (features[0, :, 0] * features[0, :, 1] > 0).astype(np.int32)
    data = (features[:, :200], labels[:200], features[:, 200:], labels[200:])
    options = {"steps": 400, "learning_rate": 1e-2, "key": jax.random.key(1)}
    result = roberta_head(*data, classes=2, **options)
    linear = linear_probe(*data, classes=2)
    assert result.losses.mean() < 0.6 * linear.losses.mean()
    np.testing.assert_allclose(result.losses[0], result.losses[1], rtol=1e-4, atol=1e-4)  # the same start
    again = roberta_head(*data, classes=2, **options)
    np.testing.assert_array_equal(again.losses, result.losses)
    other = roberta_head(*data, classes=2, **options | {"key": jax.random.key(2)})
    assert not np.array_equal(other.losses, result.losses)
    heads = {name: np.asarray(leaf[0]) for name, leaf in result.heads.items()}
    hidden = np.tanh(features[0, 200:] @ heads["dense_kernel"] + heads["dense_bias"])
    expected = losses(hidden, labels[200:], heads["kernel"], heads["bias"])
    np.testing.assert_allclose(result.losses[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(PROBES))
def test_every_probe_does_classes_and_regression(name):
    train_x, train_y, test_x, test_y = texts(2, 60, 8, 3)
    result = PROBES[name](train_x, train_y, test_x, test_y, classes=3)
    assert result.losses.shape == result.predictions.shape == (2, 60)
    assert result.losses.mean() < np.log(3)
    values = train_x[0] @ np.linspace(-1, 1, 8, dtype=np.float32), test_x[0] @ np.linspace(-1, 1, 8, dtype=np.float32)
    result = PROBES[name](train_x, values[0], test_x, values[1], classes=1)
    assert result.losses[0].mean() < 0.7 * np.var(values[1])


@pytest.mark.parametrize(
    ("labels", "classes", "found"),
    [
        ([0, 1, 3], 3, "found 0 to 3"),
        ([-1, 0, 1], 3, "found -1 to 1"),
        ([0.0, 1.0, 0.0], 2, "float"),
        ([], 2, "no texts"),
    ],
)
def test_labels_are_checked(labels, classes, found):
    features = np.zeros((1, len(labels), 2), np.float32)
    with pytest.raises(WsrError, match=found):
        fit_probe(features, np.array(labels), classes=classes)


def test_penalty_is_checked():
    with pytest.raises(WsrError, match="inverse_l2 must be positive, found 0"):
        fit_probe(np.zeros((1, 2, 2), np.float32), np.array([0, 1]), classes=2, inverse_l2=0.0)
