"""Low-rank task vectors: each leaf changes by the product of two thin matrices, as in LoRA (Hu et al. 2021).

They are stored, compared and read in pieces as those two factors; only ``add`` computes a dense leaf.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float64

from wsr.geometry.trees import flatten, nest
from wsr.types import AnyArray, Params


class Factors(NamedTuple):
    """The change of one leaf ``[inputs, outputs]``: ``a @ b``, with every scale already multiplied in.

    The change of a vector is a matrix of one row: ``a`` is ``[[1]]`` and ``b`` is ``[1, size]``.
    """

    a: Float[AnyArray, "inputs rank"]
    b: Float[AnyArray, "rank outputs"]


LowRank: TypeAlias = Mapping[str, Factors]
"""A task vector: the factors of each leaf, by the leaf's path. A leaf without factors equals the base."""


def add(base: Params, task_vector: LowRank) -> Params:
    """Returns the parameters ``base + a @ b`` in float32.

    Args:
      base: the parameters of the base.
      task_vector: the factors of each leaf that changes.

    Returns:
      Parameters of the form of ``base``; leaves without factors are shared with ``base``, not copied.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry import low_rank
      >>> base = {"query": {"kernel": np.zeros((2, 3), np.float32)}}
      >>> factors = low_rank.Factors(np.ones((2, 1), np.float32), np.ones((1, 3), np.float32))
      >>> low_rank.add(base, {"query/kernel": factors})["query"]["kernel"].tolist()
      [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    leaves = {path: np.asarray(leaf) for path, leaf in flatten(base).items()}
    moved = {path: _product(factors).reshape(leaves[path].shape) for path, factors in task_vector.items()}
    return nest(leaves | {path: leaves[path] + change for path, change in moved.items()})


def inner_products(first: Sequence[Factors], second: Sequence[Factors]) -> Float64[np.ndarray, "first second"]:
    """Returns the inner products ``<a_i b_i, a_j b_j>`` of one leaf, for each i of ``first`` and j of ``second``.

    ``trace(b_i^T a_i^T a_j b_j) = sum((a_i^T a_j) * (b_i b_j^T))``, because a trace is invariant under cyclic
    permutations. So every intermediate matrix is rank by rank; none has the size of the leaf.

    Args:
      first: factors of the leaf in some members.
      second: factors of the same leaf in others.
    """
    a = np.concatenate([np.asarray(own.a, np.float64) for own in second], axis=1)
    b = np.concatenate([np.asarray(own.b, np.float64) for own in second], axis=0)
    starts = np.cumsum([0, *(own.b.shape[0] for own in second)])[:-1]
    rows = [
        ((np.asarray(own.a, np.float64).T @ a) * (np.asarray(own.b, np.float64) @ b.T)).sum(axis=0) for own in first
    ]
    return np.add.reduceat(np.stack(rows), starts, axis=1)


class OpenLowRank:
    """A low-rank task vector that can also be read in pieces, as ``wsr.geometry.similarity.OpenLeaf`` is.

    Args:
      factors: maps the path of a leaf to its factors, or to None if the leaf equals the base.
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
