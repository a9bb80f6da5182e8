"""Writes and reads immutable Orbax checkpoints that hold a hash of every leaf.

This is the only module that writes with Orbax. Orbax stores no checksums, so nearly every flipped bit would load
silently as another number. Therefore the checkpoint's ``custom_metadata`` holds the hashes of each leaf and a hash of
the metadata itself; reading through this module verifies them. Reading a member directly with Orbax verifies no hashes.
Of a leaf's two hashes, the SHA-256 in the table ``leaves`` identifies it, and the BLAKE3 under ``blake3`` is compared
when it is read. Checkpoints of earlier versions have no ``blake3``, and their SHA-256 is compared.

Files that belong to a model beside its weights (config, tokenizer) lie in the folder ``companions``, with their hashes
in the metadata.

- Format 1: Orbax's default, a compressed database.
- Format 2: one uncompressed file per leaf. Weights hardly compress, and such files can be read in pieces, by many
  threads and without Orbax.
- Format 3: format 2 for a member stored as low-rank factors. Code that knows only formats 1 and 2 would read it as an
  empty encoder, and so refuses it.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.geometry.trees import nest
from wsr.runtime import buckets, strict_json
from wsr.store.leaf_file import LeafFile, WrongLeaf
from wsr.store.leaves import Leaves, Table, differences, digests, json_sha256

FORMAT = 2
FORMAT_OF_FACTORS = 3
READABLE = (1, 2, 3)
ABANDONED_SECONDS = 24 * 3600.0
METADATA_FILE = "_CHECKPOINT_METADATA"
COMPANIONS = "companions"
PIECE_BYTES = 4 * 2**20
LATE_WRITES_SECONDS = 0.5


def publish(
    folder: Path,
    leaves: Leaves,
    table: Table,
    about: dict[str, Any],
    staging: Path,
    *,
    version: int | None = None,
    companions: Mapping[str, Path] | None = None,
) -> bool:
    """Writes a checkpoint under a unique name in ``staging``, then renames it to ``folder``.

    Args:
      folder: the finished checkpoint.
      leaves: the arrays to store, by path.
      table: sha256, dtype and shape of every leaf.
      about: facts to store with the leaves, as JSON.
      staging: the folder of unfinished writes, on the same file system.
      version: the format; None for ``FORMAT``.
      companions: files to copy into the checkpoint, by their relative paths in it.

    Returns:
      Whether the checkpoint was written; False if ``folder`` already exists, which then stays unchanged.

    Raises:
      WsrError: if the checkpoint could not be written.
    """
    unfinished = _own_name(staging)
    try:
        hashes = {name: _sha256(path) for name, path in sorted((companions or {}).items())}
        about = about | ({COMPANIONS: hashes} if hashes else {})
        metadata = {
            "format": version or FORMAT,
            "about": about,
            "leaves": table,
            "blake3": digests(leaves, "blake3"),
        }
        staging.mkdir(parents=True, exist_ok=True)
        _save(unfinished, leaves, {**metadata, "sha256": json_sha256(metadata)})
        for name, path in (companions or {}).items():
            (unfinished / COMPANIONS / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, unfinished / COMPANIONS / name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not buckets.put_folder(unfinished, folder, METADATA_FILE):
            return False
        os.rename(unfinished, folder)
    except Exception as error:
        if folder.is_dir():
            return False
        raise WsrError(f"{folder} could not be written: {_first_line(error)}") from error
    finally:
        _remove_all(staging, f"{unfinished.name}*")
    return True


def read_about(folder: Path) -> tuple[dict[str, Any], Table]:
    """Returns the facts that ``publish`` stored with a checkpoint, and its table of leaves.

    Raises:
      WsrError: if the metadata is damaged.
    """
    metadata = _read_metadata(folder)
    return metadata["about"], metadata["leaves"]


def read(folder: Path, paths: Sequence[str] | None = None, *, verify: bool = True) -> Leaves:
    """Returns leaves of a checkpoint as they are on disk.

    Args:
      folder: the checkpoint.
      paths: the leaves to read; None reads all.
      verify: whether hashes are compared; names, dtypes and shapes always are.

    Raises:
      WsrError: if a leaf cannot be read or differs from what was written.
    """
    metadata = _read_metadata(folder)
    buckets.bring(folder, METADATA_FILE)
    table = _to_compare(metadata)
    wanted = dict(table) if paths is None else {path: table[path] for path in paths}
    try:
        found = _read_compressed(folder, wanted) if metadata["format"] == 1 else _read_files(folder, wanted)
    except WrongLeaf as error:
        raise WsrError(f"{folder} was changed on disk: {error}; {_REMEDY}") from error
    except Exception as error:  # TensorStore raises all kinds of errors on a damaged file.
        raise WsrError(f"{folder}: payload cannot be read ({_first_line(error)}); {_REMEDY}") from error
    problems = differences(found, wanted, verify=verify)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WsrError(f"{folder} was changed on disk: {problems[0]}{more}; {_REMEDY}")
    return found


def open_leaves(folder: Path) -> Callable[[str], Callable[[np.ndarray], None]]:
    """Opens a checkpoint for reading its leaves in pieces.

    Args:
      folder: the checkpoint.

    Returns:
      A function from the path of a leaf to ``fill(out)``, which writes the next ``out.size`` entries of the leaf into
      ``out``. With the last entry it verifies the hash of the leaf and raises WsrError if it differs. A leaf of format
      1 is read into memory whole.

    Raises:
      WsrError: if the metadata is damaged.
    """
    metadata = _read_metadata(folder)
    table = _to_compare(metadata)
    buckets.bring(folder, METADATA_FILE)

    def open_leaf(path: str) -> Callable[[np.ndarray], None]:
        if metadata["format"] == 1:
            return _pieces(read(folder, [path])[path])
        leaf = LeafFile(folder, path, table[path])
        leaf.will_read()

        def fill(out: np.ndarray) -> None:
            try:
                leaf.next(out)
            except WrongLeaf as error:
                raise WsrError(f"{folder} was changed on disk: {error}; {_REMEDY}") from error

        return fill

    return open_leaf


def companions(folder: Path) -> dict[str, Path]:
    """Returns the files beside the weights of a checkpoint, by the names under which ``publish`` took them.

    Raises:
      WsrError: if one is missing or differs from what was written.
    """
    hashes = _read_metadata(folder)["about"].get(COMPANIONS, {})
    if hashes:
        buckets.bring(folder, METADATA_FILE)
    found = {name: folder / COMPANIONS / name for name in hashes}
    for name, path in found.items():
        try:
            digest = _sha256(path)
        except OSError as error:
            raise WsrError(f"{path} cannot be read ({_first_line(error)}); {_REMEDY}") from error
        if digest != hashes[name]:
            raise WsrError(f"{path} was changed on disk: sha256 expected {hashes[name]}, found {digest}; {_REMEDY}")
    return found


def check(folder: Path) -> None:
    """Reads a whole checkpoint, one piece of a leaf at a time, and verifies all hashes.

    Raises:
      WsrError: naming the first damaged leaf, and the number of others.
    """
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
    try:
        companions(folder)
    except WsrError as error:
        problems.append(str(error))
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise WsrError(problems[0] + more)


def write_json(path: Path, value: Any, staging: Path) -> None:
    """Writes a JSON file atomically.

    Args:
      path: the file; its folder is created if needed.
      value: the content.
      staging: the folder of unfinished writes, on the same file system.

    Raises:
      WsrError: if the file could not be written.
    """
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
    """Removes unfinished writes of dead processes of this machine, and those of any machine that are a day old."""
    for leftover in staging.glob("*~*~*"):
        host, pid, _ = leftover.name.split("~", 2)
        if _is_abandoned(leftover) if host != socket.gethostname() else not _is_alive(pid):
            _remove(leftover)


_REMEDY = "restore it from a copy, or remove it and create it again"


def _save(folder: Path, leaves: Leaves, metadata: dict[str, Any]) -> None:
    # Imported here: it takes 0.4 s, and reading a store does not need it.
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_ocdbt = False
    context.array.saving.use_zarr3 = False  # its chunks contain an index
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
    # Orbax warns that the database we switched off is missing, and logs one traceback per thread for what it raises.
    return not any(said in str(record.msg) for said in ("Skipping merge of OCDBT", "_SignalingThread.run()"))


def _hear_no_closed_loops() -> None:
    """Silences the tracebacks, one per leaf, that follow a failed save; the failure itself is raised."""
    hook = sys.unraisablehook
    if not (isinstance(hook, partial) and hook.func is _unless_closed):
        sys.unraisablehook = partial(_unless_closed, hook)


def _unless_closed(hook: Callable[["sys.UnraisableHookArgs"], Any], ignored: "sys.UnraisableHookArgs") -> None:
    if str(ignored.exc_value) != "Event loop is closed":
        hook(ignored)


def _read_metadata(folder: Path) -> dict[str, Any]:
    # Read the JSON file directly: Orbax's call also opens every array and takes 40 ms per member instead of 0.2 ms.
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
        raise WsrError(f"{folder}: has format {version} of another version of wsr; this version reads formats 1 to 3")
    return metadata


def _to_compare(metadata: Mapping[str, Any]) -> Table:
    """Returns what is compared with each leaf that is read: dtype, shape and one hash."""
    table: Table = metadata["leaves"]
    if "blake3" not in metadata:
        return table
    return {
        path: {"blake3": metadata["blake3"][path], "dtype": form["dtype"], "shape": form["shape"]}
        for path, form in table.items()
    }


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
    # Orbax gives all writers of a path the same temporary name, so every writer needs a unique path.
    return staging / f"{socket.gethostname()}~{os.getpid()}~{uuid.uuid4().hex}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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


def _remove_all(staging: Path, pattern: str) -> None:
    """Removes what a failed write left, until nothing comes back.

    Orbax raises the first error of a leaf while TensorStore still writes other leaves, and TensorStore makes a missing
    folder again.
    """
    give_up = time.monotonic() + 20 * LATE_WRITES_SECONDS
    while (leftovers := list(staging.glob(pattern))) and time.monotonic() < give_up:
        for leftover in leftovers:
            _remove(leftover)
        time.sleep(LATE_WRITES_SECONDS)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _first_line(error: BaseException) -> str:
    lines = [f"{type(error).__name__}: {line.strip()}" for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # On a full disk the cause comes last, after two long paths.
    return lines[0] if len(lines[0]) <= 300 else f"{lines[0][:100]} ... {lines[0][-200:]}"
