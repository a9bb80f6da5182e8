"""The number of fixed points of random permutations: the law behind the tests of a common origin."""

from collections.abc import Iterable
from functools import cache

import numpy as np
from jaxtyping import Float64

_MOST = 170  # 171! is beyond float64, and so is the probability of more fixed points


def fixed_points_p_value(count: int, sizes: Iterable[int]) -> float:
    """Returns the probability of at least ``count`` fixed points in all of several uniform permutations together.

    A permutation of ``n`` units has ``k`` fixed points with probability ``D(n - k) / (k! (n - k)!)``, where ``D(m)``
    counts derangements and ``D(m) / m! = sum_{j <= m} (-1)^j / j!`` (Montmort 1708). The permutations are independent,
    so the law of the total is the convolution. It is exact up to rounding; below about 1e-300 it is 0.

    Args:
      count: number of fixed points.
      sizes: number of units of each permutation.

    Example:
      >>> from wsr.statistics.fixed_points import fixed_points_p_value
      >>> round(fixed_points_p_value(3, [3]), 4), round(fixed_points_p_value(1, [2, 2]), 4)
      (0.1667, 0.75)
    """
    law = np.ones(1)
    for size in sizes:
        law = np.convolve(law, _law(size))
    return float(min(law[max(count, 0) :].sum(), 1.0))


@cache
def _law(size: int) -> Float64[np.ndarray, " counts"]:
    most = min(size, _MOST)
    factorials = np.cumprod(np.concatenate([[1.0], np.arange(1.0, _MOST + 1)]))
    partial = np.cumsum((-1.0) ** np.arange(_MOST + 1) / factorials)
    return np.array([partial[min(size - count, _MOST)] / factorials[count] for count in range(most + 1)])
