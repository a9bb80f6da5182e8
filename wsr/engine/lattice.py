"""Interpolation nodes in a simplex and the polynomials through them (Scheffe, Experiments with mixtures, 1958).

The coordinates of a point of the simplex sum to 1, so every polynomial of degree d in them equals a homogeneous one. A
lattice of degree d has as many nodes as such a polynomial has terms: for K members, K (K + 1) / 2 with d = 2 and K (K +
1) (K + 2) / 6 with d = 3. Where so many nodes cost too much, ``sparse_lattice`` chooses some of them, and a prior over
polynomials (``wsr.engine.sparse_polynomial``) supplies what they leave open.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial, prod

import numpy as np
from jaxtyping import Float, Int

from wsr.engine import sparse_polynomial

HIGHEST_DEGREE = 8
WORST_CONDITION = 1e8
"""Largest condition number of the basis at the nodes: beyond it, rounding takes half of the digits."""
_SIZES = np.array([0.02, 0.06, 0.1, *np.linspace(0.2, 1.0, 9)])
_MOST_LOOKED_AT = 500  # wanted points that are used to place the nodes


def count(members: int, degree: int) -> int:
    """Returns the number of nodes of a lattice, which is the number of terms of a polynomial of that degree.

    Args:
      members: number of coordinates.
      degree: degree of the polynomial.

    Example:
      >>> from wsr.engine.lattice import count
      >>> count(members=5, degree=2)
      15
    """
    return comb(members + degree - 1, degree)


def lattice(members: int, degree: int) -> Float[np.ndarray, "nodes members"]:
    """Returns the points of the simplex whose coordinates are multiples of ``1 / degree``.

    Args:
      members: number of coordinates.
      degree: degree of the lattice.

    Example:
      >>> from wsr.engine.lattice import lattice
      >>> lattice(members=2, degree=2).tolist()
      [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    return _exponents(members, degree) / degree


def sparse_lattice(
    members: int, nodes: int, highest: int = HIGHEST_DEGREE
) -> tuple[Float[np.ndarray, "nodes members"], int]:
    """Returns the nodes of the finest lattice that is small enough, and its degree.

    If the lattice of degree 2 is too large, the nodes are the members and as many midpoints between two members as the
    limit allows. Each midpoint is the one about which the earlier nodes say least.

    Args:
      members: number of coordinates.
      nodes: largest number of nodes, at least ``members``.
      highest: highest degree.

    Example:
      >>> from wsr.engine.lattice import sparse_lattice
      >>> [(len(nodes), degree) for nodes, degree in (sparse_lattice(5, 40), sparse_lattice(30, 237))]
      [(35, 3), (237, 2)]
    """
    degree = max(own for own in range(1, highest + 1) if count(members, own) <= nodes)
    if degree > 1 or nodes == members or highest == 1:
        return lattice(members, degree), degree
    finer = lattice(members, 2)
    corners, midpoints = lattice(members, 1), finer[finer.max(axis=1) < 1]
    chosen = sparse_polynomial.most_informative(midpoints, corners, nodes - members)
    return np.concatenate([corners, midpoints[chosen]]), 2


def basis(points: Float[np.ndarray, "points members"], degree: int) -> Float[np.ndarray, "points terms"]:
    """Returns the Bernstein polynomials of a degree at some points; in the simplex they are non-negative and sum to 1.

    Args:
      points: one row per point.
      degree: degree of the polynomials.
    """
    exponents = _exponents(points.shape[1], degree)
    powers = np.cumprod([np.ones_like(points), *[points] * degree], axis=0)
    values = np.ones((len(points), len(exponents)))
    for member in range(points.shape[1]):
        values *= powers[exponents[:, member], :, member].T
    return values * _multiplicities(points.shape[1], degree)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A polynomial determined by its values at nodes.

    With more nodes than terms it is a least-squares fit; with fewer, the most likely polynomial under the prior of
    ``wsr.engine.sparse_polynomial``.
    """

    nodes: Float[np.ndarray, "nodes members"]
    """Points at which the values are known."""
    degree: int
    """Degree of the polynomial."""
    inverse: Float[np.ndarray, "terms nodes"]
    """Turns values at the nodes into the coefficients of the Bernstein polynomials."""

    @classmethod
    def through(cls, nodes: Float[np.ndarray, "nodes members"], degree: int) -> "Interpolation":
        """Returns the interpolation of a degree through some nodes."""
        if len(nodes) < count(nodes.shape[1], degree):
            return cls(nodes, degree, sparse_polynomial.coefficients(nodes, degree))
        return cls(nodes, degree, np.linalg.pinv(basis(nodes, degree)))

    @property
    def missed(self) -> int:
        """Lowest degree of polynomials that the nodes do not determine: one more than ``degree`` if they suffice."""
        known = self.degree
        while known and count(self.nodes.shape[1], known) > len(self.nodes):
            known -= 1
        return known + 1

    def weights(self, points: Float[np.ndarray, "points members"]) -> Float[np.ndarray, "points nodes"]:
        """Returns the weights that turn values at the nodes into values at ``points``; each row sums to 1."""
        return basis(points, self.degree) @ self.inverse

    def remainders(self, points: Float[np.ndarray, "points members"]) -> Float[np.ndarray, " points"]:
        """Returns how far polynomials of degree ``missed`` are missed at each point (the power function of kriging).

        The error is the root mean square over random polynomials without a preferred direction: those of degree p have
        covariance ``<x, y>^p``. It is zero at the nodes of an interpolation and grows steeply away from them.
        """
        x, y, radius = self._local(points)
        own, power = self.weights(points), self.missed
        squares = (x * x).sum(axis=1) ** power - 2 * (own * (x @ y.T) ** power).sum(axis=1)
        squares += ((own @ (y @ y.T) ** power) * own).sum(axis=1)
        return radius**power * np.sqrt(np.maximum(squares, 0.0))

    def furthest(self, points: Float[np.ndarray, "points members"], number: int) -> Int[np.ndarray, " number"]:
        """Returns points of large remainder: each has the largest one when the values at the earlier ones are known.

        This is a pivoted Cholesky decomposition of the covariance of what is missed.

        Args:
          points: one row per point, ``number`` or more.
          number: how many points to return.
        """
        x, y, radius = self._local(points)
        own, power = self.weights(points), self.missed
        half = (x @ y.T) ** power - own @ (y @ y.T) ** power
        left = (self.remainders(points) / radius**power) ** 2
        columns, chosen = np.zeros((len(points), 0)), np.zeros(0, int)
        for _ in range(number):
            chosen = np.append(chosen, left.argmax())
            one = chosen[-1]
            column = (x @ x[one]) ** power - own @ (y @ x[one]) ** power - half @ own[one] - columns @ columns[one]
            columns = np.column_stack([columns, column / np.sqrt(max(left[one], 1e-30))])
            left = left - columns[:, -1] ** 2
            left[chosen] = -np.inf
        return chosen

    def _local(
        self, points: Float[np.ndarray, "points members"]
    ) -> tuple[Float[np.ndarray, "points members"], Float[np.ndarray, "nodes members"], float]:
        """Points and nodes around the mean of the nodes, in units of their radius.

        The origin is free, because another one changes only lower degrees. Here no digits are lost near the nodes.
        """
        centre = self.nodes.mean(axis=0)
        radius = float(np.linalg.norm(self.nodes - centre, axis=1).max())
        return (points - centre) / radius, (self.nodes - centre) / radius, radius


def well_conditioned(nodes: Float[np.ndarray, "nodes members"], degree: int) -> bool:
    """Returns whether rounding leaves a polynomial of a degree through some nodes half of its digits.

    Args:
      nodes: points at which the values are known.
      degree: degree of the polynomial.
    """
    return bool(np.linalg.cond(basis(nodes, degree)) <= WORST_CONDITION)


def smooth_fit(nodes: Float[np.ndarray, "nodes members"]) -> Interpolation:
    """Returns the least-squares fit of the highest degree that is well conditioned and has two nodes per term.

    Args:
      nodes: points at which the values are known.
    """
    degree = 1
    while (
        degree < HIGHEST_DEGREE
        and 2 * count(nodes.shape[1], degree + 1) <= len(nodes)
        and well_conditioned(nodes, degree + 1)
    ):
        degree += 1
    return Interpolation.through(nodes, degree)


def place_nodes(
    wanted: Float[np.ndarray, "points members"], degree: int, placed: Float[np.ndarray, "placed members"]
) -> Float[np.ndarray, "nodes members"]:
    """Returns nodes that, together with those already placed, determine a polynomial of a degree at the wanted points.

    The nodes come from the lattice, shrunk towards the mean of the wanted points: most lattice nodes lie on the faces
    of the simplex, where there are hardly any points. The amount of shrinking is the one that leaves the smallest error
    for polynomials one degree higher. Of the shrunk lattice only the missing number of nodes is taken, each as linearly
    independent of the earlier ones as possible.

    Args:
      wanted: points at which the polynomial will be evaluated.
      degree: degree of the polynomial.
      placed: nodes that exist already.
    """
    members = wanted.shape[1]
    wanted = wanted[:_MOST_LOOKED_AT]
    centre = wanted.mean(axis=0)
    choices = []
    for size in _SIZES:
        candidates = centre + size * (lattice(members, degree) - centre)
        rows = basis(np.concatenate([placed, candidates]), degree)
        chosen = _most_independent(rows[len(placed) :], rows[: len(placed)], len(candidates) - len(placed))
        choices.append(candidates[chosen])
    return min(choices, key=lambda new: remainder(wanted, np.concatenate([placed, new]), degree))


def remainder(
    points: Float[np.ndarray, "points members"], nodes: Float[np.ndarray, "nodes members"], degree: int
) -> float:
    """Returns the root mean square over points of ``Interpolation.remainders``.

    Args:
      points: points at which the error is measured.
      nodes: the interpolation nodes.
      degree: degree of the interpolation.
    """
    return float(np.sqrt(np.square(Interpolation.through(nodes, degree).remainders(points)).mean()))


@lru_cache(maxsize=16)
def _exponents(members: int, degree: int) -> Int[np.ndarray, "terms members"]:
    chosen = itertools.combinations_with_replacement(range(members), degree)
    return np.array([np.bincount(row, minlength=members) for row in chosen])


@lru_cache(maxsize=16)
def _multiplicities(members: int, degree: int) -> Float[np.ndarray, " terms"]:
    rows = _exponents(members, degree).tolist()
    return np.array([factorial(degree) / prod(map(factorial, row)) for row in rows])


def _most_independent(
    rows: Float[np.ndarray, "candidates terms"], given: Float[np.ndarray, "given terms"], number: int
) -> list[int]:
    """Greedily picks the row with the longest component orthogonal to all earlier ones (a pivoted QR)."""
    if number == len(rows):
        return list(range(number))
    directions = np.linalg.qr(given.T)[0]
    rest = rows - rows @ directions @ directions.T
    chosen = []
    for _ in range(number):
        lengths = np.linalg.norm(rest, axis=1)
        chosen.append(int(lengths.argmax()))
        direction = rest[chosen[-1]] / lengths[chosen[-1]]
        rest = rest - np.outer(rest @ direction, direction)
    return chosen
