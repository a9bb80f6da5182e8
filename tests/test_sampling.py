"""Samplers by their properties, and by what combine makes of them."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsr.geometry import sampling
from wsr.geometry.trees import flatten, nest


def test_a_line_starts_and_ends_at_its_members():
    rows = sampling.line([0.0, 0.25, 1.0, 3.0])
    np.testing.assert_allclose(rows, [[1, 0], [0.75, 0.25], [0, 1], [-2, 3]])


def test_the_papers_extrapolation_grid():
    alphas = sampling.extrapolation_alphas()
    assert len(alphas) == 20
    assert alphas.min() == pytest.approx(-31)
    assert alphas.max() == pytest.approx(32)
    assert {0.0, 1.0} <= set(alphas)
    assert (np.diff(alphas) > 0).all()


@settings(max_examples=20, deadline=None)
@given(members=st.integers(1, 8), points=st.integers(0, 20), concentration=st.floats(0.2, 5))
def test_hull_points_are_convex_combinations(members, points, concentration):
    rows = sampling.convex_hull(np.random.default_rng(0), points, members, concentration)
    assert rows.shape == (points, members)
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1)


def test_hull_points_are_uniform_on_the_simplex_by_default():
    rows = sampling.convex_hull(np.random.default_rng(0), 20_000, 3)
    # Uniform on the simplex: each coefficient is Beta(1, 2), with mean 1/3 and P(c > 1/2) = 1/4.
    np.testing.assert_allclose(rows.mean(axis=0), 1 / 3, atol=0.01)
    np.testing.assert_allclose((rows > 0.5).mean(axis=0), 0.25, atol=0.015)


def test_centroid_of_all_and_of_some():
    np.testing.assert_allclose(sampling.centroid(4), [[0.25] * 4])
    np.testing.assert_allclose(sampling.centroid(4, [1, 3]), [[0, 0.5, 0, 0.5]])


def test_plane_holds_its_three_members():
    rows = sampling.plane([0.0, 1.0], [0.0, 1.0])
    assert [0, 0, 1] in rows.tolist()
    assert rows.tolist()[:2] == [[1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(rows.sum(axis=1), 1)


def test_random_direction_has_the_norm_and_xaviers_relative_scale():
    base = nest(
        {
            "a/kernel": np.zeros((40, 20), np.float32),
            "b/kernel": np.zeros((400, 200), np.float32),
            "bias": np.zeros(9, np.float32),
        }
    )
    direction = flatten(sampling.random_direction(jax.random.key(0), base, 2.5))
    total = np.sqrt(sum(float((leaf.astype(np.float64) ** 2).sum()) for leaf in direction.values()))
    assert total == pytest.approx(2.5, rel=1e-5)
    assert not direction["bias"].any()
    # Xavier: the variance goes as 1 / (fan_in + fan_out), here 1/60 against 1/600.
    assert direction["a/kernel"].var() / direction["b/kernel"].var() == pytest.approx(10, rel=0.15)


def test_random_directions_of_two_keys_are_nearly_orthogonal_and_of_one_key_equal():
    base = {"kernel": np.zeros((100, 100), np.float32)}
    one, again, other = (sampling.random_direction(jax.random.key(k), base, 1.0)["kernel"] for k in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert abs(float((one * other).sum())) < 0.05
