"""Whether a matrix may be white noise, by its largest singular value."""

import math

import numpy as np
from jaxtyping import Float64

# Chiani 2014: the Tracy-Widom law of order 1 is close to a shifted gamma law.
_SHAPE, _SCALE, _SHIFT = 46.44604884387787, 0.18605402228279347, 9.848007781128567


def white_noise_p_value(values: Float64[np.ndarray, " values"], shape: tuple[int, int]) -> float:
    """Returns the probability that independent entries of equal variance have at least this largest singular value.

    With ``s^2`` the mean square of the entries, ``sigma_1^2 / s^2``, centred and scaled, follows the Tracy-Widom law of
    order 1 (Johnstone 2001, Annals of Statistics 29, with centring ``(sqrt(m - 1/2) + sqrt(n - 1/2))^2`` of Ma 2012).
    The entries need not be normal.

    Args:
      values: all singular values of the matrix, the largest first.
      shape: its rows and columns; at least 2 each.

    Returns:
      The p-value; 1 for a matrix of zeros.
    """
    from scipy.stats import gamma

    rows, columns = shape
    square = float(np.square(values).sum()) / (rows * columns)
    if square == 0:
        return 1.0
    first, second = math.sqrt(rows - 0.5), math.sqrt(columns - 0.5)
    centre = (first + second) ** 2
    spread = (first + second) * (1 / first + 1 / second) ** (1 / 3)
    scaled = (float(values[0]) ** 2 / square - centre) / spread
    return float(gamma.sf(scaled + _SHIFT, _SHAPE, scale=_SCALE))
