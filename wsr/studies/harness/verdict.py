"""Combines what intervals say about each part of a claim into a verdict on the whole."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Bounded(Protocol):
    """Anything with a confidence interval."""

    @property
    def low(self) -> float: ...

    @property
    def high(self) -> float: ...


def verdict(parts: Iterable[bool | None]) -> str:
    """Returns the verdict on a claim, one of ``wsr.report.document.VERDICTS``.

    Args:
      parts: whether each part of the claim holds; None: not settled.

    Example:
      >>> from wsr.studies.harness.verdict import verdict
      >>> verdict([True, True]), verdict([True, None]), verdict([False, None])
      ('holds', 'partly', 'not settled')
    """
    found = list(parts)
    if not found:
        return "not tested"
    if all(found):
        return "holds"
    if any(found):
        return "partly"
    return "does not hold" if all(part is False for part in found) else "not settled"


def above(interval: Bounded, bound: float = 0.0, *, p: float = 0.0) -> bool | None:
    """Returns whether a value lies above a bound; None if its interval or p-value does not settle that.

    Args:
      interval: the confidence interval of the value.
      bound: the bound.
      p: p-value, corrected for multiple comparisons; from 0.05 the result is None.
    """
    if p >= 0.05:
        return None
    return True if interval.low > bound else False if interval.high <= bound else None


def below(interval: Bounded, bound: float = 0.0, *, p: float = 0.0) -> bool | None:
    """Returns whether a value lies at a bound or below it; None if its interval or p-value does not settle that.

    Args:
      interval: the confidence interval of the value.
      bound: the bound.
      p: p-value, corrected for multiple comparisons; from 0.05 the result is None.
    """
    found = above(interval, bound, p=p)
    return None if found is None else not found
