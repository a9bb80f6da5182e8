"""The parameters of a recipe: values, filters on names of tensors, and gradients over layers."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.merging.mergekit import REQUIRED, translation
from wsr.merging.method import Method, made
from wsr.merging.slices import MethodOf

Settings = Mapping[str, Any]


def method_for(
    path: Path,
    name: str,
    base: str | None,
    members: Sequence[str],
    each: Sequence[Settings],
    shared: Sequence[Settings],
) -> MethodOf:
    """Returns the method of each tensor of a slice.

    Args:
      path: the recipe's file.
      name: the method in mergekit.
      base: the base, if the method has one.
      members: the models.
      each: parameters of each model.
      shared: parameters of all models, the ones that count most first.
    """
    return partial(_method, path, name, base, members, each, shared)


def refuse_unknown(path: Path, name: str, scopes: Sequence[Settings]) -> None:
    """Raises ``WsrError`` if a parameter is not one of the method.

    Args:
      path: the recipe's file.
      name: the method in mergekit.
      scopes: tables of parameters.
    """
    own = translation(name)
    known = {*own.shared, *own.each, "int8_mask"}
    strange = sorted({str(key) for scope in scopes for key in scope} - known)
    if strange:
        raise WsrError(f"{path}: {', '.join(strange)}: not a parameter of {name}; it has {', '.join(sorted(known))}")


def _method(
    path: Path,
    name: str,
    base: str | None,
    members: Sequence[str],
    each: Sequence[Settings],
    shared: Sequence[Settings],
    leaf: str,
    depth: float,
    leaves: Sequence[str],
) -> Method:
    """Returns the method of one tensor, whose layer is at ``depth`` and which is called ``leaves`` in the members."""
    own = translation(name)
    values: dict[str, Any] = {"base_model": base}
    for option, (kind, default) in own.shared.items():
        values[option] = _value(path, name, option, leaf, depth, kind, default, shared)
    for option, (kind, default) in own.each.items():
        values[option] = tuple(
            _value(path, name, option, there, depth, kind, default, (given, *shared), member)
            for member, given, there in zip(members, each, leaves, strict=True)
        )
    return made(own.method or name, own.options(values))


def _value(
    path: Path,
    method: str,
    name: str,
    leaf: str,
    depth: float,
    kind: type,
    default: Any,
    scopes: Sequence[Settings],
    member: str = "",
) -> Any:
    for scope in scopes:
        if name in scope:
            found = _setting(path, name, scope[name], leaf)
            if found is not None:
                return _along(path, name, found, depth, kind)
    if default is REQUIRED:
        raise WsrError(f"{path}: {method} needs {name}{f' of {member}' if member else ''} ({leaf})")
    return default


def _setting(path: Path, name: str, setting: Any, leaf: str) -> Any:
    """Returns a value or a gradient, or that of the first ``{filter, value}`` whose filter occurs in the name."""
    entries = setting if isinstance(setting, list) else [setting]
    if not any(isinstance(entry, Mapping) for entry in entries):
        return setting
    for entry in entries:
        if not isinstance(entry, Mapping) or "value" not in entry or set(entry) - {"filter", "value"}:
            raise WsrError(f"{path}: {name}: {entry}: expected value, and filter if it is not for all tensors")
        if entry.get("filter") in (None, "*") or str(entry["filter"]) in leaf:
            return entry["value"]
    return None


def _along(path: Path, name: str, found: Any, depth: float, kind: type) -> Any:
    """Returns a value, or that of a gradient at a depth: a list over layers, interpolated between its entries."""
    if not isinstance(found, list):
        return _typed(path, name, found, kind)
    values = [_typed(path, name, value, kind) for value in found]
    if not values:
        raise WsrError(f"{path}: {name} = []: a gradient over layers has at least one value")
    if kind not in (int, float):
        return values[int(depth * (len(values) - 1))]
    place = depth * (len(values) - 1)
    low = int(place)
    high = min(len(values) - 1, low + 1)
    value = (1 - (place - low)) * values[low] + (place - low) * values[high]
    return _typed(path, name, value, kind)


def _typed(path: Path, name: str, value: Any, kind: type) -> Any:
    try:
        if kind is bool:
            if not isinstance(value, bool):
                raise ValueError
            return value
        if isinstance(value, bool) or (kind is int and float(value) != int(float(value))):
            raise ValueError
        return kind(value)  # YAML reads 1e-5 as a string
    except (TypeError, ValueError):
        raise WsrError(f"{path}: {name} = {value!r}; expected {kind.__name__}") from None
