"""Polynomials of many members through fewer nodes than they have terms, by a prior over polynomials (kriging).

A polynomial of degree 2 in 30 coefficients has 465 terms. Most of them matter little: how the model changes along each
task vector, and how that change itself changes, moves a loss more than what two task vectors do together. The prior
says so. Its covariance between the values at points x and y is

    SLOPES <x, y> + CURVES sum_i x_i^2 y_i^2 + <x, y>^2 + HIGHER <x, y>^3 + HIGHER^2 <x, y>^4 + ...

up to the degree. The values at nodes then have a most likely polynomial (Matheron, Principles of geostatistics, 1963;
Rasmussen and Williams, Gaussian processes for machine learning, 2006, chapter 2), and each further node can be the one
about which the earlier ones say least. Choosing so is the greedy search for a D-optimal design and the choice of
discrete Leja points (Bos, De Marchi, Sommariva and Vianello, Computing multivariate Fekete and Leja points by numerical
linear algebra, 2010; De Marchi, Schaback and Wendland, Near-optimal data-independent point locations for radial basis
function interpolation, 2005).
"""

from itertools import combinations_with_replacement
from math import comb

import numpy as np
from jaxtyping import Float, Int

SLOPES = 1e4
"""Variance of linear terms, as a multiple of that of products of two coefficients."""
CURVES = 10.0
"""Variance of squares of one coefficient."""
HIGHER = 0.02
"""Ratio of the variances of one degree and the degree below it, from degree 2 on."""
NOISE = 1e-7
"""Variance of rounding at a node."""


def covariance(
    x: Float[np.ndarray, "points members"], y: Float[np.ndarray, "nodes members"], degree: int
) -> Float[np.ndarray, "points nodes"]:
    """Returns the covariance that the prior gives the values of a polynomial at two sets of points.

    Args:
      x: points.
      y: other points.
      degree: degree of the polynomial.
    """
    products = x @ y.T
    total = SLOPES * products
    if degree > 1:
        total += CURVES * (x * x) @ (y * y).T
    for own in range(2, degree + 1):
        total += HIGHER ** (own - 2) * products**own
    return total


def coefficients(nodes: Float[np.ndarray, "nodes members"], degree: int) -> Float[np.ndarray, "terms nodes"]:
    """Returns the matrix that turns values at nodes into the most likely polynomial's Bernstein coefficients.

    The mean of the values is no part of the prior: adding a number to all values adds it to the polynomial.

    Args:
      nodes: points at which the values are known.
      degree: degree of the polynomial.
    """
    between = covariance(nodes, nodes, degree) + NOISE * np.eye(len(nodes))
    matrix = np.linalg.solve(between, _covariance_of_coefficients(nodes, degree).T).T
    return matrix + (1 - matrix.sum(axis=1, keepdims=True)) / len(nodes)


def most_informative(
    candidates: Float[np.ndarray, "candidates members"],
    given: Float[np.ndarray, "given members"],
    number: int,
    degree: int = 2,
) -> Int[np.ndarray, " number"]:
    """Returns candidates of large variance: each has the largest when the values at the earlier ones are known.

    This is a pivoted Cholesky decomposition of the prior's covariance.

    Args:
      candidates: points to choose from, ``number`` or more.
      given: points at which the values are known already.
      number: how many candidates to return.
      degree: degree of the polynomial.
    """
    points = np.concatenate([given, candidates])
    left = _variances(points, degree) + NOISE
    columns, chosen = np.zeros((len(points), 0)), np.zeros(0, int)
    for step in range(len(given) + number):
        one = step if step < len(given) else len(given) + int(left[len(given) :].argmax())
        column = covariance(points, points[[one]], degree)[:, 0] - columns @ columns[one]
        column[one] += NOISE
        columns = np.column_stack([columns, column / np.sqrt(max(left[one], NOISE))])
        left = left - columns[:, -1] ** 2
        chosen = np.append(chosen, one)
        left[chosen] = -np.inf
    return chosen[len(given) :] - len(given)


def _variances(points: Float[np.ndarray, "points members"], degree: int) -> Float[np.ndarray, " points"]:
    return np.concatenate([covariance(row[None], row[None], degree)[0] for row in points])


def _covariance_of_coefficients(
    nodes: Float[np.ndarray, "nodes members"], degree: int
) -> Float[np.ndarray, "terms nodes"]:
    """Covariance of each Bernstein coefficient with the value at each node.

    The Bernstein coefficient of ``<x, y>^r`` for a product of ``degree`` members is the mean over all choices of r of
    these members of the product of their coordinates in y, because a form of degree r is raised to ``degree`` by
    factors ``sum(x) = 1``.
    """
    chosen = np.array(list(combinations_with_replacement(range(nodes.shape[1]), degree)))
    sums = [np.ones((len(chosen), len(nodes)))] + [np.zeros((len(chosen), len(nodes)))] * degree
    equal = np.zeros((len(chosen), len(nodes)))
    for position in range(degree):
        own = nodes.T[chosen[:, position]]
        for order in range(position + 1, 0, -1):
            sums[order] = sums[order] + own * sums[order - 1]
        for other in range(position):
            equal += (chosen[:, [position]] == chosen[:, [other]]) * own**2
    total = SLOPES * sums[1] / degree
    if degree > 1:
        total = total + CURVES * equal / comb(degree, 2)
    for own_degree in range(2, degree + 1):
        total = total + HIGHER ** (own_degree - 2) * sums[own_degree] / comb(degree, own_degree)
    return total
