"""Power of a t-test of a mean over random units, such as the targets of a study."""

import numpy as np

MOST_UNITS = 10_000


def power(effect: float, deviation: float, units: int, *, error: float = 0.05) -> float:
    """Returns the probability that a two-sided t-test finds a mean effect.

    The statistic follows the noncentral t distribution with noncentrality ``effect * sqrt(units) / deviation``.

    Args:
      effect: the true mean.
      deviation: standard deviation of a unit, in the unit of the effect.
      units: number of units.
      error: probability of finding an effect that does not exist.

    Example:
      >>> from wsr.statistics.power import power
      >>> round(power(effect=0.5, deviation=1.0, units=34), 2)
      0.81
    """
    from scipy.stats import nct, t

    if units < 2:
        return error
    if deviation == 0:
        return float(effect != 0)
    limit, shift = t.ppf(1 - error / 2, units - 1), abs(effect) * np.sqrt(units) / deviation
    # Far from the limit SciPy's noncentral distribution is not a number.
    found = nct.sf(limit, units - 1, shift) + nct.cdf(-limit, units - 1, shift)
    return float(found) if np.isfinite(found) else 1.0


def units_needed(effect: float, deviation: float, *, wanted: float = 0.8, error: float = 0.05) -> int | None:
    """Returns the smallest number of units with the wanted power; None if ``MOST_UNITS`` are not enough.

    Args:
      effect: the true mean.
      deviation: standard deviation of a unit.
      wanted: the power.
      error: probability of finding an effect that does not exist.

    Example:
      >>> from wsr.statistics.power import units_needed
      >>> units_needed(effect=0.5, deviation=1.0)
      34
    """
    low, high = 1, 2
    while power(effect, deviation, high, error=error) < wanted:
        low, high = high, 2 * high
        if high > MOST_UNITS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect, deviation, middle, error=error) >= wanted else (middle, high)
    return high


def smallest_effect(deviation: float, units: int, *, wanted: float = 0.8, error: float = 0.05) -> float:
    """Returns the smallest mean that is found with the wanted power.

    Args:
      deviation: standard deviation of a unit.
      units: number of units, at least 2.
      wanted: the power.
      error: probability of finding an effect that does not exist.

    Example:
      >>> from wsr.statistics.power import smallest_effect
      >>> round(smallest_effect(deviation=1.0, units=34), 2)
      0.5
    """
    from scipy.optimize import brentq

    if deviation == 0:
        return 0.0
    return float(brentq(lambda effect: power(effect, deviation, units, error=error) - wanted, 0.0, 50 * deviation))
