"""A value with its confidence interval, and the interval of a mean."""

from collections.abc import Mapping, Sequence
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


def mean_interval(
    values: Float[np.ndarray, " values"],
    confidence: float = 0.95,
    influences: Sequence[Mapping[str, float]] = (),
) -> Interval:
    """Returns the mean of some values and its Student t interval; with a single value the ends are infinite.

    Values on several targets are not independent if the same datasets or members stand behind them. Their influences
    then widen the interval: its variance is that over targets plus that over sources, less the part that both count
    (Cameron, Gelbach and Miller 2011), but at least that over targets.

    Args:
      values: one value per target.
      confidence: level of the interval.
      influences: how far each source moves each value, by the source's name; empty: no sources are shared.

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
    variance, freedom = float(data.var(ddof=1)) / data.size, data.size - 1
    shared, sources = shared_variance(influences)
    if shared > 0:
        variance, freedom = variance + shared, min(freedom, sources - 1)
    half = float(t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance))
    return Interval(mean, mean - half, mean + half)


def share_interval(values: Float[np.ndarray, " values"], confidence: float = 0.95) -> Interval:
    """Returns the mean of some shares and its interval, which stays between 0 and 1.

    It is that of Clopper and Pearson (1934) for as many yes-or-no answers, also where shares lie between 0 and 1: no
    distribution on [0, 1] with their mean has a larger variance than yes and no.

    Args:
      values: one share per target.
      confidence: level of the interval.

    Raises:
      WsrError: if there are no values, or one is not between 0 and 1.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.interval import share_interval
      >>> interval = share_interval(np.ones(14))
      >>> interval.value, round(interval.low, 3), interval.high
      (1.0, 0.768, 1.0)
    """
    from scipy.stats import beta

    data = np.asarray(values, np.float64)
    if data.size == 0 or not np.all((data >= 0) & (data <= 1)):
        raise WsrError(f"share: expected values between 0 and 1, found {data.tolist()}")
    count, yes = data.size, data.sum()
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, yes, count - yes + 1)) if yes > 0 else 0.0
    high = float(beta.ppf(1 - tail, yes + 1, count - yes)) if yes < count else 1.0
    return Interval(float(data.mean()), low, high)


def shared_variance(influences: Sequence[Mapping[str, float]]) -> tuple[float, int]:
    """Returns what sources behind several targets add to the variance of a mean over targets, and how many there are.

    Args:
      influences: how far each source moves the value of each target, by the source's name.
    """
    names = list(dict.fromkeys(name for own in influences for name in own))
    each = np.array([[own.get(name, 0.0) for name in names] for own in influences]) / max(len(influences), 1)
    if len(names) < 2:
        return 0.0, 0
    between = float((each.sum(axis=0) ** 2).sum() - (each**2).sum())
    return between * len(names) / (len(names) - 1), len(names)
