"""The value of a rank among numbers that are read in pieces, exactly, in a memory that does not grow with them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

Pieces = Callable[[], Iterable[Float32[np.ndarray, " _"]]]
"""Gives the same numbers each time it is called."""


@dataclass(frozen=True)
class Ranked:
    """The number of a rank."""

    value: float
    """Its magnitude."""
    before: int
    """How many numbers of the very same magnitude have a lower rank."""
    equal: int
    """How many there are of this magnitude."""


def order_statistics(pieces: Pieces, ranks: Sequence[int]) -> list[Ranked]:
    """Returns the magnitudes of some ranks, 0 for the smallest, among all numbers; reads them twice.

    The bits of a float32 of positive sign, read as a whole number, have the order of the numbers themselves: the first
    reading counts by the upper half of the bits, the second by the lower half where the upper is that of a rank.
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
