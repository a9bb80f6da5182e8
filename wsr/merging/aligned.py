"""Merges of adapters in a space that they share: KnOTS and Core Space. Token tables, heads and vectors are averaged.

Both methods also merge full fine-tunes, whose task matrices have a high rank; they are then slow and hold a matrix of
each member.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from wsr.merging import spectral
from wsr.merging.ingredients import Ingredients, Leaf, ReadPiece
from wsr.merging.method import OfWeights, at_least, one_of, option, share
from wsr.merging.run import on_all_cores
from wsr.merging.sparse import DareTies, Ties
from wsr.merging.spectral import Columns, IsoC, TsvM, leading, svd
from wsr.merging.task_matrices import Matrix, OfMatrices, each_task, task, task_shape
from wsr.runtime.cores import usable_cores

KEPT_BYTES = 2**30
"""Memory for the singular vectors that KnOTS needs several times."""
NOTHING = "(?!)"
"""A regular expression that no path matches."""


class Thin(NamedTuple):
    """A task matrix as the product ``left @ right``."""

    left: Float64[np.ndarray, "outputs rank"]
    right: Float64[np.ndarray, "rank inputs"]


@dataclass(frozen=True)
class Knots(OfMatrices):
    """KnOTS: ``M = U merge_k(diag(s) V_k^T)``, where ``U diag(s) [V_1^T ... V_n^T]`` is the SVD of ``[M_1 ... M_n]``.

    The task matrices stand side by side, ``[outputs, n inputs]``, so they share the left singular vectors ``U``; their
    aligned parts ``diag(s) V_k^T`` are merged by TIES, or by DARE with TIES' election of signs.

    Source: Stoica et al., Model merging with SVD to tie the knots, 2025, with the defaults of the authors' code: the
    largest 20 % of all aligned parts for TIES, 10 % dropped for DARE.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Knots(inner="ties", density=0.3))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    inner: str = one_of("ties", "Method that merges the aligned parts.", "ties", "dare_ties")
    density: float | None = option(
        None,
        "Fraction of the entries of the aligned parts of a member that is kept.",
        "a number from 0 to 1",
        lambda value: 0 <= value <= 1,
        otherwise="0.2 for ties, 0.9 for dare_ties",
    )
    scope: str = one_of(
        "whole",
        "Where ties compares magnitudes: whole, over the aligned parts of all leaves; leaf, within each leaf.",
        "whole",
        "leaf",
    )
    seed: int = at_least(0, 0, "Seed of the draws of dare_ties.")

    def merging(self, leaves: list[Leaf]) -> Callable[[Leaf], Matrix]:
        """Finds the rank of each leaf, and the smallest magnitude that is kept."""
        if not leaves:
            return self.matrix
        every, ingredients = {leaf.path: leaf for leaf in leaves}, leaves[0].ingredients
        basis = _Bases(every)
        ranks = on_all_cores(lambda path: basis(path).shape[1], every)
        shapes = {leaf.path: (rank, task_shape(leaf)[1]) for leaf, rank in zip(leaves, ranks, strict=True)}

        def opened(member: int, path: str) -> ReadPiece:
            return _reading((basis(path).T @ task(every[path], member)).astype(np.float32))

        members = tuple(partial(opened, member) for member in range(len(ingredients.names)))
        aligned = Ingredients(ingredients.names, shapes, None, members, stored="weights", inputs_first=False)
        fill = self._inner().prepared(aligned)

        def merge(leaf: Leaf) -> Matrix:
            part = Leaf(leaf.path, shapes[leaf.path], aligned)
            out = np.empty(part.size, np.float32)
            fill(part, out)
            return basis(leaf.path) @ out.reshape(part.shape).astype(np.float64)

        return merge

    def _inner(self) -> OfWeights:
        if self.inner == "ties":
            return Ties(density=0.2 if self.density is None else self.density, scope=self.scope)
        return DareTies(density=0.9 if self.density is None else self.density, seed=self.seed)


