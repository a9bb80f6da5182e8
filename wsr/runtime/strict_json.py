"""Parses untrusted JSON: any defect raises ValueError."""

import json
from typing import Any


def parse(text: str, *, unique_keys: bool = False) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: the JSON.
      unique_keys: whether an object with two values for one key is a defect; otherwise the last value counts.

    Raises:
      ValueError: if the text is not valid JSON or is nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique if unique_keys else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} has two values")
    return found
