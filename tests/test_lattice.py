"""Nodes and polynomials of a simplex against counting by hand and against polynomials evaluated directly."""

import numpy as np
import pytest

from wsr.engine import lattice


def monomials(points, degree):
    """All products of powers up to a degree of all coordinates but the last, which the others determine."""
    members = points.shape[1] - 1
    exponents = [row for row in np.ndindex(*(degree + 1,) * members) if sum(row) <= degree]
    return np.stack([np.prod(points[:, :-1] ** row, axis=1) for row in exponents], axis=1)


def hull(seed, points, members):
    return np.random.default_rng(seed).dirichlet(np.ones(members), size=points)


@pytest.mark.parametrize("members", [2, 3, 5, 18])
def test_a_lattice_has_the_nodes_of_scheffe(members):
    second, third = lattice.lattice(members, 2), lattice.lattice(members, 3)
    assert len(second) == lattice.count(members, 2) == members * (members + 1) // 2
    assert len(third) == lattice.count(members, 3) == members * (members + 1) * (members + 2) // 6
    for nodes in (second, third):
        np.testing.assert_allclose(nodes.sum(axis=1), 1)
        assert len(np.unique(nodes.round(9), axis=0)) == len(nodes)
    assert {tuple(row) for row in np.eye(members)} <= {tuple(row) for row in second}


@pytest.mark.parametrize(("members", "degree"), [(2, 1), (2, 6), (3, 4), (4, 3), (5, 2)])
def test_polynomials_of_the_degree_are_met_and_those_of_the_next_are_not(members, degree):
    wanted = hull(0, 40, members)
    nodes = lattice.place_nodes(wanted, degree, np.zeros((0, members)))
    weights = lattice.Interpolation.through(nodes, degree).weights(wanted)
    generator = np.random.default_rng(1)
    for power, met in ((degree, True), (degree + 1, False)):
        factors = generator.normal(size=monomials(wanted, power).shape[1])
        error = np.abs(weights @ (monomials(nodes, power) @ factors) - monomials(wanted, power) @ factors).max()
        assert (error < 1e-9) == met, error


def test_values_at_the_nodes_are_given_back():
    nodes = lattice.place_nodes(hull(0, 50, 4), 3, np.zeros((0, 4)))
    np.testing.assert_allclose(lattice.Interpolation.through(nodes, 3).weights(nodes), np.eye(len(nodes)), atol=1e-9)


def test_nodes_lie_where_points_are_wanted():
    """Inside the hull for points of its bulk; closer together, and to them, for points that are closer together."""
    wide = hull(0, 300, 5)
    narrow = 0.2 * wide + 0.8 * np.array([0.6, 0.1, 0.1, 0.1, 0.1])
    of_wide, of_narrow = (lattice.place_nodes(wanted, 2, np.zeros((0, 5))) for wanted in (wide, narrow))
    assert of_wide.min() > 0
    assert of_narrow.min() > 0
    assert 0.1 < np.ptp(of_narrow, axis=0).mean() / np.ptp(of_wide, axis=0).mean() < 0.5
    assert lattice.remainder(narrow, of_narrow, 2) < 0.5 * lattice.remainder(narrow, of_wide, 2)


def test_nodes_inside_leave_less_than_nodes_on_the_faces():
    wanted = hull(0, 300, 5)
    placed = lattice.place_nodes(wanted, 2, np.zeros((0, 5)))
    assert lattice.remainder(wanted, placed, 2) < 0.5 * lattice.remainder(wanted, lattice.lattice(5, 2), 2)


def test_the_remainder_is_what_random_cubics_are_missed_by():
    """A random homogeneous cubic around the centroid is ``<t, x> <u, x> <v, x>`` with normal t, u and v."""
    wanted = hull(0, 60, 3)
    nodes = lattice.place_nodes(wanted, 2, np.zeros((0, 3)))
    weights = lattice.Interpolation.through(nodes, 2).weights(wanted)
    draws = np.random.default_rng(2).normal(size=(3, 3, 40_000))
    values = [np.prod([(points - 1 / 3) @ draw for draw in draws], axis=0) for points in (nodes, wanted)]
    missed = np.sqrt(np.square(weights @ values[0] - values[1]).mean())
    assert missed == pytest.approx(lattice.remainder(wanted, nodes, 2), rel=0.05)


def test_a_higher_degree_keeps_the_nodes_of_the_lower_one():
    wanted = hull(0, 300, 5)
    second = lattice.place_nodes(wanted, 2, np.zeros((0, 5)))
    more = lattice.place_nodes(wanted, 3, second)
    assert len(second) + len(more) == lattice.count(5, 3)
    together = np.concatenate([second, more])
    anew = lattice.place_nodes(wanted, 3, np.zeros((0, 5)))
    assert lattice.remainder(wanted, together, 3) < 2 * lattice.remainder(wanted, anew, 3)


def test_the_furthest_points_are_those_that_random_cubics_are_missed_by_most():
    """The second is furthest once the values at the first are known: its variance is that of a regression on them."""
    points = hull(3, 30, 3)
    nodes = lattice.place_nodes(points, 2, np.zeros((0, 3)))
    polynomial = lattice.Interpolation.through(nodes, 2)
    draws = np.random.default_rng(2).normal(size=(3, 3, 40_000))
    values = [np.prod([(each - 1 / 3) @ draw for draw in draws], axis=0) for each in (nodes, points)]
    missed = values[1] - polynomial.weights(points) @ values[0]
    first, second = polynomial.furthest(points, 2)
    assert first == np.square(missed).mean(axis=1).argmax()
    slopes = missed @ missed[first] / (missed[first] @ missed[first])
    left = np.square(missed - slopes[:, None] * missed[first]).mean(axis=1)
    assert left[second] > 0.9 * left.max()


def test_a_fit_has_two_nodes_a_term_and_a_degree_that_rounding_allows():
    spread = hull(0, 300, 3)
    assert lattice.smooth_fit(spread).degree == lattice.HIGHEST_DEGREE
    assert lattice.smooth_fit(spread[:41]).degree == 4  # 15 terms; degree 5 has 21
    together = spread[:1] + 1e-3 * (spread - spread[:1])
    degree = lattice.smooth_fit(together).degree
    assert degree == 2
    assert not lattice.well_conditioned(together, degree + 1)
