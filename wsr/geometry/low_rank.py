"""Task vectors of low rank: a leaf moves by the product of two thin matrices, as LoRA trains it (Hu et al. 2021).

They are kept, compared and read in pieces as those two matrices; only ``add`` makes a leaf dense.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float64

from wsr.geometry.trees import flatten, nest
from wsr.types import AnyArray, Params


class Factors(NamedTuple):
    """What one leaf ``[inputs, outputs]`` moves by: ``a @ b``, every scale folded in."""

    a: Float[AnyArray, "inputs rank"]
    b: Float[AnyArray, "rank outputs"]


LowRank: TypeAlias = Mapping[str, Factors]
"""A task vector, by the path of the leaf; a leaf that is not named does not move."""


def add(base: Params, task_vector: LowRank) -> Params:
    """Returns the params ``base + a @ b`` in float32; leaves that do not move are the base's own, not copied."""
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(base).items()}
    return nest(leaves | {path: leaves[path] + _product(factors) for path, factors in task_vector.items()})


def inner_products(first: Sequence[Factors], second: Sequence[Factors]) -> Float64[np.ndarray, "first second"]:
    """Returns ``<a_i b_i, a_j b_j>`` of one leaf for each i of ``first`` and j of ``second``.

    It is ``trace(b_i^T a_i^T a_j b_j) = sum((a_i^T a_j) * (b_i b_j^T))``, since a trace is the same for cyclic
    permutations: products of rank by rank and nothing of the size of the leaf.
    """
    a = np.concatenate([np.asarray(own.a, np.float64) for own in second], axis=1)
    b = np.concatenate([np.asarray(own.b, np.float64) for own in second], axis=0)
    starts = np.cumsum([0, *(own.b.shape[0] for own in second)])[:-1]
    rows = [
        ((np.asarray(own.a, np.float64).T @ a) * (np.asarray(own.b, np.float64) @ b.T)).sum(axis=0) for own in first
    ]
    return np.add.reduceat(np.stack(rows), starts, axis=1)


class OpenLowRank:
    """A task vector that is read in pieces like any other (``wsr.geometry.similarity.OpenLeaf``) and knows its factors.

    Args:
      factors: gives those of the leaf at a path, or None where the leaf does not move.
    """

    def __init__(self, factors: Callable[[str], Factors | None]):
        self.factors = factors

    def __call__(self, path: str) -> Callable[[int, np.ndarray], None]:
        """Returns ``read(start, out)``, which fills the flat ``out`` with the leaf's entries from ``start`` on."""
        return partial(_fill, self.factors(path))


def _product(factors: Factors) -> Float[np.ndarray, "inputs outputs"]:
    return np.asarray(factors.a) @ np.asarray(factors.b)


def _fill(factors: Factors | None, start: int, out: np.ndarray) -> None:
    if factors is None:
        out[:] = 0.0
        return
    outputs = factors.b.shape[1]
    first, last = start // outputs, -(-(start + out.size) // outputs)
    rows = _product(Factors(factors.a[first:last], factors.b)).reshape(-1)
    out[:] = rows[start - first * outputs :][: out.size]
