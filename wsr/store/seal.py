"""JSON objects with a hash of their content."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.runtime import strict_json
from wsr.store.leaves import json_sha256


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns ``content`` with its hash under the key ``sha256``."""
    return {**content, "sha256": json_sha256(content)}


def unsealed(path: Path, remedy: str, *, before_seals: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Reads a JSON file that ``sealed`` made, and returns its content without the hash.

    Args:
      path: the file.
      remedy: what to do about a damaged file, for error messages.
      before_seals: the keys of older files without a hash; a file with exactly these keys is not verified.

    Raises:
      WsrError: if the file cannot be read or differs from what was written.
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
