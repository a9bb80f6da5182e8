"""Spectral methods: merges of task matrices by their singular vectors; token tables, heads and vectors are averaged.

A task matrix is the task vector of one matrix, ``[outputs, inputs]``, with the thin SVD ``M_k = U_k diag(s_k) V_k^T``.
Singular vectors come from an eigendecomposition of the smaller Gram matrix in float64, so that a method computes only
those vectors that it keeps. One member's matrix is in memory at a time. On an accelerator, JAX computes thin SVDs in
float32.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from wsr.merging.ingredients import Leaf
from wsr.merging.method import share
from wsr.merging.task_matrices import Matrix, OfMatrices, each_task, summed

Columns = Float64[np.ndarray, "rows columns"]

SMALLEST = 1e-6
"""Singular values below this share of the largest are rounding errors of float32; their directions are left out."""


class Svd(NamedTuple):
    """Some singular triples of a matrix, the largest first."""

    left: Columns
    values: Float64[np.ndarray, " columns"]
    right: Columns


@dataclass(frozen=True)
class IsoC(OfMatrices):
    """Iso-C, isotropic merging in the common subspace: ``M = mean(s) U V^T``, where ``U diag(s) V^T = sum_k M_k``.

    Every singular value of the sum of the task matrices becomes their mean. Directions that no member changed stay as
    they are in the base.

    Source: Marczak et al., No task left behind: isotropic model merging with common and task-specific subspaces, 2025.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.IsoC())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    def matrix(self, leaf: Leaf) -> Matrix:
        """Returns the sum with equal singular values."""
        total = summed(leaf)
        found = svd(total, min(total.shape))
        return (found.values.sum() / min(total.shape)) * (found.left @ found.right.T)


@dataclass(frozen=True)
class IsoCts(OfMatrices):
    """Iso-CTS, isotropic merging in common and task-specific subspaces: ``M = mean(s) P(U) P(V)^T``.

    ``U`` and ``V`` are the first singular vectors of ``sum_k M_k``, the common subspace, then ``d`` singular vectors of
    each ``M_k - U_c U_c^T M_k``, the part of a task outside it; ``s`` are the values of both. ``P(A) = A (A^T A)^-1/2``
    is the polar factor. With ``r = min(outputs, inputs)`` and ``n`` members, ``d = round((r - int(common r)) / n)`` and
    the common subspace has ``r - n d`` dimensions.

    Source: Marczak et al., No task left behind: isotropic model merging with common and task-specific subspaces, 2025.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.IsoCts(common=0.8))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    common: float = share(0.8, "Share of the dimensions that form the common subspace.")

    def matrix(self, leaf: Leaf) -> Matrix:
        """Returns the common and task-specific directions with equal singular values."""
        total, members = summed(leaf), len(leaf.ingredients.names)
        rank = min(total.shape)
        own = min(round((rank - int(self.common * rank)) / members), rank // members)
        shared = svd(total, rank - own * members)
        parts = [shared]
        if own:
            # Without a part outside the common subspace, a task leaves only rounding errors there.
            least = SMALLEST * shared.values.max(initial=0.0)
            parts += [_outside(shared.left, task, own, least) for task in each_task(leaf)]
        mean = sum(float(part.values.sum()) for part in parts) / rank
        return mean * _paired(parts, None)


@dataclass(frozen=True)
class TsvM(OfMatrices):
    """TSV-M, merging of task singular vectors: ``M = P(U) diag(s) P(V)^T``.

    ``U``, ``s`` and ``V`` stack the first ``int(min(outputs, inputs) / n)`` singular triples of each of the ``n`` task
    matrices. ``P(A) = A (A^T A)^-1/2``, the polar factor, makes the singular vectors of different tasks orthogonal.

    Source: Gargiulo et al., Task singular vectors: reducing task interference in model merging, 2025.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.TsvM())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    def matrix(self, leaf: Leaf) -> Matrix:
        """Returns the sum of the tasks' first singular directions, made orthogonal."""
        own = min(leaf.shape) // len(leaf.ingredients.names)
        if not own:
            return np.zeros(leaf.shape[::-1] if leaf.inputs_lead else leaf.shape)
        parts = [svd(task, own) for task in each_task(leaf)]
        return _paired(parts, np.concatenate([part.values for part in parts]))


