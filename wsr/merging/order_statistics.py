"""The value of a rank among numbers that are read in pieces, exactly, in a memory that does not grow with them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float32

Pieces = Callable[[], Iterable[Float32[np.ndarray, " _"]]]
"""Gives the same numbers each time it is called."""


def order_statistics(pieces: Pieces, ranks: Sequence[int]) -> list[float]:
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
        low = int(np.searchsorted(np.cumsum(lower[own]), rank - below, side="right"))
        found.append(float(np.uint32(own << 16 | low).view(np.float32)))
    return found


def _bits(numbers: Float32[np.ndarray, " _"]) -> np.ndarray:
    return np.abs(numbers).view(np.uint32)
