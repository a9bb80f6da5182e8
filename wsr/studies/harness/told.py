"""Intervals as the findings of studies tell them."""

import numpy as np

from wsr.statistics.interval import Interval


def nats(interval: Interval) -> str:
    """Returns a difference of losses with its interval, which is left out if it has no ends.

    Args:
      interval: in nats.

    Example:
      >>> from wsr.statistics.interval import Interval
      >>> from wsr.studies.harness.told import nats
      >>> nats(Interval(0.01, -0.02, 0.04))
      '+0.010 nats (-0.020 to +0.040)'
    """
    return f"{interval.value:+.3f} nats{_ends(interval, 1, '+.3f')}"


def points(interval: Interval) -> str:
    """Returns a difference of shares of right answers in percentage points, with its interval if that has ends.

    Args:
      interval: of shares.

    Example:
      >>> from wsr.statistics.interval import Interval
      >>> from wsr.studies.harness.told import points
      >>> points(Interval(0.01, -0.02, 0.04))
      '+1.0 points (-2.0 to +4.0)'
    """
    return f"{100 * interval.value:+.1f} points{_ends(interval, 100, '+.1f')}"


def _ends(interval: Interval, scale: float, digits: str) -> str:
    if not np.isfinite([interval.low, interval.high]).all():  # of a single value
        return ""
    return f" ({format(scale * interval.low, digits)} to {format(scale * interval.high, digits)})"
