"""A value with its confidence interval, and the interval of a mean."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval."""

    value: float
    low: float
    high: float


def mean_interval(values: Float[np.ndarray, " values"], confidence: float = 0.95) -> Interval:
    """Returns the mean of some values and its Student t interval; with a single value the ends are infinite.

    Args:
      values: independent values.
      confidence: level of the interval.

    Raises:
      WsrError: if there are no values, or one is not finite.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.interval import mean_interval
      >>> interval = mean_interval(np.array([1.0, 2.0, 3.0]))
      >>> round(interval.value, 2), round(interval.low, 2), round(interval.high, 2)
      (2.0, -0.48, 4.48)
    """
    from scipy.stats import t

    data = np.asarray(values, np.float64)
    if data.size == 0 or not np.all(np.isfinite(data)):
        raise WsrError(
            f"mean: expected finite values, found {data.size} of which {np.sum(~np.isfinite(data))} are not finite"
        )
    mean = float(data.mean())
    if data.size == 1:
        return Interval(mean, -np.inf, np.inf)
    half = float(t.ppf((1 + confidence) / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size))
    return Interval(mean, mean - half, mean + half)
