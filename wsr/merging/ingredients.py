"""Base and members as leaves that are read in blocks ``[members, piece]``, so that no model is whole in memory.

Leaves of members are read as ``wsr.geometry.similarity`` reads them, from the first entry to the last.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float64

if TYPE_CHECKING:
    from wsr.region.region import Region

PIECE = 2**17
"""Entries of a leaf read of each member at a time. With fewer, threads wait for Python's lock more often; more would
not fit into a core's cache."""

STRIPE = 2**22
"""Most entries, over all members, of a block of nodes whose weights are not contiguous."""

ReadPiece = Callable[[int, np.ndarray], None]
OpenLeaf = Callable[[str], ReadPiece]


@runtime_checkable
class Out(Protocol):
    """What a merged leaf is written into: a flat array, or a tensor in a file that takes its pieces."""

    def __setitem__(self, where: Any, entries: Any, /) -> None: ...


@dataclass(frozen=True)
class Block:
    """A piece of a leaf in base and members. The next block overwrites its arrays."""

    base: Float[np.ndarray, " piece"]
    """Origin of the vectors: the base, or zero."""
    vectors: Float[np.ndarray, "members piece"]
    """One vector per member: task vectors, or weights if the origin is zero."""
    put: Callable[[Any, np.ndarray], None]
    """``put(out, merged)`` writes the merged piece to its place in the flat leaf."""


@dataclass(frozen=True)
class Ingredients:
    """The base and the members of a merge.

    Args:
      names: names of the members.
      shapes: shapes of the leaves, by path.
      base: opens a leaf of the base; None if the method needs no base.
      members: open a leaf of each member.
      stored: whether the members' leaves are ``"weights"`` or ``"task_vectors"``.
      around: origin of the vectors in a block: ``"base"`` gives task vectors, ``"zero"`` weights.
      inputs_first: whether kernels are ``[inputs, outputs]``, as in Flax, or ``[outputs, inputs]``, as in PyTorch.
      piece: entries read of each member at a time.
      wide: paths of the leaves that are read in float64, by methods that can; all others are read in float32.
    """

    names: tuple[str, ...]
    shapes: Mapping[str, tuple[int, ...]]
    base: OpenLeaf | None
    members: tuple[OpenLeaf, ...]
    stored: Literal["weights", "task_vectors"] = "task_vectors"
    around: Literal["base", "zero"] = "base"
    inputs_first: bool = True
    piece: int = PIECE
    wide: frozenset[str] = frozenset()

    def leaves(self) -> "list[Leaf]":
        """Returns the leaves, the largest first, so that threads finish at about the same time."""
        ordered = sorted(self.shapes, key=lambda path: (-_size(self.shapes[path]), path))
        return [Leaf(path, tuple(self.shapes[path]), self) for path in ordered]

    def part(self, paths: Sequence[str]) -> "Ingredients":
        """Returns the same members with only some of their leaves."""
        return replace(self, shapes={path: self.shapes[path] for path in paths})

    def alone(self, member: int) -> "Ingredients":
        """Returns one member alone."""
        return replace(self, names=(self.names[member],), members=(self.members[member],))


