"""Flags for the fields of a dataclass: a flag's text is the docstring under its field."""

import ast
import dataclasses
import inspect
import textwrap
from typing import Any, Literal, get_args, get_origin, get_type_hints

from wsr.cli.flags import Flag, Values


def flags_of(record: type, otherwise: str) -> tuple[Flag, ...]:
    """Returns a flag for each field; without the flag, a value is what ``otherwise`` says."""
    kinds, texts = get_type_hints(record), field_texts(record)
    return tuple(
        _flag(field.name, texts[field.name], kinds[field.name], otherwise) for field in dataclasses.fields(record)
    )


def _flag(name: str, text: str, kind: Any, otherwise: str) -> Flag:
    if get_origin(kind) is Literal:
        return Flag(name, text, allowed=get_args(kind), otherwise=otherwise)
    accepts = "comma-separated numbers" if get_args(kind)[:1] in ((int,), (float,)) else ""
    return Flag(name, text, kind=get_origin(kind) or kind, otherwise=otherwise, accepts=accepts)


def overridden(record: Any, values: Values) -> Any:
    """Returns the record with the values that were given as flags."""
    kinds = get_type_hints(type(record))
    changes = {}
    for field in dataclasses.fields(record):
        value = values[field.name].value
        if value is None:
            continue
        if isinstance(value, list):
            value = tuple(get_args(kinds[field.name])[0](entry) for entry in value)
        changes[field.name] = value
    return dataclasses.replace(record, **changes)


def field_texts(record: type) -> dict[str, str]:
    """Returns the docstring under each field of a dataclass, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(record))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, below in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            texts[field.target.id] = " ".join(below.value.value.split())
    return texts
