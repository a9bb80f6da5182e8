"""The k-th smallest of numbers that are read in pieces: exact, and in constant memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

Pieces = Callable[[], Iterable[Float32[np.ndarray, " _"]]]
"""Yields the same numbers on each call."""


@dataclass(frozen=True)
class Ranked:
    """The number at a rank."""

    value: float
    """Its magnitude."""
    before: int
    """Numbers of the same magnitude with a lower rank."""
    equal: int
    """Numbers of this magnitude."""


def order_statistics(pieces: Pieces, ranks: Sequence[int]) -> list[Ranked]:
    """Returns the magnitudes at given ranks among all numbers; reads the numbers twice.

    The bits of non-negative float32 numbers, read as integers, have the same order as the numbers. The first pass
    counts the numbers by the upper half of their bits. The second counts by the lower half, among numbers whose upper
    half is that of a wanted rank.

    Args:
      pieces: yields the numbers.
      ranks: the wanted ranks; 0 is the smallest magnitude.

    Example:
      >>> import numpy as np
      >>> from wsr.merging.order_statistics import order_statistics
      >>> numbers = np.array([3.0, -1.0, 2.0], np.float32)
      >>> [found.value for found in order_statistics(lambda: [numbers], [0, 2])]
      [1.0, 3.0]
    """
    upper = np.zeros(2**16, np.int64)
    for piece in pieces():
        upper += np.bincount(_bits(piece) >> 16, minlength=2**16)
    ends = np.cumsum(upper)
    bins = np.searchsorted(ends, ranks, side="right")
    lower = {int(own): np.zeros(2**16, np.int64) for own in bins}
    for piece in pieces():
        bits = _bits(piece)
        halves = bits >> 16
        for own, counts in lower.items():
            counts += np.bincount(bits[halves == own] & 0xFFFF, minlength=2**16)
    found = []
    for rank, own in zip(ranks, bins.tolist(), strict=True):
        below = int(ends[own] - upper[own])
        within = np.cumsum(lower[own])
        low = int(np.searchsorted(within, rank - below, side="right"))
        equal = int(lower[own][low])
        value = float(np.uint32(own << 16 | low).view(np.float32))
        found.append(Ranked(value, rank - below - int(within[low]) + equal, equal))
    return found


def _bits(numbers: Float32[np.ndarray, " _"]) -> np.ndarray:
    return np.abs(numbers).view(np.uint32)
