"""A file is there whole or not at all."""

import os
import secrets
import time
from pathlib import Path

from wsr.errors import WsrError
from wsr.runtime import buckets

_DEAD_SECONDS = 3600  # of a scratch file: its writer needs a moment, unless it was killed


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
    buckets.put_file(path)


def sweep_scratch(folder: Path) -> None:
    """Removes what writers left in ``folder`` that were killed an hour ago or earlier."""
    for scratch in folder.glob(".*.tmp"):
        try:
            if time.time() - scratch.stat().st_mtime > _DEAD_SECONDS:
                scratch.unlink()
        except FileNotFoundError:  # another process was quicker
            continue
