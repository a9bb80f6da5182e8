"""From what intervals say of each part of a claim to what a study says of the whole."""

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
    """Returns one of ``wsr.report.document.VERDICTS`` for parts that hold, fail, or are left open (None)."""
    found = list(parts)
    if not found:
        return "not tested"
    if all(found):
        return "holds"
    if any(found):
        return "partly"
    return "does not hold" if all(part is False for part in found) else "not settled"


def above(interval: Bounded, bound: float = 0.0, *, p: float = 0.0) -> bool | None:
    """Whether a value lies above ``bound``; None where its interval, or a corrected ``p``, leaves that open."""
    if p >= 0.05:
        return None
    return True if interval.low > bound else False if interval.high <= bound else None


def below(interval: Bounded, bound: float = 0.0, *, p: float = 0.0) -> bool | None:
    """Whether a value lies at ``bound`` or below; None where its interval, or a corrected ``p``, leaves that open."""
    found = above(interval, bound, p=p)
    return None if found is None else not found
