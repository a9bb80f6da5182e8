"""Which entries of task vectors are kept by their magnitude: thresholds, and the magnitudes at given ranks."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain

import numpy as np
from jaxtyping import Float

from wsr.merging.ingredients import Leaf
from wsr.merging.order_statistics import Bracket, Ranked, order_statistics
from wsr.merging.run import on_all_cores


class Cut:
    """Keeps the magnitudes on one side of a threshold; entries equal to it are counted in order of reading.

    Args:
      value: the threshold.
      first: index of the first entry equal to the threshold that is kept.
      stop: index of the first such entry that is not kept again; None: all from ``first`` on are kept.
      above: whether larger magnitudes are kept, or smaller ones.
      in_pieces: how many entries equal the threshold in each piece; None: they are counted.
    """

    def __init__(
        self,
        value: float,
        *,
        first: int = 0,
        stop: int | None = None,
        above: bool = True,
        in_pieces: Sequence[int] | None = None,
    ):
        self.value, self.first, self.stop, self.above = np.float32(value), first, stop, above
        self._seen = 0
        self._in_pieces = None if in_pieces is None else iter(in_pieces)

    def __call__(self, sizes: Float[np.ndarray, " piece"]) -> np.ndarray:
        beyond, up_to = (np.greater, np.greater_equal) if self.above else (np.less, np.less_equal)
        if not self.first and self.stop is None:
            return up_to(sizes, self.value)
        before = self._seen
        equal = np.count_nonzero(sizes == self.value) if self._in_pieces is None else next(self._in_pieces)
        self._seen += int(equal)
        stop = self._seen if self.stop is None else self.stop
        if self.first <= before and self._seen <= stop:
            return up_to(sizes, self.value)
        kept = beyond(sizes, self.value)
        if self._seen > self.first and before < stop:
            kept[np.flatnonzero(sizes == self.value)[max(0, self.first - before) : stop - before]] = True
        return kept


def kept_by(cuts: Sequence[Cut], vectors: np.ndarray) -> np.ndarray:
    """Returns 1 for entries that a member's cut keeps, 0 for the others."""
    kept, sizes = np.empty_like(vectors), np.empty_like(vectors[0])
    for cut, row, own in zip(cuts, vectors, kept, strict=True):
        own[:] = cut(np.abs(row, out=sizes))
    return kept


def magnitudes_at(leaves: list[Leaf], ranks: list[list[int]]) -> list[list[Ranked]]:
    """Returns the magnitudes at each member's ranks, in its task vector over all leaves together."""
    if len(leaves) == 1:
        return _in_one_leaf(leaves[0], ranks)
    ordered = sorted(leaves, key=lambda leaf: leaf.path)

    def of_member(member: int) -> list[Ranked]:
        own = [Leaf(leaf.path, leaf.shape, leaf.ingredients.alone(member)) for leaf in ordered]
        return order_statistics(lambda: chain.from_iterable(map(_sizes, own)), ranks[member]) if ranks[member] else []

    return on_all_cores(of_member, range(len(ranks)))


def _in_one_leaf(leaf: Leaf, ranks: list[list[int]]) -> list[list[Ranked]]:
    """Reads all members at once, and once more those whose first entries are unlike the others, as in token tables."""
    brackets = [[Bracket(leaf.size, rank) for rank in own] for own in ranks]
    found = _read(leaf, brackets)
    for member, own in enumerate(found):
        alone = Leaf(leaf.path, leaf.shape, leaf.ingredients.alone(member))
        if None in own:
            (own[:],) = _read(alone, [[bracket.again() for bracket in brackets[member]]])
        if None in own:
            own[:] = order_statistics(partial(_sizes, alone), ranks[member])
    return found  # type: ignore[return-value]  # none is None any more


def _read(leaf: Leaf, brackets: list[list[Bracket]]) -> list[list[Ranked | None]]:
    if any(brackets):
        for block in leaf.blocks():
            for own, row in zip(brackets, block.vectors, strict=True):
                sizes = np.abs(row, out=row)
                for bracket in own:
                    bracket.add(sizes)
    return [[bracket.found() for bracket in own] for own in brackets]


def _sizes(leaf: Leaf) -> Iterator[np.ndarray]:
    return (block.vectors[0] for block in leaf.blocks())