@dataclass(frozen=True)
class CoreSpace(OfMatrices):
    """Core Space merging: ``M = U merge_k(U^T B_k A_k V) V^T`` for adapters ``M_k = B_k A_k``.

    ``U`` are the left singular vectors of ``[B_1 ... B_n]`` and ``V`` the right ones of ``A_1, ..., A_n`` one below the
    other. The core matrices ``U^T B_k A_k V`` are small and lose nothing. Members that are not stored as adapters have
    ``B_k = U_k diag(s_k)^1/2`` and ``A_k = diag(s_k)^1/2 V_k^T`` of their thin SVD.

    Source: Panariello et al., Accurate and efficient low-rank model merging in core space, 2025, with the defaults of
    the authors' code: 10 % of the entries for TIES.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.CoreSpace(inner="iso_c"))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    inner: str = one_of("tsv_m", "Method that merges the core matrices.", "tsv_m", "iso_c", "ties")
    density: float = share(0.1, "Fraction of the entries of each core matrix that ties keeps.")

    def matrix(self, leaf: Leaf) -> Matrix:
        """Returns the merged task matrix."""
        thin = [thin_task(leaf, member) for member in range(len(leaf.ingredients.names))]
        left = _basis(np.concatenate([own.left for own in thin], axis=1))
        right = _basis(np.concatenate([own.right for own in thin], axis=0).T)
        if not left.size or not right.size:
            return np.zeros(task_shape(leaf))
        cores = [(left.T @ own.left) @ (own.right @ right) for own in thin]
        shape = cores[0].shape
        inside = Ingredients(
            leaf.ingredients.names,
            {leaf.path: shape},
            None,
            tuple(partial(_opened, core) for core in cores),
            stored="weights",
            inputs_first=False,
            wide=frozenset() if self.inner == "ties" else frozenset({leaf.path}),
        )
        part = Leaf(leaf.path, shape, inside)
        out = np.empty(part.size, part.dtype)
        self._inner().prepared(inside)(part, out)
        return left @ out.reshape(shape).astype(np.float64) @ right.T

    def _inner(self) -> OfWeights:
        if self.inner == "ties":
            return Ties(density=self.density, scope="leaf")
        return {"tsv_m": TsvM, "iso_c": IsoC}[self.inner](averaged=NOTHING)


class _Bases:
    """The left singular vectors of the task matrices side by side, by leaf.

    They are kept up to ``KEPT_BYTES``; the rest are found again when they are needed again.
    """

    def __init__(self, leaves: Mapping[str, Leaf]):
        self._leaves, self._kept, self._bytes = leaves, dict[str, Columns](), 0
        self._again = lru_cache(maxsize=usable_cores())(self._found)

    def __call__(self, path: str) -> Columns:
        return self._kept[path] if path in self._kept else self._again(path)

    def _found(self, path: str) -> Columns:
        basis = joint_left(self._leaves[path])
        if self._bytes + basis.nbytes <= KEPT_BYTES:
            self._bytes += basis.nbytes
            self._kept[path] = basis
        return basis


def joint_left(leaf: Leaf) -> Columns:
    """Returns the left singular vectors of ``[M_1 ... M_n]``, the largest first, without those of rounding errors.

    Args:
      leaf: a leaf of the members whose task matrices are ``M_k``.
    """
    members = range(len(leaf.ingredients.names))
    stored = [stored_factors(leaf, member) for member in members]
    if all(own is not None for own in stored):
        thin = [own for own in stored if own is not None]
        columns, rest = np.linalg.qr(np.concatenate([own.left for own in thin], axis=1))
        gram, start = np.zeros((rest.shape[0], rest.shape[0])), 0
        for own in thin:
            here = rest[:, start : start + own.left.shape[1]] @ own.right
            gram += here @ here.T
            start += own.left.shape[1]
        return columns @ leading(gram, len(gram))[1]
    if spectral.on_accelerator():
        return _basis(np.concatenate(list(each_task(leaf)), axis=1))
    gram = np.zeros((task_shape(leaf)[0],) * 2)
    for matrix in each_task(leaf):
        gram += matrix @ matrix.T
    return leading(gram, len(gram))[1]


def thin_task(leaf: Leaf, member: int) -> Thin:
    """Returns a member's task matrix as a product: its adapter, or the factors of its thin SVD.

    Args:
      leaf: a leaf of the members.
      member: index of the member.
    """
    stored = stored_factors(leaf, member)
    if stored is not None:
        return stored
    found = svd(task(leaf, member), min(leaf.shape))
    root = np.sqrt(found.values)
    return Thin(found.left * root, (found.right * root).T)


def stored_factors(leaf: Leaf, member: int) -> Thin | None:
    """Returns the adapter of a member that is stored as one; None for another member.

    Args:
      leaf: a leaf of the members.
      member: index of the member.
    """
    factors_of = getattr(leaf.ingredients.members[member], "factors", None)
    if factors_of is None or leaf.ingredients.stored != "task_vectors":
        return None
    factors = factors_of(leaf.path)
    outputs, inputs = task_shape(leaf)
    if factors is None:  # the leaf equals the base
        return Thin(np.zeros((outputs, 0)), np.zeros((0, inputs)))
    a, b = np.asarray(factors.a, np.float64), np.asarray(factors.b, np.float64)
    return Thin(b.T, a.T) if leaf.inputs_lead else Thin(a, b)


def _basis(columns: Columns) -> Float64[np.ndarray, "rows kept"]:
    """Returns the left singular vectors of a matrix, the largest first, without those of rounding errors."""
    if not columns.size:
        return np.zeros((len(columns), 0))
    return svd(columns, min(columns.shape)).left


def _opened(matrix: Matrix, path: str) -> ReadPiece:
    return _reading(matrix)


def _reading(matrix: np.ndarray) -> ReadPiece:
    flat = matrix.reshape(-1)

    def read(start: int, out: np.ndarray) -> None:
        out[:] = flat[start : start + out.size]

    return read
