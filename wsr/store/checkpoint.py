"""One immutable Orbax checkpoint that knows the hash of its every leaf. The only place that imports Orbax.

Orbax keeps no checksum of its payload: nearly every flipped bit loads silently as another number. So the
hashes lie in the checkpoint's ``custom_metadata``, with a hash of that metadata, and reading compares them.

Format 2 has Orbax write each leaf as a file of its own, uncompressed: weights hardly compress, and such a file can
be read in pieces, by many threads and without Orbax. Format 1 was Orbax's default, a compressed database. Format 3 is
format 2 of a member kept as factors: who knows only the others would take it for an empty encoder.
"""

import json
import logging
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.geometry.trees import nest
from wsr.runtime import buckets, strict_json
from wsr.store.leaf_file import LeafFile, WrongLeaf
from wsr.store.leaves import Leaves, Table, differences, json_sha256

FORMAT = 2
FORMAT_OF_FACTORS = 3
READABLE = (1, 2, 3)
ABANDONED_SECONDS = 24 * 3600.0
METADATA_FILE = "_CHECKPOINT_METADATA"
PIECE_BYTES = 4 * 2**20


def publish(
    folder: Path, leaves: Leaves, table: Table, about: dict[str, Any], staging: Path, *, version: int | None = None
) -> bool:
    """Writes a checkpoint under a name of its own in ``staging``, then renames it to ``folder``.

    Args:
        version: of the format; None: ``FORMAT``.

    Returns:
        False if ``folder`` was there first, which is then left as it is.
    """
    metadata = {"format": version or FORMAT, "about": about, "leaves": table}
    unfinished = _own_name(staging)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        _save(unfinished, leaves, {**metadata, "sha256": json_sha256(metadata)})
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not buckets.put_folder(unfinished, folder, METADATA_FILE):
            return False
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
    """Returns what ``publish`` was told about the checkpoint, and its table of leaves."""
    metadata = _read_metadata(folder)
    return metadata["about"], metadata["leaves"]


def read(folder: Path, paths: Sequence[str] | None = None, *, verify: bool = True) -> Leaves:
    """Returns the leaves at ``paths`` (None: all) as they are on disk; the others are not read.

    Names, dtypes and shapes are always compared with the table, hashes if ``verify``.
    """
    metadata = _read_metadata(folder)
    buckets.bring(folder, METADATA_FILE)
    table: Table = metadata["leaves"]
    wanted = dict(table) if paths is None else {path: table[path] for path in paths}
    try:
        found = _read_compressed(folder, wanted) if metadata["format"] == 1 else _read_files(folder, wanted)
    except WrongLeaf as error:
        raise WsrError(f"{folder} was changed on disk: {error}; {_REMEDY}") from error
    except Exception as error:  # TensorStore raises anything at all on a damaged file.
        raise WsrError(f"{folder}: payload cannot be read ({_first_line(error)}); {_REMEDY}") from error
    problems = differences(found, wanted, verify=verify)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WsrError(f"{folder} was changed on disk: {problems[0]}{more}; {_REMEDY}")
    return found


def open_leaves(folder: Path) -> Callable[[str], Callable[[np.ndarray], None]]:
    """Returns ``open(path)``, which gives ``fill(out)``: the next ``out.size`` entries of that leaf, as on disk.

    With the last entry the hash of the whole leaf is compared. A leaf of format 1 is whole in memory while it is read.
    """
    metadata = _read_metadata(folder)
    buckets.bring(folder, METADATA_FILE)

    def open_leaf(path: str) -> Callable[[np.ndarray], None]:
        if metadata["format"] == 1:
            return _pieces(read(folder, [path])[path])
        leaf = LeafFile(folder, path, metadata["leaves"][path])

        def fill(out: np.ndarray) -> None:
            try:
                leaf.next(out)
            except WrongLeaf as error:
                raise WsrError(f"{folder} was changed on disk: {error}; {_REMEDY}") from error

        return fill

    return open_leaf


def check(folder: Path) -> None:
    """Reads everything in the checkpoint, a piece of a leaf at a time, and raises where it is not what was written."""
    table, opened, problems = _read_metadata(folder)["leaves"], open_leaves(folder), []
    for path, form in table.items():
        dtype = np.dtype(form["dtype"])
        rest, most = int(np.prod(form["shape"])), PIECE_BYTES // dtype.itemsize
        try:
            fill = opened(path)
            while rest:
                piece = np.empty(min(rest, most), dtype)
                fill(piece)
                rest -= piece.size
        except WsrError as error:
            problems.append(str(error))
    if problems:
        more = f" (and {len(problems) - 1} more leaves)" if len(problems) > 1 else ""
        raise WsrError(problems[0] + more)


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
    buckets.put_file(path)


