"""Fine-tuning against optax's own AdamW written out step by step, and by its promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from worlds import made_up

from wsr.data.dataset import Split
from wsr.data.packing import training_batches
from wsr.errors import WsrError
from wsr.geometry.linear_head import logits
from wsr.geometry.trees import flatten, nest
from wsr.models.features import all_features
from wsr.runtime import seeds
from wsr.training import Division, Job, Recipe, finetune, initial_head, predict, score_member
from wsr.training.early_stopping import EarlyStopping

RECIPE = Recipe(learning_rate=5e-3, batch_size=16, epochs=2, warmup=0.25, dropout=False)


def train(checkpoint, *jobs, chunk=1, pieces=1):
    return list(finetune(checkpoint.model, checkpoint.params, jobs, chunk=chunk, division=Division(pieces)))


def same_weights(first, second, atol=0.0):
    for path, leaf in flatten(first.params).items():
        if atol and path.endswith("attention/key/bias"):
            # It shifts all scores of a query alike, which a softmax does not see: its gradient is rounding error,
            # and Adam makes steps of full length of that. Only equal bits can be compared.
            continue
        np.testing.assert_allclose(leaf, flatten(second.params)[path], atol=atol, err_msg=path)
    np.testing.assert_allclose(first.head["kernel"], second.head["kernel"], atol=atol)


def test_dropout_of_a_head_is_that_of_robertas_classifier():
    """Before the dense layer and after its tanh, a tenth of the values is 0, and the rest is scaled up."""
    draw = np.random.default_rng(0)
    head = {
        "dense_kernel": np.eye(200, dtype=np.float32),
        "dense_bias": np.zeros(200, np.float32),
        "kernel": np.eye(200, dtype=np.float32),
        "bias": np.zeros(200, np.float32),
    }
    features = draw.uniform(0.1, 0.5, (300, 200)).astype(np.float32)
    key = jax.random.key(3)
    found = np.asarray(logits(features, head, dropout_key=key))
    # With identities for matrices each value goes its own way: it is dropped twice.
    kept = found != 0
    assert kept.mean() == pytest.approx(0.9**2, abs=0.005)
    np.testing.assert_allclose(found[kept], (np.tanh(features / 0.9) / 0.9)[kept], rtol=1e-5)
    assert abs(np.corrcoef(kept[0], kept[1])[0, 1]) < 0.3  # texts are dropped apart
    np.testing.assert_allclose(logits(features, head), np.tanh(features), rtol=1e-6)
    linear = {name: head[name] for name in ("kernel", "bias")}
    np.testing.assert_array_equal(logits(features, linear, dropout_key=key), logits(features, linear))


@pytest.mark.parametrize(("pieces", "hidden_head"), [(1, False), (4, False), (1, True)])
def test_equals_a_plain_loop_with_optax_adamw(tiny, dataset, pieces, hidden_head):
    job = Job(dataset, 3, dataclasses.replace(RECIPE, hidden_head=hidden_head))
    (member,) = train(tiny, job, pieces=pieces)

    batches = training_batches(
        dataset.splits["finetune"],
        batch_size=16,
        steps=8,
        generator=seeds.generator(3, dataset.name, "order"),
        row_length=64,
    )
    weights = {"encoder": tiny.params, "head": jax.tree.map(jnp.asarray, initial_head(job, tiny.model.hidden))}
    # Warm-up over 2 of 8 steps, then down to zero: written out by hand.
    rates = jnp.asarray([0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]) * 5e-3
    optimizer = optax.adamw(
        lambda step: rates[step], weight_decay=0.01, mask=lambda w: jax.tree.map(lambda x: x.ndim > 1, w)
    )
    state, losses = optimizer.init(weights), []

    @jax.jit
    def step(weights, state, batch, labels):
        def loss_of(weights):
            features, head = tiny.model.encode(weights["encoder"], batch), weights["head"]
            if hidden_head:
                features = jnp.tanh(features @ head["dense_kernel"] + head["dense_bias"])
            logits = features @ head["kernel"] + head["bias"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        loss, gradient = jax.value_and_grad(loss_of)(weights)
        updates, state = optimizer.update(gradient, state, weights)
        return optax.apply_updates(weights, updates), state, loss

    for number in range(8):
        batch = {name: array[number] for name, array in batches.inputs.items()}
        weights, state, loss = step(weights, state, batch, batches.labels[number])
        losses.append(float(loss))
    np.testing.assert_allclose(member.losses, losses, atol=1e-4)
    for path, leaf in flatten(weights["encoder"]).items():
        if not path.endswith("attention/key/bias"):  # see same_weights
            np.testing.assert_allclose(flatten(member.params)[path], leaf, atol=1e-4, err_msg=path)
    assert member.head.keys() == weights["head"].keys()
    for name, leaf in weights["head"].items():
        np.testing.assert_allclose(member.head[name], leaf, atol=1e-4, err_msg=name)


def test_learns(tiny, dataset):
    (member,) = train(tiny, Job(dataset, 0, dataclasses.replace(RECIPE, epochs=12)))
    assert member.losses[-4:].mean() < 0.5 * member.losses[:4].mean()
    assert score_member(tiny.model, member.params, member.head, dataset, "test") > 0.8


@pytest.mark.long
def test_a_member_is_the_same_alone_and_in_a_group_of_other_datasets_sizes_and_recipes(tiny, dataset):
    other = made_up(tiny, "made_up_b1")
    job = Job(dataset, 1, RECIPE)
    companions = [
        Job(other, 1, dataclasses.replace(RECIPE, learning_rate=1e-3, weight_decay=0.2), size=32),
        Job(dataset, 2, RECIPE),
    ]
    alone, *_ = train(tiny, job)
    first, second, third = train(tiny, job, *companions, chunk=3)
    assert (first.group_size, alone.group_size) == (3, 1)
    same_weights(alone, first, atol=1e-4)
    same_weights(train(tiny, companions[0])[0], second, atol=1e-4)
    assert len(second.losses) == 4
    assert len(third.losses) == 8


@pytest.mark.parametrize("mode", [pytest.param("bitfit", marks=pytest.mark.long), "lora", "head"])
def test_batches_in_pieces_train_the_same_members(tiny, dataset, mode):
    jobs = [Job(dataset, seed, dataclasses.replace(RECIPE, mode=mode, epochs=1)) for seed in range(2)]
    for whole, cut in zip(train(tiny, *jobs, chunk=2), train(tiny, *jobs, chunk=2, pieces=8), strict=True):
        assert (whole.division.pieces, cut.division.pieces) == (1, 8)
        np.testing.assert_allclose(whole.losses, cut.losses, atol=1e-5)
        same_weights(whole, cut, atol=1e-5)


@pytest.mark.long
def test_each_piece_draws_its_own_dropout(dropping, dataset):
    """If pieces with the same texts had the same mask, the mean over two pieces would be that over four."""
    text = dataset.splits["finetune"].take(np.zeros(1, int))
    jobs = [
        Job(
            dataset.with_split("finetune", text.take(np.zeros(texts, int))),
            0,
            dataclasses.replace(RECIPE, batch_size=texts, epochs=1, dropout=True),
        )
        for texts in (16, 32)
    ]
    (two,), (four,) = (train(dropping, job, pieces=pieces) for job, pieces in zip(jobs, (2, 4), strict=True))
    assert abs(two.losses[0] - four.losses[0]) > 1e-5


def test_pieces_that_do_not_divide_the_batch_are_refused(tiny, dataset):
    with pytest.raises(WsrError, match="pieces = 3 does not divide the batch size 16"):
        train(tiny, Job(dataset, 0, RECIPE), pieces=3)


@pytest.mark.long
def test_members_of_other_batch_sizes_are_trained_in_other_groups(tiny, dataset):
    jobs = [Job(dataset, 0, RECIPE), Job(dataset, 1, dataclasses.replace(RECIPE, batch_size=32))]
    assert [len(member.losses) for member in train(tiny, *jobs, chunk=2)] == [8, 4]


def test_a_group_that_is_not_full_is_padded_and_gives_the_same_bits(tiny, dataset):
    jobs = [Job(dataset, seed, RECIPE) for seed in range(3)]
    padded = train(tiny, *jobs, chunk=2)
    assert [member.job.seed for member in padded] == [0, 1, 2]
    (alone,) = train(tiny, jobs[2], chunk=2)
    same_weights(padded[2], alone)


def test_same_seed_same_bits_and_another_seed_another_member(tiny, dataset):
    first, again, other = (train(tiny, Job(dataset, seed, RECIPE))[0] for seed in (5, 5, 6))
    same_weights(first, again)
    assert np.abs(first.head["kernel"] - other.head["kernel"]).max() > 1e-3


def test_datasets_of_one_seed_share_neither_head_nor_order(tiny, dataset):
    other = dataclasses.replace(dataset, name="another name")
    heads = [initial_head(Job(own, 0, RECIPE), tiny.model.hidden)["kernel"] for own in (dataset, other)]
    assert abs(np.corrcoef(heads[0].ravel(), heads[1].ravel())[0, 1]) < 0.5
    assert not np.array_equal(
        train(tiny, Job(dataset, 0, RECIPE))[0].losses, train(tiny, Job(other, 0, RECIPE))[0].losses
    )


def test_bitfit_trains_biases_and_the_head_alone(tiny, dataset):
    (member,) = train(tiny, Job(dataset, 0, dataclasses.replace(RECIPE, mode="bitfit", epochs=6, learning_rate=2e-2)))
    base, trained = flatten(tiny.params), flatten(member.params)
    for path, leaf in trained.items():
        assert np.array_equal(leaf, base[path]) != path.endswith("/bias") or path.endswith("key/bias"), path
    assert member.losses[-4:].mean() < member.losses[:4].mean()


def test_head_mode_leaves_the_encoder_and_reads_the_texts_once(tiny, dataset, monkeypatch):
    encoded = []
    from wsr.training import batches as module

    whole = module.all_features
    monkeypatch.setattr(module, "all_features", lambda *args: encoded.append(1) or whole(*args))
    (member,) = train(tiny, Job(dataset, 0, dataclasses.replace(RECIPE, mode="head", learning_rate=0.05, epochs=6)))
    assert len(encoded) == 1
    for path, leaf in flatten(member.params).items():
        np.testing.assert_array_equal(leaf, flatten(tiny.params)[path])
    assert member.losses[-4:].mean() < member.losses[:4].mean()


@pytest.fixture(scope="module")
def dropping():
    """The tiny checkpoint with dropout."""
    from wsr.models import Checkpoint, build, load

    plain = load("tiny")
    model = build("tiny", {**plain.model.config, "hidden_dropout_prob": 0.3})
    return Checkpoint(model, plain.params, plain.processor)


@pytest.mark.long
def test_dropout_changes_the_training_and_depends_on_the_seed_alone(dropping, dataset):
    with_dropout = dataclasses.replace(RECIPE, dropout=True)
    first, again = (train(dropping, Job(dataset, 0, with_dropout))[0] for _ in range(2))
    (without,) = train(dropping, Job(dataset, 0, RECIPE))
    same_weights(first, again)
    assert not np.allclose(first.losses, without.losses, atol=1e-3)


def test_a_member_that_becomes_non_finite_stops_there_and_harms_nobody(tiny, dataset):
    poison = dataclasses.replace(RECIPE, learning_rate=1e30)
    healthy, broken = train(tiny, Job(dataset, 0, RECIPE), Job(dataset, 1, poison), chunk=2)
    clean, _ = train(tiny, Job(dataset, 0, RECIPE), Job(dataset, 1, RECIPE), chunk=2)
    assert healthy.failed_step is None
    assert broken.failed_step is not None
    assert 1 <= broken.failed_step <= 3
    same_weights(healthy, clean)
    assert all(np.isfinite(leaf).all() for leaf in flatten(broken.params).values())


@pytest.mark.parametrize(("stop_on", "mode"), [("score", "full"), ("loss", "full"), ("loss", "head")])
def test_early_stopping_keeps_the_first_weights_with_the_best_value(tiny, dataset, monkeypatch, stop_on, mode):
    seen = []
    check = EarlyStopping.check

    def watched(self, state, step):
        seen.append(jax.tree.map(lambda leaf: np.array(leaf[0]), state["weights"]))
        return check(self, state, step)

    monkeypatch.setattr(EarlyStopping, "check", watched)
    recipe = dataclasses.replace(RECIPE, epochs=3, learning_rate=2e-2, patience=50, check_every=1, min_improvement=0.0)
    (member,) = train(tiny, Job(dataset, 0, dataclasses.replace(recipe, stop_on=stop_on, mode=mode)))
    split = dataset.splits["validation"]

    def value(weights):
        params = nest(flatten(tiny.params) | weights["encoder"])
        outputs = all_features(tiny.model, params, split).astype(np.float64) @ weights["head"]["kernel"]
        outputs = (outputs + weights["head"]["bias"])[:, : dataset.classes]
        if stop_on == "score":
            return np.mean(outputs.argmax(axis=1) == split.labels)
        of_label = outputs[np.arange(len(split)), split.labels]
        return np.mean(of_label - np.log(np.exp(outputs).sum(axis=1)))

    values = [value(weights) for weights in seen]
    assert len(values) == 12
    assert max(values) > min(values)
    best = seen[int(np.argmax(values))]
    np.testing.assert_array_equal(member.head["kernel"], best["head"]["kernel"][:, : dataset.classes])
    for path, leaf in best["encoder"].items():
        np.testing.assert_array_equal(flatten(member.params)[path], leaf)


def test_what_is_checked_is_in_the_settings_if_it_is_not_the_loss():
    assert Recipe(patience=3, stop_on="score").settings["stop_on"] == "score"
    # Stores from before there was a choice hold no such field.
    assert "stop_on" not in Recipe(patience=3).settings | Recipe(stop_on="score").settings


@pytest.mark.parametrize("stop_on", ["loss", "score"])
def test_a_check_leaves_the_weights_on_the_device(tiny, dataset, monkeypatch, stop_on):
    """Weights that went through the host would have to be put back, which is refused here."""
    kept = []
    check = EarlyStopping.check

    def guarded(self, state, step):
        with jax.transfer_guard("disallow"):  # what is copied on purpose may be: a loss, who improved
            state = check(self, state, step)
        kept.extend(jax.tree.leaves(self._best))
        return state

    monkeypatch.setattr(EarlyStopping, "check", guarded)
    recipe = dataclasses.replace(RECIPE, patience=5, check_every=2, stop_on=stop_on)
    other = made_up(tiny, "made_up_b1")
    train(tiny, Job(dataset, 0, recipe), Job(other, 0, recipe), chunk=2)
    assert kept
    assert all(isinstance(leaf, jax.Array) for leaf in kept)


def test_early_stopping_keeps_the_best_and_stops(tiny, dataset):
    patient = dataclasses.replace(RECIPE, epochs=30, learning_rate=2e-2, patience=2, check_every=4)
    (member,) = train(tiny, Job(dataset, 0, patient))
    (whole,) = train(tiny, Job(dataset, 0, dataclasses.replace(patient, patience=None)))
    assert len(member.losses) < len(whole.losses)

    def validation_loss(own):
        split = dataset.splits["validation"]
        features = all_features(tiny.model, own.params, split)
        logits = jnp.asarray(features @ own.head["kernel"] + own.head["bias"])
        return float(optax.softmax_cross_entropy_with_integer_labels(logits, split.labels).mean())

    assert validation_loss(member) <= validation_loss(whole) + 1e-6


PATIENT = dataclasses.replace(RECIPE, epochs=10, learning_rate=2e-2, patience=2, check_every=4)


@pytest.mark.parametrize(
    ("own", "other"),
    [
        pytest.param(
            dataclasses.replace(PATIENT, patience=None), PATIENT, id="without patience", marks=pytest.mark.long
        ),
        pytest.param(
            dataclasses.replace(PATIENT, check_every=40), PATIENT, id="checked more rarely", marks=pytest.mark.long
        ),
        pytest.param(PATIENT, dataclasses.replace(PATIENT, epochs=20, patience=1), id="shorter"),
    ],
)
def test_early_stopping_of_a_neighbour_changes_nothing(tiny, dataset, own, other):
    alone, _ = train(tiny, Job(dataset, 0, own), Job(dataset, 1, own), chunk=2)
    beside, _ = train(tiny, Job(dataset, 0, own), Job(dataset, 1, other), chunk=2)
    assert len(beside.losses) == len(alone.losses)
    # Batches of a longer neighbour have other shapes, so other rounding.
    same_weights(beside, alone, atol=1e-5)


def test_a_short_training_is_checked_too(tiny, dataset):
    """40 steps and a check every 50 steps: without more checks, patience would have no effect."""
    patient = dataclasses.replace(PATIENT, learning_rate=5e-2, patience=1, check_every=50)
    (member,) = train(tiny, Job(dataset, 0, patient))
    assert len(member.losses) < 40
    assert len(member.losses) % 4 == 0


def test_a_head_learning_rate_of_zero_leaves_the_head(tiny, dataset):
    job = Job(dataset, 0, dataclasses.replace(RECIPE, head_learning_rate=0.0))
    (member,) = train(tiny, job)
    np.testing.assert_array_equal(member.head["kernel"], initial_head(job, tiny.model.hidden)["kernel"])
    assert any(
        np.any(a != b) for a, b in zip(jax.tree.leaves(member.params), jax.tree.leaves(tiny.params), strict=True)
    )


def test_longer_texts_than_the_model_reads_are_refused(tiny):
    long = made_up(tiny, "made_up_a1")
    tokens = np.ones(65, np.int32)
    too_long = Split(tokens, 0 * tokens, np.array([0, 65]), np.zeros(1, np.int32))
    data = dataclasses.replace(long, splits={**long.splits, "finetune": too_long})
    with pytest.raises(WsrError, match=r"a text has 65 tokens, but tiny reads at most 64; .*--max_length=64"):
        train(tiny, Job(data, 0, RECIPE))


def test_regression_fits_numbers(tiny, dataset):
    def numbered(split):
        return dataclasses.replace(split, labels=split.labels.astype(np.float32) * 4 + 1)

    numbers = dataclasses.replace(
        dataset, classes=1, metric="pearson", splits={name: numbered(split) for name, split in dataset.splits.items()}
    )
    (member,) = train(tiny, Job(numbers, 0, dataclasses.replace(RECIPE, epochs=40, learning_rate=2e-2)))
    assert member.losses[-4:].mean() < 0.5 * member.losses[:4].mean()
    assert score_member(tiny.model, member.params, member.head, numbers, "test") > 0.7


def test_one_program_serves_datasets_seeds_and_hyperparameters(tiny, dataset):
    from wsr.runtime.devices import member_mesh
    from wsr.training.program import training_program

    training_program.cache_clear()
    jobs = [
        Job(dataset, 0, RECIPE),
        Job(dataset, 1, dataclasses.replace(RECIPE, learning_rate=1e-4, weight_decay=0.5, warmup=0.5)),
    ]
    train(tiny, jobs[0])
    program = training_program(tiny.model, False, False, member_mesh(1))
    compiled = program._cache_size()
    train(tiny, jobs[1])
    assert compiled == 1
    assert program._cache_size() <= 2  # another number of packed rows is another shape


def test_sizes_are_subsets_by_seed_and_too_many_are_refused(dataset):
    small, large = Job(dataset, 0, RECIPE, 8).split, Job(dataset, 0, RECIPE, 32).split
    assert (len(small), len(large)) == (8, 32)
    with pytest.raises(WsrError, match="size = 65, but it has only 64 fine-tuning examples"):
        _ = Job(dataset, 0, RECIPE, 65).split


def test_members_of_one_seed_share_neither_texts_nor_head_across_sizes(dataset):
    """Nested subsets would make the members of one seed alike, whatever their sizes."""
    sizes = (8, 16, 32)
    jobs = [Job(dataset, 0, RECIPE, size) for size in sizes]
    heads = [initial_head(job, 6)["kernel"].ravel() for job in jobs]
    assert np.abs(np.corrcoef(heads) - np.eye(3)).max() < 0.9
    small, middle, large = (set(job.split.text_hashes.tolist()) for job in jobs)
    assert not small <= middle
    assert not middle <= large


def test_predict_by_hand():
    features = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    head = {"kernel": np.array([[1.0, 0.0], [0.0, 1.0]], np.float32), "bias": np.array([0.5, 0.0], np.float32)}
    np.testing.assert_array_equal(predict(features, head, regression=False), [0, 1])
    np.testing.assert_allclose(predict(features, head, regression=True), [1.5, 0.5])
