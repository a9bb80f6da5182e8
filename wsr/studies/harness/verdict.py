"""The five verdicts on a claim, the rule of each, and the smallest effect that the data could have shown.

A claim has parts, such as one for each target. Each part is judged by the interval of a difference (``above`` and
``below``) or by a value that has none (``reached``):

- **holds**: the interval lies on the claimed side of the bound, and p, corrected for the number of tests, is below
  0.05;
- **refuted**: the interval does not reach the claimed side, with the same condition on p;
- **no effect**: neither, and the whole interval lies within a stated margin of the bound, which is the test of
  equivalence by two one-sided tests (Schuirmann 1987);
- **open**: neither of these.

A claim says that all of its parts hold. The parts make one of five verdicts on it (``verdict``):

- **holds**: every part holds;
- **holds in part**: some part holds, and another does not hold or is open;
- **refuted**: no part holds and at least one is refuted, whatever the others are;
- **no effect**: every part has no effect;
- **open**: otherwise.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

NO_EFFECT_NATS, NO_EFFECT_SHARE = 0.01, 0.01
"""Margins: a difference of losses (nats) or of accuracies (shares, so one point) that counts as no effect."""

Part: TypeAlias = Literal["holds", "refuted", "no effect", "open"]
"""What the data say about one part of a claim."""


@runtime_checkable
class Bounded(Protocol):
    """Anything with a confidence interval."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def verdict(parts: Iterable[Part]) -> str:
    """Returns the verdict on a claim, one of ``wsr.report.document.VERDICTS``; without parts it is "not tested".

    Args:
      parts: what the data say about each part.

    Example:
      >>> from wsr.studies.harness.verdict import verdict
      >>> verdict(["holds", "holds"]), verdict(["holds", "open"]), verdict(["refuted", "open"])
      ('holds', 'holds in part', 'refuted')
    """
    found = set(parts)
    if not found:
        return "not tested"
    if "holds" in found:
        return "holds" if found == {"holds"} else "holds in part"
    if "refuted" in found:
        return "refuted"
    return "no effect" if found == {"no effect"} else "open"


def all_of(parts: Iterable[Part]) -> Part:
    """Returns what the data say about a part that consists of several conditions, all of which must hold."""
    found = set(parts)
    if "refuted" in found:
        return "refuted"
    return "holds" if found == {"holds"} else "open" if "open" in found or not found else "no effect"


def any_of(parts: Iterable[Part]) -> Part:
    """Returns what the data say about a part that holds if one of several conditions does."""
    found = set(parts)
    if "holds" in found:
        return "holds"
    return "open" if "open" in found or not found else "no effect" if "no effect" in found else "refuted"


def above(interval: Bounded, bound: float = 0.0, *, p: float = 0.0, margin: float = 0.0) -> Part:
    """Returns what an interval says about the claim that a value lies above a bound.

    Args:
      interval: the confidence interval of the value.
      bound: the bound.
      p: p-value, corrected for multiple comparisons; from 0.05 on, the claim neither holds nor is refuted.
      margin: largest difference from the bound that counts as no effect; 0: none does.
    """
    if p < 0.05 and interval.low > bound:
        return "holds"
    if p < 0.05 and interval.high <= bound:
        return "refuted"
    return "no effect" if bound - margin < interval.low and interval.high < bound + margin else "open"


def below(interval: Bounded, bound: float = 0.0, *, p: float = 0.0, margin: float = 0.0) -> Part:
    """Returns what an interval says about the claim that a value lies at a bound or below it.

    Args:
      interval: the confidence interval of the value.
      bound: the bound.
      p: p-value, corrected for multiple comparisons; from 0.05 on, the claim neither holds nor is refuted.
      margin: largest difference from the bound that counts as no effect; 0: none does.
    """
    opposite: Mapping[Part, Part] = {"holds": "refuted", "refuted": "holds", "no effect": "no effect", "open": "open"}
    return opposite[above(interval, bound, p=p, margin=margin)]


def reached(condition: bool) -> Part:
    """Returns what a value without an interval says about the claim that it fulfils a condition."""
    return "holds" if condition else "refuted"


def smallest_effect(interval: Bounded, confidence: float = 0.95) -> float:
    """Returns the smallest effect that the data could have shown with a probability (power) of 80 %.

    It is 2.8 standard errors for a two-sided test at 5 %: 1.96 for the level and 0.84 for the power. With the wider
    intervals of Student's t it is slightly too large.

    Args:
      interval: the confidence interval of the effect.
      confidence: level of the interval.

    Example:
      >>> from wsr.statistics.interval import Interval
      >>> from wsr.studies.harness.verdict import smallest_effect
      >>> round(smallest_effect(Interval(0.0, -1.96, 1.96)), 2)
      2.8
    """
    from scipy.stats import norm

    level = float(norm.ppf((1 + confidence) / 2))
    return (interval.high - interval.low) / 2 / level * (level + float(norm.ppf(0.8)))


def power_told(
    effects: Mapping[str, Bounded], unit: str = "nats", *, scale: float = 1.0, confidence: float = 0.95
) -> str:
    """Returns a sentence that gives the smallest effects that the data could have shown; empty if there are none.

    Args:
      effects: the confidence interval of each effect, by its name.
      unit: unit of the effects.
      scale: factor from the intervals' numbers to the unit, such as 100 for percentage points.
      confidence: level of the intervals.
    """
    found = {name: scale * smallest_effect(own, confidence) for name, own in effects.items()}
    finite = {name: value for name, value in found.items() if np.isfinite(value)}
    if not finite:
        return ""
    if len(finite) > 4:
        told = f"{_three(min(finite.values()))} to {_three(max(finite.values()))} {unit}, depending on the comparison"
    else:
        told = ", ".join(f"{_three(value)} {unit}{f' ({name})' if name else ''}" for name, value in finite.items())
    return f"Smallest effect that these data show with 80 % power: {told}."


def _three(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.3g}"
