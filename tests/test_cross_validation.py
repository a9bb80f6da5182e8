"""The penalty of the probe chosen by cross-validation, against scikit-learn's grid search on the same folds."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from test_probe import TOLERANCE, texts

from wsr.engine import cross_validation, logistic
from wsr.engine.cross_validation import FOLDS, GRID, dealt, fit_logistic_by_folds, folds_of, scale_of
from wsr.engine.probe import fit_probe, fixed_head_loss, linear_probe


def searched(model, train_x, train_y, test_x, scoring):
    """Returns what scikit-learn chooses on standardised features, and its fit to all texts."""
    scaler = StandardScaler().fit(train_x.astype(np.float64))
    fold = folds_of(train_y, classes=1 if isinstance(model, Ridge) else int(train_y.max()) + 1)
    cuts = [(np.flatnonzero(fold != own), np.flatnonzero(fold == own)) for own in range(FOLDS)]
    name, values = ("alpha", [1 / c for c in GRID]) if isinstance(model, Ridge) else ("C", GRID)
    search = GridSearchCV(model, {name: values}, cv=cuts, scoring=scoring)
    search.fit(scaler.transform(train_x.astype(np.float64)), train_y)
    return GRID[search.best_index_], search, scaler.transform(test_x.astype(np.float64))


def minus_log_loss(model, features, labels):
    return -log_loss(labels, model.predict_proba(features), labels=model.classes_)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    ("train", "hidden", "classes", "options"),
    [
        pytest.param(160, 24, 2, {}, id="two classes"),
        pytest.param(160, 24, 5, {}, id="five classes"),
        pytest.param(120, 12, 20, {}, id="twenty classes", marks=pytest.mark.long),
        pytest.param(80, 192, 2, {"separation": 0.3}, id="fewer texts than features", marks=pytest.mark.long),
        pytest.param(40, 96, 3, {"scale": 1e4}, id="huge features", marks=pytest.mark.long),
        pytest.param(160, 24, 3, {"scale": 1e-4}, id="tiny features"),
        pytest.param(160, 24, 2, {"separation": 0}, id="nothing to learn"),
        pytest.param(160, 24, 2, {"separation": 8, "scale": 1e4}, id="separable, huge features"),
        pytest.param(24, 8, 7, {}, id="some classes absent from a fold"),
    ],
)
def test_the_penalty_and_the_losses_are_those_of_scikit_learn(train, hidden, classes, options):
    train_x, train_y, test_x, test_y = texts(2, train, hidden, classes, **options)
    result = linear_probe(train_x, train_y, test_x, test_y, classes=classes)
    assert result.converged.all()
    for point in range(2):
        model = LogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=300)
        chosen, search, features = searched(model, train_x[point], train_y, test_x[point], minus_log_loss)
        assert result.inverse_l2[point] == pytest.approx(chosen)
        expected = -search.predict_log_proba(features)[np.arange(len(test_y)), test_y]
        assert np.all(np.abs(result.losses[point] - expected) <= TOLERANCE * np.maximum(1, expected))


@pytest.mark.parametrize(("train", "hidden"), [(120, 16), (40, 96)])
def test_ridge_is_that_of_scikit_learn(train, hidden):
    train_x, _, test_x, _ = texts(2, train, hidden, 2, scale=100)
    generator = np.random.default_rng(1)
    slope = generator.normal(size=hidden) / hidden
    train_y, test_y = (
        (part[0] @ slope + generator.normal(2, 1, part.shape[1])).astype(np.float32) for part in (train_x, test_x)
    )
    result = linear_probe(train_x, train_y, test_x, test_y, classes=1)
    for point in range(2):
        chosen, search, features = searched(Ridge(), train_x[point], train_y, test_x[point], "neg_mean_squared_error")
        assert result.inverse_l2[point] == pytest.approx(chosen)
        np.testing.assert_allclose(result.predictions[point], search.predict(features), rtol=TOLERANCE, atol=TOLERANCE)
    assert result.converged.all()


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_the_size_of_features_does_not_matter(classes):
    train_x, train_y, test_x, test_y = texts(1, 80, 12, max(classes, 2))
    train_y, test_y = (own.astype(np.float32) if classes == 1 else own for own in (train_y, test_y))
    reference = linear_probe(train_x, train_y, test_x, test_y, classes=classes)
    for scale in (1e-4, 1e4):
        moved = linear_probe(scale * train_x, train_y, scale * test_x, test_y, classes=classes)
        assert moved.inverse_l2 == reference.inverse_l2
        np.testing.assert_allclose(moved.losses, reference.losses, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_constant_feature_adds_nothing(classes):
    train_x, train_y, test_x, test_y = texts(1, 80, 12, 3)
    train_y, test_y = (own.astype(np.float32) if classes == 1 else own for own in (train_y, test_y))
    reference = linear_probe(train_x, train_y, test_x, test_y, classes=classes)
    train_x, test_x = (np.concatenate([own, np.full_like(own[..., :1], 3.3)], axis=-1) for own in (train_x, test_x))
    test_x[..., -1] = 5  # what it is elsewhere, the probe cannot know
    result = linear_probe(train_x, train_y, test_x, test_y, classes=classes)
    np.testing.assert_allclose(result.losses, reference.losses, rtol=TOLERANCE, atol=TOLERANCE)
    assert not np.any(result.heads["kernel"][0, -1])


def test_the_scale_of_a_feature_is_that_of_scikit_learn():
    features = texts(2, 50, 6, 2)[0]
    expected = np.stack([1 / StandardScaler().fit(own).scale_ for own in features])
    np.testing.assert_allclose(scale_of(jnp.asarray(features)), expected, rtol=1e-5)


def test_a_class_without_texts_is_left_out_and_a_single_text_is_always_learned():
    train_x, train_y, test_x, test_y = texts(1, 90, 8, 4)
    kept = (train_y != 2) & ((train_y != 1) | (np.arange(90) == 1))
    train_x, train_y = train_x[:, kept], train_y[kept]
    assert (train_y == 1).sum() == 1
    assert folds_of(train_y, classes=4)[train_y == 1] == -1
    result = linear_probe(train_x, train_y, test_x, test_y, classes=4)
    model = LogisticRegression(solver="newton-cholesky", tol=1e-8, max_iter=300)
    chosen, search, features = searched(model, train_x[0], train_y, test_x[0], minus_log_loss)
    assert result.inverse_l2[0] == pytest.approx(chosen)
    seen = test_y != 2
    column = np.searchsorted(search.classes_, test_y[seen])
    expected = -search.predict_log_proba(features[seen])[np.arange(seen.sum()), column]
    np.testing.assert_allclose(result.losses[0][seen], expected, rtol=0, atol=TOLERANCE)
    assert np.all(np.isfinite(result.losses))
    assert np.all(result.losses[0][~seen] > 15)


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_with_hardly_any_text_the_probe_is_still_finite(count, classes):
    features = np.random.default_rng(0).normal(size=(1, count, 5)).astype(np.float32)
    labels = np.arange(count) % 2
    result = linear_probe(features, labels, features, labels, classes=classes)
    assert np.all(np.isfinite(result.losses))
    assert result.inverse_l2[0] in np.array(GRID, np.float32)


@pytest.mark.parametrize("classes", [2, pytest.param(4, marks=pytest.mark.long)])
def test_a_batch_of_points_as_on_an_accelerator_chooses_the_same(classes):
    train_x, train_y, test_x, test_y = texts(3, 100, 16, classes)
    train_x[1] = np.random.default_rng(1).normal(size=train_x[1].shape)  # nothing to learn: another penalty
    arguments = jnp.asarray(train_x), jnp.asarray(train_y), jnp.asarray(folds_of(train_y, classes=classes))
    together = logistic.programs_of(cross_validation._fit).together(*arguments, classes=classes)
    alone = fit_logistic_by_folds(*arguments, classes=classes)
    np.testing.assert_array_equal(together.inverse_l2, alone.inverse_l2)
    assert len(set(alone.inverse_l2.tolist())) > 1
    losses = [fixed_head_loss(test_x, test_y, fit.heads) for fit in (together, alone)]
    assert np.all(np.abs(losses[0] - losses[1]) <= TOLERANCE * np.maximum(1, losses[1]))


def test_bfloat16_features_are_fitted_as_the_float32_numbers_they_are():
    train_x, train_y, _, _ = texts(2, 60, 8, 3)
    rounded = jnp.asarray(train_x, jnp.bfloat16)
    half, whole = fit_probe(rounded, train_y, classes=3), fit_probe(rounded.astype(jnp.float32), train_y, classes=3)
    np.testing.assert_array_equal(half.heads["kernel"], whole.heads["kernel"])
    assert half.heads["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("hands", [2, 3, 5])
def test_texts_are_dealt_evenly_and_always_in_the_same_way(hands):
    labels = np.random.default_rng(0).choice(4, p=[0.6, 0.3, 0.07, 0.03], size=101)
    hand = dealt(labels, hands, "a stream")
    np.testing.assert_array_equal(hand, dealt(labels.copy(), hands, "a stream"))
    assert np.any(hand != dealt(labels, hands, "another stream"))
    assert np.ptp(np.bincount(hand, minlength=hands)) <= 1
    for label in range(4):
        assert np.ptp(np.bincount(hand[labels == label], minlength=hands)) <= 1


@pytest.mark.parametrize("classes", [2, 5])
def test_rough_fits_without_a_fold_choose_as_exact_ones_do(classes, monkeypatch):
    # A size of its own: programs are compiled anew. So little to learn that neighbours on the path are nearly equal.
    train_x, train_y, _, _ = texts(6, 121, 33, classes, separation=0.5)
    rough = fit_probe(train_x, train_y, classes=classes).inverse_l2
    for name, value in {"ROUGHLY": 0.1, "PRECISELY": 1e-3, "MARGIN": np.inf}.items():  # the whole grid
        monkeypatch.setattr(cross_validation, name, value)
    logistic.programs_of(cross_validation._fit).alone.clear_cache()
    exact = fit_probe(train_x, train_y, classes=classes).inverse_l2
    logistic.programs_of(cross_validation._fit).alone.clear_cache()
    np.testing.assert_array_equal(rough, exact)
