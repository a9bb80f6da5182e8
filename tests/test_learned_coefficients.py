"""Learned coefficients: gradients against finite differences in float64 with scikit-learn, and what they find."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from wsr.data.dataset import Dataset
from wsr.data.packing import evaluation_batches, in_text_order
from wsr.engine.evaluate import Protocol, evaluate, probe_draws
from wsr.engine.learned_coefficients import learn_coefficients, validation_loss
from wsr.engine.objective import on_validation
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.sampling import centroid
from wsr.merging.soups import greedy_soup
from wsr.region.region import from_params

C = 0.7


@pytest.fixture(scope="module")
def region(tiny):
    def moved(seed):
        generator = np.random.default_rng(seed)
        return jax.tree.map(
            lambda leaf: (leaf + 0.05 * generator.normal(size=leaf.shape)).astype(np.float32), tiny.params
        )

    return from_params(tiny.model, tiny.params, {f"m{seed}": moved(seed) for seed in range(3)})


def relabelled(dataset: Dataset, classes: int) -> Dataset:
    """The dataset with other labels: whole numbers below ``classes``, or real numbers for 1."""
    generator = np.random.default_rng(5)

    def labels(split):
        if classes == 1:
            return generator.normal(size=len(split)).astype(np.float32)
        return generator.integers(0, classes, len(split)).astype(np.int32)

    splits = {name: dataclasses.replace(split, labels=labels(split)) for name, split in dataset.splits.items()}
    return dataclasses.replace(dataset, classes=classes, splits=splits)


@cache
def encoder(model):
    return jax.jit(lambda params, batch: model.encode(params, batch))


def loss_in_float64(region, dataset, point, inverse_l2=C, *, standardised=False):
    """Mixes, encodes and probes with nothing of what is tested, in float64."""
    members = [member.load() for member in region.members]
    with jax.enable_x64():
        params = jax.tree.map(
            lambda base, *leaves: jnp.asarray(
                base + sum(c * (leaf.astype(np.float64) - base) for c, leaf in zip(point, leaves, strict=True))
            ),
            jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), region.base),
            *members,
        )

        def features(name):
            split = dataset.splits[name]
            batches = evaluation_batches(split, rows=64, row_length=64)
            encoded = encoder(region.model)(params, {key: jnp.asarray(a[0]) for key, a in batches.inputs.items()})
            assert encoded.dtype == np.float64
            return in_text_order(np.asarray(encoded)[None], batches.index, len(split))

        known, held_out = features("probe"), features("validation")
    known_labels, labels = dataset.splits["probe"].labels, dataset.splits["validation"].labels
    if standardised:
        scaler = StandardScaler().fit(known)
        known, held_out = scaler.transform(known), scaler.transform(held_out)
    if dataset.classes == 1:
        probe = Ridge(alpha=1 / inverse_l2, solver="cholesky").fit(known, known_labels)
        return np.mean((probe.predict(held_out) - labels) ** 2)
    probe = LogisticRegression(C=inverse_l2, tol=1e-13, max_iter=1000, solver="newton-cholesky").fit(
        known, known_labels
    )
    return -np.mean(probe.predict_log_proba(held_out)[np.arange(len(labels)), labels])


@pytest.mark.parametrize(
    "classes", [pytest.param(1, marks=pytest.mark.long), 2, pytest.param(4, marks=pytest.mark.long)]
)
def test_gradient_is_that_of_finite_differences_of_the_whole_chain(dataset, region, classes):
    target = relabelled(dataset, classes)
    point = np.array([0.5, 0.2, 0.4])  # off the hull, so that the base has a share
    loss, gradient = validation_loss(region, target, Protocol(inverse_l2=C))(jnp.asarray(point))
    assert loss == pytest.approx(loss_in_float64(region, target, point), abs=1e-5)
    expected = []
    for step in 1e-4 * np.eye(3):
        up, down = (loss_in_float64(region, target, point + sign * step) for sign in (1, -1))
        expected.append((up - down) / 2e-4)
    np.testing.assert_allclose(gradient(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("classes", [1, pytest.param(4, marks=pytest.mark.long)])
def test_gradient_under_a_chosen_penalty_is_that_of_finite_differences_at_that_penalty(dataset, region, classes):
    target = relabelled(dataset, classes)
    point = np.array([0.5, 0.2, 0.4])
    chosen = float(evaluate(region, point, on_validation(target)).inverse_l2[0, 0])
    expect = partial(loss_in_float64, region, target, inverse_l2=chosen, standardised=True)
    loss, gradient = validation_loss(region, target)(jnp.asarray(point))
    assert loss == pytest.approx(expect(point), abs=1e-5)
    expected = [(expect(point + step) - expect(point - step)) / 2e-4 for step in 1e-4 * np.eye(3)]
    np.testing.assert_allclose(gradient(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.long
def test_the_gradient_with_draws_is_the_mean_over_draws(dataset, region):
    target, point = relabelled(dataset, 2), np.array([0.5, 0.2, 0.4])
    loss, gradient = validation_loss(region, target, Protocol(inverse_l2=C, draws=2))(jnp.asarray(point))
    probe, each = target.splits["probe"], []
    for texts in probe_draws(probe.labels, 2):
        part = target.with_split("probe", probe.take(texts))
        each.append(validation_loss(region, part, Protocol(inverse_l2=C))(jnp.asarray(point)))
    assert loss == pytest.approx(np.mean([own for own, _ in each]), abs=1e-6)
    np.testing.assert_allclose(gradient(), np.mean([slope() for _, slope in each], axis=0), rtol=1e-3, atol=1e-6)


def test_a_class_that_the_probe_never_saw_leaves_the_gradient_finite(dataset, region):
    target = relabelled(dataset, 4)
    seen = np.where(target.splits["probe"].labels == 3, 0, target.splits["probe"].labels).astype(np.int32)
    splits = {**target.splits, "probe": dataclasses.replace(target.splits["probe"], labels=seen)}
    target = dataclasses.replace(target, splits=splits)
    judge = validation_loss(region, target, Protocol(inverse_l2=C))
    point = np.array([0.5, 0.2, 0.4])
    _, gradient = judge(jnp.asarray(point))
    step = 1e-2 * np.eye(3)
    expected = [(judge(jnp.asarray(point + e))[0] - judge(jnp.asarray(point - e))[0]) / 2e-2 for e in step]
    np.testing.assert_allclose(gradient(), expected, rtol=0.02, atol=1e-3)


@pytest.mark.parametrize("space", ["hull", "free"])
def test_learning_lowers_the_validation_loss_that_the_engine_measures(dataset, region, space):
    target = relabelled(dataset, 2)
    protocol = Protocol(inverse_l2=C)
    learned = learn_coefficients(region, target, space=space, steps=4, protocol=protocol)
    rows = np.stack([region.centroid(), learned.coefficients])
    start, end = evaluate(region, rows, on_validation(target), protocol=protocol).generalised_loss
    np.testing.assert_allclose([learned.losses[0], learned.losses.min()], [start, end], atol=1e-5)
    assert end < start
    assert len(learned.losses) == 5
    if space == "hull":
        assert learned.coefficients.min() >= 0
        assert learned.coefficients.sum() == pytest.approx(1, abs=1e-6)


def test_greedy_soup_is_that_of_the_recipe(dataset, region):
    target = relabelled(dataset, 2)
    found = greedy_soup(region, target, Protocol(), Settings())

    def loss(members):
        return evaluate(region, centroid(3, members), on_validation(target)).generalised_loss[0]

    order = sorted(range(3), key=lambda member: loss([member]))
    soup = order[:1]
    for member in order[1:]:
        if loss([*soup, member]) <= loss(soup):
            soup.append(member)
    np.testing.assert_array_equal(found, centroid(3, soup)[0])


def test_the_test_split_is_not_read(dataset, region):
    blind = {name: split for name, split in relabelled(dataset, 2).splits.items() if name != "test"}
    learn_coefficients(region, dataclasses.replace(dataset, splits=blind), steps=1)


def test_refuses_what_has_no_gradient(dataset, region):
    with pytest.raises(WsrError, match=r"expected the linear probe.* found roberta_head"):
        learn_coefficients(region, dataset, protocol=Protocol(probe="roberta_head"))
    with pytest.raises(WsrError, match="no members"):
        learn_coefficients(region.emptied(), dataset)
