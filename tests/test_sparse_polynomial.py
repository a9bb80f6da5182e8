"""Polynomials of many members from few nodes: against scikit-learn's ridge on features, and on a function made up."""

import dataclasses
import itertools

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from wsr.engine.evaluate import Protocol
from wsr.engine.hull_polynomial import LogitPolynomial, design_of, draw_faces, polynomial_through
from wsr.engine.lattice import Interpolation, count, sparse_lattice
from wsr.engine.sparse_polynomial import CURVES, HIGHER, NOISE, SLOPES, most_informative


def hull(seed, points, members):
    return np.random.default_rng(seed).dirichlet(np.ones(members), size=points)


def features(points, degree):
    """Every product of coefficients, each with the square root of its variance."""
    columns = [np.sqrt(SLOPES) * points]
    if degree > 1:
        columns.append(np.sqrt(CURVES) * points**2)
    for own in range(2, degree + 1):
        products = itertools.product(range(points.shape[1]), repeat=own)
        columns.append(
            HIGHER ** ((own - 2) / 2) * np.stack([points[:, list(each)].prod(axis=1) for each in products], axis=1)
        )
    return np.concatenate(columns, axis=1)


@pytest.mark.parametrize(("members", "nodes", "degree"), [(4, 9, 2), (12, 40, 2), (4, 15, 3), (3, 12, 4)])
def test_the_most_likely_polynomial_is_that_of_a_ridge_on_all_products(members, nodes, degree):
    known, points = hull(0, nodes, members), hull(1, 20, members)
    values = 5 + np.sin(3 * known @ np.random.default_rng(2).normal(size=(members, 3)))
    interpolation = Interpolation.through(known, degree)
    assert nodes < count(members, degree)
    ridge = Ridge(alpha=NOISE, fit_intercept=False, solver="svd")
    ridge.fit(features(known, degree), values - values.mean(axis=0))
    expected = ridge.predict(features(points, degree)) + values.mean(axis=0)
    np.testing.assert_allclose(interpolation.weights(points) @ values, expected, atol=1e-4)
    np.testing.assert_allclose(interpolation.weights(points).sum(axis=1), 1)


def test_each_node_is_the_one_of_largest_variance():
    given, candidates = np.eye(6), np.array([own for own in hull(3, 400, 6).round(1) if np.isclose(own.sum(), 1)])
    chosen = most_informative(candidates, given, 8)
    assert len(set(chosen.tolist())) == 8
    for step in range(8):
        known = features(np.concatenate([given, candidates[chosen[:step]]]), 2)
        own = features(candidates, 2)
        gain = np.linalg.solve(known @ known.T + NOISE * np.eye(len(known)), known @ own.T)
        variance = (own**2).sum(axis=1) - (known @ own.T * gain).sum(axis=0)
        assert variance[chosen[step]] > (1 - 1e-3) * variance.max()


def test_a_sparse_lattice_has_all_members_and_spreads_its_midpoints_evenly():
    nodes, degree = sparse_lattice(30, 237)
    assert (len(nodes), degree) == (237, 2)
    np.testing.assert_array_equal(nodes[:30], np.eye(30))
    assert set(nodes[30:].max(axis=1)) == {0.5}
    assert len(np.unique(nodes, axis=0)) == 237
    used = (nodes[30:] > 0).sum(axis=0)
    assert used.max() - used.min() <= 2
    assert sparse_lattice(30, 30)[1] == 1
    assert [len(sparse_lattice(members, 187)[0]) for members in (2, 5, 8, 18)] == [9, 126, 120, 171]


@pytest.fixture(scope="module")
def world(dataset):
    """Sixty texts with made-up labels, and their logits as a function of 30 coefficients that no polynomial equals."""
    draw = np.random.default_rng(0)
    texts, hidden, members = 60, 8, 30
    offset, maps = draw.normal(size=(texts, hidden)), 0.8 * draw.normal(size=(members, texts, hidden))
    head = draw.normal(size=hidden)

    def outputs(points):
        return (np.tanh(offset + np.tensordot(points, maps, axes=1)) @ head)[..., None]

    split = dataset.splits["test"]
    labels = draw.integers(0, 2, texts).astype(np.int32)
    split = dataclasses.replace(split.take(np.arange(texts) % len(split)), labels=labels)
    return dataset.with_split("test", split), outputs


def exact_losses(outputs, points, labels):
    """Cross-entropy of two classes, from its formula."""
    signed = np.where(labels, -1, 1) * outputs(points)[..., 0]
    return np.log1p(np.exp(signed)).mean(axis=1)


def test_thirty_members_are_known_within_the_tolerance_from_three_hundred_points(world):
    dataset, outputs = world
    labels = dataset.splits["test"].labels
    design = design_of(30, points=300)
    assert len(design.points) == 300
    found = polynomial_through(outputs(design.points), dataset, design, Protocol(inverse_l2=1.0))
    assert found.interpolation.degree == 2
    points = draw_faces(np.random.default_rng(5), 400, 30)
    exact = exact_losses(outputs, points, labels)
    errors = np.abs(found.losses_at(points) - exact)
    assert errors.mean() < 0.01
    assert (errors > found.bounds_at(points)[0]).mean() <= 0.05
    # A polynomial of degree 1 is worse by far, and the losses differ by many tolerances.
    first = Interpolation.through(np.eye(30), 1)
    straight = LogitPolynomial.through(dataset, first, outputs(np.eye(30))).losses_at(points)
    assert np.abs(straight - exact).mean() > 3 * errors.mean()
    assert np.ptp(exact) > 0.1
