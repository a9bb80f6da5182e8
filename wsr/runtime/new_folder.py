"""A new folder that appears complete or not at all."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsr.errors import WsrError


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Gives a scratch folder beside ``folder``, and renames it to ``folder`` when the block ends without an error.

    Args:
      folder: the folder to write; it is empty or does not exist.

    Raises:
      WsrError: if ``folder`` is not empty, or the disk refuses a file.
    """
    refuse_taken(folder)
    scratch = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        scratch.mkdir(parents=True)
        yield scratch
        if folder.exists():
            folder.rmdir()
        scratch.rename(folder)
    except OSError as error:
        raise WsrError(f"{folder} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def refuse_taken(folder: Path) -> None:
    """Raises ``WsrError`` if there is a file or a folder with content at ``folder``."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WsrError(f"{folder}: exists and is not empty; choose another folder")
