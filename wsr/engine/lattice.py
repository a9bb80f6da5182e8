"""Nodes in a simplex and the polynomials through them: Scheffe's simplex lattices ("Experiments with mixtures", 1958).

The coordinates of a point of a simplex sum to 1, so every polynomial of degree d in them is a homogeneous one, and
there are as many of these as a lattice of degree d has nodes: K (K + 1) / 2 over K members for d = 2, and
K (K + 1) (K + 2) / 6 for d = 3.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from math import comb, factorial, prod

import numpy as np
from jaxtyping import Float, Int

_SIZES = np.linspace(0.2, 1.0, 17)
_MOST_LOOKED_AT = 500  # points of a request that decide where the nodes lie


def count(members: int, degree: int) -> int:
    """Returns the nodes of a lattice, which are the terms of a polynomial of that degree."""
    return comb(members + degree - 1, degree)


def lattice(members: int, degree: int) -> Float[np.ndarray, "nodes members"]:
    """Returns the points of the simplex whose coordinates are multiples of ``1 / degree``."""
    return _exponents(members, degree) / degree


def basis(points: Float[np.ndarray, "points members"], degree: int) -> Float[np.ndarray, "points terms"]:
    """Returns the Bernstein polynomials of a degree: they are non-negative in the simplex and sum to 1."""
    exponents = _exponents(points.shape[1], degree)
    multiplicity = [factorial(degree) / prod(map(factorial, row)) for row in exponents.tolist()]
    values = np.ones((len(points), len(exponents)))
    for member in range(points.shape[1]):
        values *= points[:, member, None] ** exponents[:, member]
    return values * np.array(multiplicity)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """The polynomial of a degree through values at nodes, or by least squares where there are more nodes than terms."""

    degree: int
    inverse: Float[np.ndarray, "terms nodes"]

    @classmethod
    def through(cls, nodes: Float[np.ndarray, "nodes members"], degree: int) -> "Interpolation":
        """The one through some nodes."""
        return cls(degree, np.linalg.pinv(basis(nodes, degree)))

    def weights(self, points: Float[np.ndarray, "points members"]) -> Float[np.ndarray, "points nodes"]:
        """Returns what the values at the nodes are multiplied by to give those at the points; each row sums to 1."""
        return basis(points, self.degree) @ self.inverse


def place_nodes(
    wanted: Float[np.ndarray, "points members"], degree: int, placed: Float[np.ndarray, "placed members"]
) -> Float[np.ndarray, "nodes members"]:
    """Returns nodes that together with those already placed carry a polynomial of a degree where it is wanted.

    They belong to the lattice, drawn together around the mean of the wanted points: on the faces of the simplex, where
    the lattice has most of its nodes, there are next to none of the points. How far it is drawn together is what leaves
    least of the polynomials one degree higher. Of the nodes of a lattice as many are taken as are missing, each as
    independent as can be of those before it.
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
    """Returns the error that interpolation leaves of polynomials one degree higher, over the points.

    It is the root mean square over the points and over random polynomials that have no preferred direction: those
    of degree p around the centroid have covariance ``<x, y>^p``.
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
    """Greedy: each time the row with the longest component orthogonal to all before it (a pivoted QR)."""
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
