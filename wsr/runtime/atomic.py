"""Writes files atomically: a file is either complete or does not exist."""

import os
import secrets
import time
from pathlib import Path

from wsr.errors import WsrError
from wsr.runtime import buckets

_DEAD_SECONDS = 3600  # age of a scratch file whose writer was surely killed


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file atomically: first under a temporary name, then renamed.

    Args:
      path: the file; its folder is created if needed.
      content: the bytes to write.

    Raises:
      WsrError: if the file cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            scratch.write_bytes(content)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except OSError as error:
        raise WsrError(f"cannot write {path}: {error.strerror}; choose another folder") from error
    buckets.put_file(path)


def sweep_scratch(folder: Path) -> None:
    """Removes temporary files in ``folder`` that killed writers left at least an hour ago."""
    for scratch in folder.glob(".*.tmp"):
        try:
            if time.time() - scratch.stat().st_mtime > _DEAD_SECONDS:
                scratch.unlink()
        except FileNotFoundError:  # another process was quicker
            continue
