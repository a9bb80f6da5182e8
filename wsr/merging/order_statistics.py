"""The k-th smallest of numbers that are read in pieces: exact, and in constant memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

_MARGIN, _FEWEST = 0.01, 1000
"""Ranks on either side of the wanted one that are expected between the bounds: a share of all, and a number."""
_SAMPLE = 2**19
"""Most numbers, about, of a sample of all."""
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
    in_pieces: tuple[int, ...] | None = None
    """How many of them each piece holds that was read; None: not known."""


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


class Bracket:
    """Finds the number at one rank in one reading, if a sample tells about where it is.

    The sample gives a lower and an upper bound. Numbers between them are collected, and smaller ones counted.

    Args:
      size: how many numbers there are.
      rank: the wanted rank; 0 is the smallest magnitude.
      sample: some of the magnitudes; None: every fourth of those that are added first.

    Example:
      >>> import numpy as np
      >>> from wsr.merging.order_statistics import Bracket
      >>> bracket = Bracket(3, 1)
      >>> bracket.add(np.array([3.0, -1.0, 2.0], np.float32))
      >>> bracket.found().value
      2.0
    """

    def __init__(self, size: int, rank: int, sample: Float32[np.ndarray, " _"] | None = None):
        self._size, self._rank, self._margin = size, rank, _MARGIN * size + _FEWEST
        self._below, self._between = 0, list[np.ndarray]()
        self._bounds = None if sample is None else self._around(sample)
        self._most = 4 * self._margin
        self._stride, self._read, self._sample = size // _SAMPLE | 1, 0, list[np.ndarray]()

    def add(self, sizes: Float32[np.ndarray, " _"]) -> None:
        """Takes the next numbers.

        Args:
          sizes: their magnitudes.
        """
        if self._bounds is None:
            self._bounds = self._around(sizes[::4])
        low, high = self._bounds
        above = sizes >= low
        self._below += sizes.size - int(np.count_nonzero(above))
        if self._most >= 0:
            above &= sizes <= high
            self._between.append(np.compress(above, sizes))  # three times as fast as sizes[above]
            self._most -= self._between[-1].size
        self._sample.append(sizes[-self._read % self._stride :: self._stride].copy())
        self._read += sizes.size

    def found(self) -> Ranked | None:
        """Returns the number at the rank; None if it is not between the bounds, or too many numbers are."""
        place = self._rank - self._below
        if self._most < 0:
            return None
        between = np.sort(np.concatenate(self._between))  # NumPy sorts faster than it partitions
        if not 0 <= place < between.size:
            return None
        value = between[place]
        in_pieces = tuple(int(np.count_nonzero(piece == value)) for piece in self._between)
        return Ranked(float(value), place - int(np.searchsorted(between, value)), sum(in_pieces), in_pieces)

    def again(self) -> "Bracket":
        """Returns a bracket for a second reading, around a sample of all that this one has read."""
        return Bracket(self._size, self._rank, np.concatenate(self._sample))

    def _around(self, sample: Float32[np.ndarray, " _"]) -> tuple[np.float32, np.float32]:
        first, last = ((self._rank + side * self._margin) / self._size for side in (-1, 1))
        ordered = np.sort(sample)
        low, high = ordered[(np.clip([first, last], 0, 1) * (sample.size - 1)).astype(int)]
        return low if first > 0 else np.float32(-1), high if last < 1 else np.float32(np.inf)


def _bits(numbers: Float32[np.ndarray, " _"]) -> np.ndarray:
    return np.abs(numbers).view(np.uint32)
