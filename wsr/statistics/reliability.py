"""A reliability curve: how often what was given a probability happened, with intervals over populations."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wsr.errors import WsrError
from wsr.statistics.interval import Interval
from wsr.statistics.resampling import mean_weights, percentiles

BINS = 5
RESAMPLES = 2000


@dataclass(frozen=True)
class Bin:
    """Forecasts with similar probabilities."""

    low: float
    """Lowest probability of the bin."""
    high: float
    """Highest probability, which belongs to the next bin."""
    stated: float
    """Mean probability."""
    happened: Interval
    """Share that happened."""
    count: int
    """Number of forecasts."""


def reliability(
    stated: Float[np.ndarray, " forecasts"],
    happened: Float[np.ndarray, " forecasts"],
    populations: Int[np.ndarray, " forecasts"],
    *,
    generator: np.random.Generator,
    bins: int = BINS,
    confidence: float = 0.95,
) -> list[Bin]:
    """Returns the bins of equal width that have a forecast.

    Forecasts of one population are not independent, so the bootstrap resamples populations.

    Args:
      stated: the probabilities.
      happened: 1 or 0.
      populations: number of the population of each forecast, from 0.
      generator: source of the resamples.
      bins: number of bins between 0 and 1.
      confidence: level of the intervals.

    Raises:
      WsrError: if a probability lies outside [0, 1].

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.reliability import reliability
      >>> random = np.random.default_rng(0)
      >>> stated = random.uniform(size=400)
      >>> happened = (random.uniform(size=400) < stated).astype(float)
      >>> curve = reliability(stated, happened, np.arange(400) // 4, generator=random)
      >>> all(own.happened.low < own.stated < own.happened.high for own in curve)
      True
    """
    if not np.all((stated >= 0) & (stated <= 1)):
        raise WsrError("reliability: expected probabilities between 0 and 1")
    count = int(populations.max()) + 1
    weights = mean_weights(count, RESAMPLES, generator)
    place = np.minimum((stated * bins).astype(int), bins - 1)
    found = []
    for number in range(bins):
        own = place == number
        if not own.any():
            continue
        hits = np.bincount(populations[own], happened[own], minlength=count)
        sizes = np.bincount(populations[own], minlength=count)
        drawn = weights @ sizes
        shares = (weights @ hits)[drawn > 0] / drawn[drawn > 0]
        interval = Interval(float(happened[own].mean()), *percentiles(shares, confidence))
        found.append(Bin(number / bins, (number + 1) / bins, float(stated[own].mean()), interval, int(own.sum())))
    return found
