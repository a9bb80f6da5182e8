"""Checks of values that several verbs share."""

import difflib
from collections.abc import Iterable

from wsr.errors import WsrError


def one_of(flag: str, value: str, known: Iterable[str]) -> None:
    """Raises, with the nearest, where ``value`` is not among the known names."""
    names = list(known)
    if value not in names:
        nearest = difflib.get_close_matches(value, names, n=3) or names
        raise WsrError(f"{flag}={value}: unknown; nearest: {', '.join(nearest)}")
