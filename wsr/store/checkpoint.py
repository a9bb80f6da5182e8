"""One immutable Orbax checkpoint that knows the hash of its every leaf. The only place that imports Orbax.

Orbax keeps no checksum of its payload: nearly every flipped bit loads silently as another number. So the
hashes lie in the checkpoint's ``custom_metadata``, with a hash of that metadata, and reading compares them.
"""

import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.store.leaves import Leaves, Table, differences, json_sha256
from wsr.trees import nest

FORMAT = 1
ABANDONED_SECONDS = 24 * 3600.0
METADATA_FILE = "_CHECKPOINT_METADATA"


def publish(folder: Path, leaves: Leaves, table: Table, about: dict[str, Any], staging: Path) -> bool:
    """Writes a checkpoint under a name of its own in ``staging``, then renames it to ``folder``.

    Returns:
        False if ``folder`` was there first, which is then left as it is.
    """
    ocp = _orbax()
    metadata = {"format": FORMAT, "about": about, "leaves": table}
    unfinished = _own_name(staging)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        ocp.save(unfinished, nest(leaves), custom_metadata={**metadata, "sha256": json_sha256(metadata)})
        folder.parent.mkdir(parents=True, exist_ok=True)
        os.rename(unfinished, folder)
    except Exception as error:
        if folder.is_dir():
            return False
        raise WsrError(f"{folder} could not be written: {_first_line(error)}") from error
    finally:
        for leftover in staging.glob(f"{unfinished.name}*"):
            _remove(leftover)
    return True


def read_about(folder: Path) -> tuple[dict[str, Any], Table]:
    """Returns what ``publish`` was told about the checkpoint, and its table of leaves.

    Reads the one JSON file: Orbax's own call opens every array too, and takes 40 ms a member in place of 0.2.
    """
    try:
        content = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
        metadata = content["custom_metadata"]
        digest = metadata.pop("sha256")
        version = metadata["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WsrError(f"{folder}: metadata cannot be read ({_first_line(error)}); {_REMEDY}") from error
    found = json_sha256(metadata)
    if found != digest:
        raise WsrError(f"{folder}: metadata was changed on disk: sha256 expected {digest}, found {found}; {_REMEDY}")
    if version != FORMAT:
        raise WsrError(f"{folder}: format {version} of another version of wsr; this one reads format {FORMAT}")
    return metadata["about"], metadata["leaves"]


def read(folder: Path, paths: Sequence[str] | None = None, *, verify: bool = True) -> Leaves:
    """Returns the leaves at ``paths`` (None: all) as they are on disk; the others are not read.

    Names, dtypes and shapes are always compared with the table, hashes if ``verify``.
    """
    ocp = _orbax()
    _, table = read_about(folder)
    wanted = dict(table) if paths is None else {path: table[path] for path in paths}
    holes = {path: _empty(table[path]) if path in wanted else ocp.PLACEHOLDER for path in table}
    try:
        tree = ocp.load(folder, nest(holes))
        found = {path: _leaf(tree, path) for path in wanted}
    except Exception as error:  # Orbax and TensorStore raise anything at all on a damaged file.
        raise WsrError(f"{folder}: payload cannot be read ({_first_line(error)}); {_REMEDY}") from error
    problems = differences(found, wanted, verify=verify)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WsrError(f"{folder} was changed on disk: {problems[0]}{more}; {_REMEDY}")
    return found


def write_json(path: Path, value: Any, staging: Path) -> None:
    """Writes a JSON file whole or not at all."""
    unfinished = _own_name(staging)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise WsrError(f"{path} could not be written: {_first_line(error)}") from error


def sweep(staging: Path) -> None:
    """Removes what dead processes of this machine, or any process a day ago, left unfinished."""
    for leftover in staging.glob("*~*~*"):
        host, pid, _ = leftover.name.split("~", 2)
        if _is_abandoned(leftover) if host != socket.gethostname() else not _is_alive(pid):
            _remove(leftover)


_REMEDY = "bring it back from a copy, or remove it and make it again"


def _orbax() -> Any:
    # Not at the top of the file: it costs 0.4 s, and listing a store does not need it.
    from orbax.checkpoint import v1

    return v1


def _own_name(staging: Path) -> Path:
    # Orbax gives all writers of one path the same temporary name, so no two writers may share a path.
    return staging / f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"


def _empty(form: dict[str, Any]) -> np.ndarray:
    return np.empty(form["shape"], np.dtype(form["dtype"]))


def _leaf(tree: Any, path: str) -> np.ndarray:
    for key in path.split("/"):
        tree = tree[key]
    return np.asarray(tree)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_abandoned(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_SECONDS
    except FileNotFoundError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    lines = [f"{type(error).__name__}: {line.strip()}" for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
