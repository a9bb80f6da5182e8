"""combine and what the Gram matrix answers against NumPy in float64; the hull distance against SciPy's solver."""

import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from wsr.geometry import gram as grams
from wsr.geometry import points as places
from wsr.geometry.trees import flatten, nest, stack


def tree(generator: np.random.Generator, scale: float = 1.0) -> dict:
    shapes = {"embed/table": (7, 4), "layers/0/kernel": (4, 5), "layers/0/bias": (5,), "layers/10/kernel": (3,)}
    return nest({path: (scale * generator.normal(size=shape)).astype(np.float32) for path, shape in shapes.items()})


@pytest.mark.parametrize("longer", [1.0, 1e4])
@pytest.mark.parametrize("members", [3, 12, 60])
def test_no_weight_can_be_moved_towards_the_nearest_point_of_a_hull(members, longer):
    """The optimality conditions of Karush, Kuhn and Tucker, also where one member is far longer than the others."""
    vectors = np.random.default_rng(members).standard_normal((members, 20))
    vectors[0] *= longer
    gram = vectors @ vectors.T
    point = np.eye(members)[-1]
    found, weights = grams.hull_distance(gram, point, range(members - 1))
    nearest = weights @ vectors[:-1]
    assert found == pytest.approx(np.linalg.norm(nearest - vectors[-1]), rel=1e-6)
    slopes = vectors[:-1] @ (nearest - vectors[-1])
    assert weights @ slopes - slopes.min() < 1e-8 * gram[-1, -1]


@pytest.fixture
def world():
    generator = np.random.default_rng(0)
    base = tree(generator)
    members = [jax.tree.map(np.add, base, tree(generator, 0.1)) for _ in range(4)]
    return base, members


def flat(params: dict) -> np.ndarray:
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in flatten(params).values()])


def test_combine_gives_back_base_and_members_bit_for_bit(world):
    base, members = world
    points = places.combine(base, stack(members), jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4)]))
    for number, expected in enumerate([base, *members]):
        for path, leaf in flatten(points).items():
            np.testing.assert_array_equal(leaf[number], flatten(expected)[path])


def test_combine_equals_base_plus_task_vectors(world):
    base, members = world
    rows = np.random.default_rng(1).normal(size=(3, 4))
    points = flatten(places.combine(base, stack(members), jnp.asarray(rows, jnp.float32)))
    for number, row in enumerate(rows):
        expected = flat(base) + sum(c * (flat(m) - flat(base)) for c, m in zip(row, members, strict=True))
        found = np.concatenate([np.asarray(leaf[number], np.float64).ravel() for leaf in points.values()])
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_combine_of_one_row_is_that_row_of_many(world):
    base, members = world
    row = jnp.asarray([0.2, 0.3, 0.4, 0.1])
    one = places.combine(base, stack(members), row)
    many = places.combine(base, stack(members), jnp.stack([row, row * 2]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[0], atol=1e-6), one, many)


def test_cosine_is_over_the_whole_vector_and_keeps_its_sign():
    vectors = np.array([[1.0, 0.0, 2.0], [-1.0, 0.0, -2.0], [0.0, 0.0, 0.0], [3.0, 1.0, 0.0]])
    similarity = grams.cosine(vectors @ vectors.T)
    assert similarity[0, 1] == pytest.approx(-1.0)
    assert similarity[0, 3] == pytest.approx(3 / np.sqrt(50))
    assert similarity[0, 2] == 0.0
    assert np.diag(similarity).tolist() == [1.0] * 4


def test_distance_between_points_from_the_gram_matrix_alone():
    vectors = np.random.default_rng(0).normal(size=(4, 9))
    a, b = np.array([0.5, 0.5, 0, 0]), np.array([0.0, 2.0, -1.0, 0.3])
    assert grams.distance(vectors @ vectors.T, a, b) == pytest.approx(np.linalg.norm(a @ vectors - b @ vectors))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), members=st.integers(2, 6))
def test_hull_distance_agrees_with_a_general_solver(seed, members):
    vectors = np.random.default_rng(seed).normal(size=(members + 1, 8))
    gram = vectors @ vectors.T
    point = np.eye(members + 1)[-1]
    found, weights = grams.hull_distance(gram, point, range(members))

    def squared(w):
        return float(np.sum((vectors[-1] - w @ vectors[:-1]) ** 2))

    solved = minimize(
        squared,
        np.full(members, 1 / members),
        bounds=[(0, 1)] * members,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    assert found == pytest.approx(np.sqrt(squared(weights)), rel=1e-9)
    assert found**2 <= solved.fun + 1e-6


def test_a_point_inside_the_hull_is_at_distance_zero():
    vectors = np.random.default_rng(3).normal(size=(3, 5))
    inside = np.array([0.2, 0.3, 0.5])
    found, weights = grams.hull_distance(vectors @ vectors.T, inside, range(3))
    assert found == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(weights, inside, atol=1e-6)


@pytest.mark.parametrize("block", [1, 2, 8])
@pytest.mark.parametrize("ahead", [False, True])
def test_members_in_blocks_give_the_points_of_combine(world, block, ahead):
    base, members = world
    rows = np.random.default_rng(2).dirichlet(np.ones(4), (2, 3))
    mix = partial(places.combine_in_blocks, base, block=block, ahead=ahead)
    one_by_one = flatten(places.combine_in_blocks(base, iter(members), rows))
    for path, leaf in flatten(mix(iter(members), rows)).items():
        np.testing.assert_allclose(leaf, one_by_one[path], rtol=1e-6, atol=1e-6)
        models = np.stack([flatten(model)[path] for model in (base, *members)]).astype(np.float64)
        weights = np.concatenate([1 - rows.sum(axis=-1, keepdims=True), rows], axis=-1)
        np.testing.assert_allclose(leaf, np.tensordot(weights, models, axes=1), atol=1e-5)
    corners = mix(iter(members), np.concatenate([np.zeros((1, 4)), np.eye(4)]))
    for number, expected in enumerate([base, *members]):
        for path, leaf in flatten(corners).items():
            np.testing.assert_array_equal(leaf[number], flatten(expected)[path])


@pytest.mark.parametrize("ahead", [False, True])
def test_one_block_is_held_at_once_or_two_if_one_is_loaded_ahead(world, ahead):
    base, members = world
    held, most = [], []

    def loaded():
        for member in members:
            copy = jax.tree.map(lambda leaf: leaf + np.float32(0), member)
            held.append(weakref.ref(jax.tree.leaves(copy)[0]))
            most.append(sum(own() is not None for own in held))
            yield copy
            del copy

    places.combine_in_blocks(base, loaded(), np.full((3, 4), 0.1), block=1, ahead=ahead)
    assert max(most) <= 1 + ahead
