"""Configs of architectures: frozen dataclasses whose fields have their Hugging Face names, checked when read."""

import types
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from wsr.errors import WsrError

Config = TypeVar("Config")


def read(kind: type[Config], config: Mapping[str, Any], what: str) -> Config:
    """Returns ``config`` as a ``kind``, a dataclass; ``what`` names it in errors.

    Fields may be int, float, bool, str, tuple (of what a JSON list holds), Mapping, or None besides.

    Raises:
        WsrError: naming every key that is missing, unknown, or of the wrong kind.
    """
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    wrong = [f"missing {name}" for name in names if name not in config]
    wrong += [f"unknown {name}" for name in config if name not in names]
    if wrong:
        raise WsrError(f"{what} config: {', '.join(wrong)}; expected exactly {', '.join(names)}")
    wrong = [f"{name} = {config[name]!r}" for name in names if not _is(config[name], hints[name])]
    if wrong:
        raise WsrError(f"{what} config: wrong kind of value: {', '.join(wrong)}")
    return kind(**{name: _as(config[name], hints[name]) for name in names})


def write(config: Any) -> dict[str, Any]:
    """Returns a config as a JSON-able dict: the inverse of ``read``."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def require(what: str, config: object, **allowed: Any) -> None:
    """Raises where a field of ``config`` is not among those allowed for it: a collection, or a lower bound.

    ``require("bert", config, hidden_size=1, pooling=POOLINGS)``
    """
    for name, wanted in allowed.items():
        found = getattr(config, name)
        if isinstance(wanted, int):
            if found < wanted:
                raise WsrError(f"{what} config: {name} = {found}; expected at least {wanted}")
        elif found not in wanted:
            raise WsrError(f"{what} config: {name} = {found!r}; known: {', '.join(map(str, wanted))}")


def require_share(what: str, config: object, *names: str) -> None:
    """Raises where a field, a rate of dropout, is not in [0, 1)."""
    for name in names:
        if not 0.0 <= getattr(config, name) < 1.0:
            raise WsrError(f"{what} config: {name} = {getattr(config, name)}; expected a number in [0, 1)")


def require_multiple(what: str, config: object, whole: str, part: str) -> None:
    """Raises where one field is not a multiple of another."""
    if getattr(config, whole) % getattr(config, part):
        raise WsrError(
            f"{what} config: {whole} = {getattr(config, whole)} is not a multiple of {part} = {getattr(config, part)}"
        )


def _is(value: Any, hint: Any) -> bool:
    origin = get_origin(hint) or hint
    if origin in (Union, types.UnionType):
        return any(_is(value, own) for own in get_args(hint))
    accepted: Any = {float: (int, float), tuple: (list, tuple), Mapping: Mapping}.get(origin, origin)
    return isinstance(value, accepted) and (origin is bool or not isinstance(value, bool))


def _as(value: Any, hint: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return float(value) if hint is float else value
