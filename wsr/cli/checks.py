"""Checks of values that several verbs share."""

from collections.abc import Iterable

from wsr.errors import WsrError, nearest_names


def one_of(flag: str, value: str, known: Iterable[str]) -> None:
    """Raises, with the nearest, where ``value`` is not among the known names."""
    names = list(known)
    if value not in names:
        raise WsrError(f"{flag}={value}: unknown; nearest: {nearest_names(value, names, most=len(names))}")
