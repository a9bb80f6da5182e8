"""A file is there whole or not at all."""

import os
import secrets
from pathlib import Path

from wsr.errors import WsrError


def write_atomically(path: Path, content: bytes) -> None:
    """Writes ``content`` beside ``path`` and renames it; makes the folder. Raises WsrError."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_bytes(content)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise WsrError(f"cannot write {path}: {error.strerror}; choose another place") from error
