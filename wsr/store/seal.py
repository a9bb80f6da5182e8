"""JSON objects that carry the hash of the rest of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.runtime import strict_json
from wsr.store.leaves import json_sha256


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``content`` with its hash."""
    return {**content, "sha256": json_sha256(content)}


def unsealed(path: Path, remedy: str, *, before_seals: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Returns what ``sealed`` was given, from the file ``path``; ``remedy`` ends an error's line.

    Args:
        before_seals: the keys of files that were written without a hash; those with other keys had one.

    Raises:
        WsrError: the file cannot be read, or is not what was written.
    """
    try:
        content = strict_json.parse(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise TypeError("not a JSON object")
        if content.keys() == before_seals:
            return content
        digest = content.pop("sha256")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WsrError(f"{path} cannot be read ({type(error).__name__}: {error}); {remedy}") from error
    found = json_sha256(content)
    if found != digest:
        raise WsrError(f"{path} was changed on disk: sha256 expected {digest}, found {found}; {remedy}")
    return content
