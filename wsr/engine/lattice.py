"""Interpolation nodes in a simplex and the polynomials through them (Scheffe, Experiments with mixtures, 1958).

The coordinates of a point of the simplex sum to 1, so every polynomial of degree d in them equals a homogeneous one. A
lattice of degree d has as many nodes as such a polynomial has terms: for K members, K (K + 1) / 2 with d = 2 and K (K +
1) (K + 2) / 6 with d = 3.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial, prod

import numpy as np
from jaxtyping import Float, Int

_SIZES = np.linspace(0.2, 1.0, 17)
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


def basis(points: Float[np.ndarray, "points members"], degree: int) -> Float[np.ndarray, "points terms"]:
    """Returns the Bernstein polynomials of a degree at some points; in the simplex they are non-negative and sum to 1.

    Args:
      points: one row per point.
      degree: degree of the polynomials.
    """
    exponents = _exponents(points.shape[1], degree)
    multiplicity = [factorial(degree) / prod(map(factorial, row)) for row in exponents.tolist()]
    values = np.ones((len(points), len(exponents)))
    for member in range(points.shape[1]):
        values *= points[:, member, None] ** exponents[:, member]
    return values * np.array(multiplicity)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """A polynomial determined by its values at nodes; a least-squares fit if there are more nodes than terms."""

    degree: int
    """Degree of the polynomial."""
    inverse: Float[np.ndarray, "terms nodes"]
    """Pseudo-inverse of the basis at the nodes."""

    @classmethod
    def through(cls, nodes: Float[np.ndarray, "nodes members"], degree: int) -> "Interpolation":
        """Returns the interpolation of a degree through some nodes."""
        return cls(degree, np.linalg.pinv(basis(nodes, degree)))

    def weights(self, points: Float[np.ndarray, "points members"]) -> Float[np.ndarray, "points nodes"]:
        """Returns the weights that turn values at the nodes into values at ``points``; each row sums to 1."""
        return basis(points, self.degree) @ self.inverse


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
    """Returns the interpolation error for polynomials one degree higher.

    The error is the root mean square over the points and over random polynomials without a preferred direction: those
    of degree p around the centroid have covariance ``<x, y>^p``.

    Args:
      points: points at which the error is measured.
      nodes: the interpolation nodes.
      degree: degree of the interpolation.
    """
    own = Interpolation.through(nodes, degree).weights(points)
    x, y = points - 1 / points.shape[1], nodes - 1 / points.shape[1]
    power = degree + 1
    left = (x * x).sum(axis=1) ** power - 2 * (own * (x @ y.T) ** power).sum(axis=1)
    left += ((own @ (y @ y.T) ** power) * own).sum(axis=1)
    return float(np.sqrt(max(left.mean(), 0.0)))


@lru_cache(maxsize=16)
def _exponents(members: int, degree: int) -> Int[np.ndarray, "terms members"]:
    chosen = itertools.combinations_with_replacement(range(members), degree)
    return np.array([np.bincount(row, minlength=members) for row in chosen])


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