@dataclass(frozen=True)
class Leaf:
    """One leaf of base and members."""

    path: str
    shape: tuple[int, ...]
    ingredients: Ingredients

    @property
    def size(self) -> int:
        """Number of entries."""
        return _size(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type in which the leaf is read and merged."""
        return np.dtype(np.float64 if self.path in self.ingredients.wide else np.float32)

    @property
    def inputs_lead(self) -> bool:
        """Whether the leaf is stored as ``[inputs, outputs]``."""
        return self.ingredients.inputs_first and self.path.rpartition("/")[2] == "kernel"

    def within(self, **changes: Any) -> "Leaf":
        """Returns the same leaf with some fields of its ingredients changed."""
        return replace(self, ingredients=replace(self.ingredients, **changes))

    def blocks(self) -> Iterator[Block]:
        """Yields the leaf in blocks, from its first entry to its last."""
        own = self.ingredients
        width = max(1, min(own.piece, self.size))
        base, zero = np.zeros((2, width), self.dtype)
        vectors = np.empty((len(own.members), width), self.dtype)
        read_base = own.base(self.path) if own.base else None
        readers = [open_leaf(self.path) for open_leaf in own.members]
        for start in range(0, self.size, width):
            stop = min(start + width, self.size)
            here = slice(0, stop - start)
            if read_base:
                read_base(start, base[here])
            for reader, row in zip(readers, vectors[:, here], strict=True):
                reader(start, row)
                if (own.stored, own.around) == ("weights", "base"):
                    row -= base[here]  # while it is in the core's cache
                elif (own.stored, own.around) == ("task_vectors", "zero"):
                    row += base[here]
            origin = base if own.around == "base" else zero
            yield Block(origin[here], vectors[:, here], partial(_put, slice(start, stop)))

    def node_blocks(self) -> Iterator[tuple[Block, int]]:
        """Yields blocks of whole nodes, in order, each with the number of entries of a node.

        A node is an output unit with the weights of its inputs, a row of a table, or a vector. If the weights of a node
        are not contiguous, each block reads the whole leaf.
        """
        if len(self.shape) < 2:
            yield from ((block, self.size) for block in self.within(piece=max(self.size, 1)).blocks())
            return
        if not self.inputs_lead:
            row = self.shape[-1]
            rows = self.within(piece=_rows(self.ingredients.piece, row))
            yield from ((block, row) for block in rows.blocks())
            return
        inputs = self.shape[0]
        nodes, members = self.size // inputs, len(self.ingredients.members)
        width = max(1, min(nodes, max(self.ingredients.piece, STRIPE // members) // inputs))
        whole_rows = self.within(piece=_rows(self.ingredients.piece, nodes))
        for first in range(0, nodes, width):
            last = min(first + width, nodes)
            base, vectors = (
                np.empty((last - first, inputs), self.dtype),
                np.empty((members, last - first, inputs), self.dtype),
            )
            row = 0
            for block in whole_rows.blocks():
                count = block.base.size // nodes
                base[:, row : row + count] = block.base.reshape(count, nodes)[:, first:last].T
                vectors[:, :, row : row + count] = np.moveaxis(
                    block.vectors.reshape(members, count, nodes)[:, :, first:last], 1, 2
                )
                row += count
            put = partial(_put_columns, inputs, slice(first, last))
            yield Block(base.reshape(-1), vectors.reshape(members, -1), put), inputs

    def gram(self) -> Float64[np.ndarray, "members members"]:
        """Returns the inner products of the leaf's vectors, in float64."""
        members = len(self.ingredients.members)
        total = np.zeros((members, members))
        for block in self.blocks():
            wide = block.vectors.astype(np.float64)
            total += wide @ wide.T
        return total


def of_region(region: "Region", *, piece: int = PIECE) -> Ingredients:
    """Returns the base and the members of a region.

    Args:
      region: the region.
      piece: entries read of each member at a time.
    """
    from wsr.geometry.trees import flatten

    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flatten(region.base).items()}
    return Ingredients(
        region.names,
        {path: leaf.shape for path, leaf in leaves.items()},
        partial(_in_memory, leaves),
        tuple(region.open_task_vectors()),
        piece=piece,
    )


def _in_memory(leaves: Mapping[str, Any], path: str) -> ReadPiece:
    flat = leaves[path].reshape(-1)

    def read(start: int, out: np.ndarray) -> None:
        out[:] = flat[start : start + out.size]

    return read


def _put(where: slice, out: Out, merged: np.ndarray) -> None:
    out[where] = merged


def _put_columns(inputs: int, columns: slice, out: np.ndarray, merged: np.ndarray) -> None:
    out.reshape(inputs, -1)[:, columns] = merged.reshape(-1, inputs).T


def _rows(piece: int, row: int) -> int:
    return max(1, piece // row) * row


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
