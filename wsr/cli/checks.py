"""Checks that several verbs make of what they are given."""

from collections.abc import Iterable, Sequence

from wsr.errors import WsrError, nearest_names


def refuse_positional(positional: Sequence[str]) -> None:
    """Raises where words are left over that are no flags."""
    if positional:
        raise WsrError(f"unexpected {' '.join(positional)!r}; flags are written --name=value")


def one_of(flag: str, value: str, known: Iterable[str]) -> None:
    """Raises, with the nearest, where ``value`` is not among the known names."""
    names = list(known)
    if value not in names:
        raise WsrError(f"{flag}={value}: unknown; nearest: {nearest_names(value, names, most=len(names))}")


def required(flag: str, value: object) -> None:
    """Raises where a flag that is needed was not given."""
    if not value:
        raise WsrError(f"{flag} is needed; see --help")
