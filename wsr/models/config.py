"""Configs of architectures: frozen dataclasses with Hugging Face's field names, checked when they are read."""

import types
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from wsr.errors import WsrError

Config = TypeVar("Config")


def read(kind: type[Config], config: Mapping[str, Any], what: str) -> Config:
    """Returns ``config`` as an instance of the dataclass ``kind``.

    Args:
      kind: the dataclass; its fields may be int, float, bool, str, tuple (a JSON list), Mapping, or a union with None.
      config: the values by field name; a field with a default may be absent.
      what: names the config in errors.

    Raises:
      WsrError: keys are missing, unknown or of the wrong type; the message names all of them.
    """
    hints = get_type_hints(kind)
    own = fields(kind)  # type: ignore[arg-type]
    names = [field.name for field in own]
    config = {field.name: field.default for field in own if field.default is not MISSING} | dict(config)
    wrong = [f"missing {name}" for name in names if name not in config]
    wrong += [f"unknown {name}" for name in config if name not in names]
    if wrong:
        raise WsrError(f"{what} config: {', '.join(wrong)}; expected exactly {', '.join(names)}")
    wrong = [f"{name} = {config[name]!r}" for name in names if not _is(config[name], hints[name])]
    if wrong:
        raise WsrError(f"{what} config: values of the wrong type: {', '.join(wrong)}")
    return kind(**{name: _as(config[name], hints[name]) for name in names})


def write(config: Any) -> dict[str, Any]:
    """Returns a config as a dict that JSON can hold; the inverse of ``read``."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(config).items()}


def require(what: str, config: object, **allowed: Any) -> None:
    """Checks fields of ``config``, each against a lower bound (a number) or a collection of allowed values.

    For example ``require("bert", config, hidden_size=1, pooling=POOLINGS)``.

    Raises:
      WsrError: a value is below its bound or not among those allowed.
    """
    for name, wanted in allowed.items():
        found = getattr(config, name)
        if isinstance(wanted, int):
            if found < wanted:
                raise WsrError(f"{what} config: {name} = {found}; expected at least {wanted}")
        elif found not in wanted:
            raise WsrError(f"{what} config: {name} = {found!r}; known: {', '.join(map(str, wanted))}")


def require_layers(what: str, config: object, *positive: str, **allowed: Any) -> None:
    """Checks the sizes of attention layers: each is at least 1, and the heads divide the width.

    Args:
      what: names the config in errors.
      config: has ``hidden_size``, ``intermediate_size``, ``num_hidden_layers`` and ``num_attention_heads``.
      positive: further fields that are at least 1.
      allowed: bounds and collections, see ``require``.

    Raises:
      WsrError: a value is below its bound, not among those allowed, or the heads do not divide the width.
    """
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    require(what, config, **dict.fromkeys((*sizes, *positive), 1), **allowed)
    require_multiple(what, config, "hidden_size", "num_attention_heads")


def require_share(what: str, config: object, *names: str) -> None:
    """Raises ``WsrError`` if one of the named fields, a dropout rate, is not in [0, 1)."""
    for name in names:
        if not 0.0 <= getattr(config, name) < 1.0:
            raise WsrError(f"{what} config: {name} = {getattr(config, name)}; expected a number in [0, 1)")


def require_multiple(what: str, config: object, whole: str, part: str) -> None:
    """Raises ``WsrError`` if the field ``whole`` is not a multiple of the field ``part``."""
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
