"""Which entries of task vectors are kept by their magnitude: thresholds, and the magnitudes at given ranks."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from wsr.merging.ingredients import Leaf
from wsr.merging.order_statistics import Ranked, order_statistics
from wsr.merging.run import on_all_cores


class Cut:
    """Keeps the magnitudes on one side of a threshold; entries equal to it are counted in order of reading.

    Args:
      value: the threshold.
      first: index of the first entry equal to the threshold that is kept.
      stop: index of the first such entry that is not kept again; None: all from ``first`` on are kept.
      above: whether larger magnitudes are kept, or smaller ones.
    """

    def __init__(self, value: float, *, first: int = 0, stop: int | None = None, above: bool = True):
        self.value, self.first, self.stop, self.above = np.float32(value), first, stop, above
        self._seen = 0

    def __call__(self, sizes: Float[np.ndarray, " piece"]) -> np.ndarray:
        if self.above and not self.first and self.stop is None:
            return sizes >= self.value
        kept = sizes > self.value if self.above else sizes < self.value
        equal = np.flatnonzero(sizes == self.value)
        numbers = self._seen + np.arange(equal.size)
        self._seen += equal.size
        kept[equal] = (numbers >= self.first) & (self.stop is None or numbers < self.stop)
        return kept


def kept_by(cuts: Sequence[Cut], vectors: np.ndarray) -> np.ndarray:
    """Returns 1 for entries that a member's cut keeps, 0 for the others."""
    kept = np.abs(vectors)
    for cut, row in zip(cuts, kept, strict=True):
        row[:] = cut(row)
    return kept


def magnitudes_at(leaves: list[Leaf], ranks: list[list[int]]) -> list[list[Ranked]]:
    """Returns the magnitudes at each member's ranks, in its task vector over all leaves together."""
    ordered = sorted(leaves, key=lambda leaf: leaf.path)

    def of_member(member: int) -> list[Ranked]:
        own = [Leaf(leaf.path, leaf.shape, leaf.ingredients.alone(member)) for leaf in ordered]
        pieces = lambda: (block.vectors[0] for leaf in own for block in leaf.blocks())  # noqa: E731
        return order_statistics(pieces, ranks[member]) if ranks[member] else []

    members = range(len(ranks))
    # With one leaf, this already runs in one of several threads.
    return list(map(of_member, members)) if len(leaves) == 1 else on_all_cores(of_member, members)