def svd(matrix: Matrix, count: int, *, least: float = 0.0) -> Svd:
    """Returns the ``count`` largest singular triples, without those that are only rounding errors.

    Args:
      matrix: the matrix.
      count: how many triples.
      least: singular values below it are left out too.

    Example:
      >>> import numpy as np
      >>> from wsr.merging.spectral import svd
      >>> svd(np.diag([3.0, 2.0, 1.0]), 2).values.round(6).tolist()
      [3.0, 2.0]
    """
    if on_accelerator():
        return _svd_on_accelerator(matrix, count, least)
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = svd(matrix.T, count, least=least)
        return Svd(left, values, right)
    values, left = leading(matrix @ matrix.T, count, least=least)
    return Svd(left, values, matrix.T @ left / values)


def leading(gram: Matrix, count: int, *, least: float = 0.0) -> tuple[Float64[np.ndarray, " kept"], Columns]:
    """Returns the ``count`` largest singular values of ``A`` and their left singular vectors, given ``A A^T``.

    Args:
      gram: the product ``A A^T``.
      count: how many; those that are only rounding errors are left out.
      least: singular values below it are left out too.

    Example:
      >>> import numpy as np
      >>> from wsr.merging.spectral import leading
      >>> leading(np.diag([9.0, 4.0, 0.0]), 3)[0].round(6).tolist()
      [3.0, 2.0]
    """
    squares, vectors = np.linalg.eigh(gram)
    least = max(least, SMALLEST * np.sqrt(squares.max(initial=0.0)))
    kept = (squares > least**2)[::-1][:count].nonzero()[0]
    return np.sqrt(squares[::-1][kept]), vectors[:, ::-1][:, kept]


@lru_cache(maxsize=1)
def on_accelerator() -> bool:
    """Returns whether JAX's default device is no CPU: singular vectors are then found there, in float32."""
    # Without the packages by which JAX reaches one, a merge of files need not wait until JAX is imported.
    if "jax" not in sys.modules and not any(map(find_spec, ("jax_plugins", "libtpu"))):
        return False
    import jax

    return jax.default_backend() != "cpu"


def _outside(columns: Columns, matrix: Matrix, count: int, least: float) -> Svd:
    """Returns the ``count`` largest singular triples of ``R = M - U U^T M``, ``U`` having orthonormal columns."""
    inside = columns.T @ matrix
    if matrix.shape[0] <= matrix.shape[1] or on_accelerator():
        return svd(matrix - columns @ inside, count, least=least)
    # R^T R = M^T M - (U^T M)^T U^T M, so that only those columns of R V are computed that are kept.
    values, right = leading(matrix.T @ matrix - inside.T @ inside, count, least=least)
    return Svd((matrix @ right - columns @ (inside @ right)) / values, values, right)


def _svd_on_accelerator(matrix: Matrix, count: int, least: float) -> Svd:
    left, values, right = (np.asarray(part, np.float64) for part in _thin_svd()(matrix.astype(np.float32)))
    least = max(least, SMALLEST * values.max(initial=0.0))
    kept = (values > least)[:count].nonzero()[0]
    return Svd(left[:, kept], values[kept], right[kept].T)


@lru_cache(maxsize=1)
def _thin_svd() -> Callable[[np.ndarray], Sequence[Any]]:
    import jax

    return jax.jit(partial(jax.numpy.linalg.svd, full_matrices=False))


def _paired(parts: list[Svd], values: np.ndarray | None) -> Matrix:
    """Returns ``P(U) diag(values) P(V)^T`` of the stacked singular vectors; None: all values are 1."""
    left, right = (_polar(np.concatenate(sides, axis=1)) for sides in list(zip(*parts, strict=True))[::2])
    return (left if values is None else left * values) @ right.T


def _polar(columns: Columns) -> Columns:
    """Returns the nearest matrix with orthonormal columns; equal columns share one direction."""
    squares, vectors = np.linalg.eigh(columns.T @ columns)
    kept = squares > 1e-10
    return columns @ ((vectors[:, kept] / np.sqrt(squares[kept])) @ vectors[:, kept].T)