def sweep(staging: Path) -> None:
    """Removes what dead processes of this machine, or any process a day ago, left unfinished."""
    for leftover in staging.glob("*~*~*"):
        host, pid, _ = leftover.name.split("~", 2)
        if _is_abandoned(leftover) if host != socket.gethostname() else not _is_alive(pid):
            _remove(leftover)


_REMEDY = "bring it back from a copy, or remove it and make it again"


def _save(folder: Path, leaves: Leaves, metadata: dict[str, Any]) -> None:
    # Not at the top of the file: it costs 0.4 s, and reading a store does not need it.
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_ocdbt = False
    context.array.saving.use_zarr3 = False  # whose chunks carry an index
    context.array.saving.use_compression = False
    logger = logging.getLogger("absl")
    logger.addFilter(_says_something)
    _hear_no_closed_loops()
    try:
        with context:
            ocp.save(folder, nest(leaves), custom_metadata=metadata)
    finally:
        logger.removeFilter(_says_something)


def _says_something(record: logging.LogRecord) -> bool:
    # Orbax warns of the missing database that it was told not to make, and logs what it raises, a traceback a thread.
    return not any(said in str(record.msg) for said in ("Skipping merge of OCDBT", "_SignalingThread.run()"))


def _hear_no_closed_loops() -> None:
    """Keeps what ends after a failed save from printing a traceback a leaf: the failure itself is raised."""
    hook = sys.unraisablehook
    if not (isinstance(hook, partial) and hook.func is _unless_closed):
        sys.unraisablehook = partial(_unless_closed, hook)


def _unless_closed(hook: Callable[["sys.UnraisableHookArgs"], Any], ignored: "sys.UnraisableHookArgs") -> None:
    if str(ignored.exc_value) != "Event loop is closed":
        hook(ignored)


def _read_metadata(folder: Path) -> dict[str, Any]:
    # The one JSON file: Orbax's own call opens every array too, and takes 40 ms a member in place of 0.2.
    try:
        content = strict_json.parse((folder / METADATA_FILE).read_text(encoding="utf-8"))
        metadata = content["custom_metadata"]
        digest = metadata.pop("sha256")
        version = metadata["format"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WsrError(f"{folder}: metadata cannot be read ({_first_line(error)}); {_REMEDY}") from error
    found = json_sha256(metadata)
    if found != digest:
        raise WsrError(f"{folder}: metadata was changed on disk: sha256 expected {digest}, found {found}; {_REMEDY}")
    if version not in READABLE:
        raise WsrError(f"{folder}: format {version} of another version of wsr; this one reads formats 1 to 3")
    return metadata


def _read_files(folder: Path, table: Table) -> Leaves:
    with ThreadPoolExecutor() as threads:
        leaves = threads.map(lambda path: LeafFile(folder, path, table[path]).whole(), table)
        return dict(zip(table, leaves, strict=True))


def _read_compressed(folder: Path, table: Table) -> Leaves:
    import tensorstore

    def opened(path: str) -> Any:
        files = {"driver": "file", "path": f"{folder}/state/"}
        array = {"driver": "ocdbt", "base": files, "path": path.replace("/", ".") + "/"}
        return tensorstore.open({"driver": "zarr3", "kvstore": array}, open=True, read=True)

    arrays = [future.result().read() for future in [opened(path) for path in table]]
    return {path: np.asarray(array.result()) for path, array in zip(table, arrays, strict=True)}


def _pieces(leaf: np.ndarray) -> Callable[[np.ndarray], None]:
    rest = leaf.reshape(-1)

    def fill(out: np.ndarray) -> None:
        nonlocal rest
        out[:], rest = rest[: out.size], rest[out.size :]

    return fill


def _own_name(staging: Path) -> Path:
    # Orbax gives all writers of one path the same temporary name, so no two writers may share a path.
    return staging / f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"


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
    if not lines:
        return type(error).__name__
    # Of a full disk the cause comes last, after two long paths.
    return lines[0] if len(lines[0]) <= 300 else f"{lines[0][:100]} ... {lines[0][-200:]}"
