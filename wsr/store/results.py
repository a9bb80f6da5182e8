"""Keeps finished points on disk, one small file each, and the rows of a study.

The file of a point is named by a hash of what was evaluated, written atomically and never changed. So an interrupted
evaluation keeps every finished point, and two processes may score the same point at the same time.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.runtime import buckets, strict_json
from wsr.runtime.atomic import sweep_scratch, write_atomically


class Results:
    """Arrays of evaluated points, by key, in memory and optionally in a folder.

    Make one with ``Results.in_memory`` or ``Results.on_disk``.

    Example:
      >>> import numpy as np, wsr
      >>> results = wsr.Results.in_memory()
      >>> results.put("a point", losses=np.zeros(3))
      >>> "a point" in results, results.get("a point")["losses"].shape
      (True, (3,))
    """

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._known: dict[str, dict[str, np.ndarray]] = {}

    @classmethod
    def in_memory(cls) -> "Results":
        """Returns empty results, kept in the memory of this process only."""
        return cls(None)

    @classmethod
    def on_disk(cls, folder: Path) -> "Results":
        """Returns the results in ``folder``; creates the folder if it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        sweep_scratch(folder)
        buckets.bring_files(folder)
        return cls(folder)

    def keys(self) -> tuple[str, ...]:
        """Returns the keys of the points that were put or read since the results were opened."""
        return tuple(self._known)

    def __contains__(self, key: str) -> bool:
        return key in self._known or (self._folder is not None and self._read(key) is not None)

    def get(self, key: str) -> dict[str, np.ndarray]:
        """Returns the arrays of a finished point.

        Raises:
          KeyError: if there is no such point.
        """
        if key not in self:
            raise KeyError(key)
        return self._known[key]

    def put(self, key: str, **arrays: np.ndarray) -> None:
        """Stores the arrays of a finished point."""
        self.remember(key, **arrays)
        if self._folder is not None:
            content = io.BytesIO()
            np.savez(content, allow_pickle=False, **arrays)
            write_atomically(self._folder / f"{key}.npz", content.getvalue())

    def remember(self, key: str, **arrays: np.ndarray) -> None:
        """Keeps in memory the arrays of a point that another process has written to disk."""
        self._known[key] = arrays

    def _read(self, key: str) -> dict[str, np.ndarray] | None:
        assert self._folder is not None
        file = self._folder / f"{key}.npz"
        if not file.exists():
            return None
        try:
            self._known[key] = read_point(file)
        except WsrError as error:
            print(f"results: {error}; the point is evaluated again", flush=True)
            file.unlink(missing_ok=True)
            return None
        return self._known[key]


def read_point(file: Path) -> dict[str, np.ndarray]:
    """Returns the arrays in the file of a point.

    Raises:
      WsrError: if the file is damaged or compressed; a compressed file could unpack to fill the memory.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            packed = [entry.filename for entry in archive.infolist() if entry.compress_type != zipfile.ZIP_STORED]
            if packed:
                raise ValueError(f"{packed[0]} is compressed, which wsr never does")
        with np.load(file, allow_pickle=False) as archive:  # zip entries carry a CRC, which this verifies
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and NumPy raise different errors for a damaged file
        raise WsrError(f"{file} is damaged ({type(error).__name__}: {' '.join(str(error).split())})") from error


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes the rows of a study atomically, one JSON object per line."""
    lines = "".join(json.dumps(dict(row), allow_nan=False) + "\n" for row in rows)
    write_atomically(path, lines.encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows that ``write_rows`` wrote.

    Raises:
      WsrError: naming the file and the first line that is not a JSON object.
    """
    return _rows(path, _lines(path))


def write_sealed_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows atomically, below a line with their hash."""
    lines = "".join(json.dumps(dict(row), allow_nan=False) + "\n" for row in rows)
    seal = json.dumps({_SEAL: hashlib.sha256(lines.encode()).hexdigest()})
    write_atomically(path, f"{seal}\n{lines}".encode())


def read_sealed_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows that ``write_sealed_rows`` wrote; also reads files of ``write_rows``, which have no hash.

    Raises:
      WsrError: naming the file, and the first line that is not a JSON object or the hashes that differ.
    """
    first, *lines = _lines(path) or [""]
    (seal,) = _rows(path, [first])
    if "value" in seal:
        return [seal, *_rows(path, lines, after=1)]
    expected, found = seal.get(_SEAL), hashlib.sha256("".join(lines).encode()).hexdigest()
    if found != expected or set(seal) != {_SEAL}:
        raise WsrError(f"{path} was changed on disk: {_SEAL} expected {expected}, found {found}")
    return _rows(path, lines, after=1)


_SEAL = "sha256 of the rows"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise WsrError(f"{path}: not UTF-8 ({error})") from None


def _rows(path: Path, lines: Iterable[str], *, after: int = 0) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(lines, start=after + 1):
        try:
            row = strict_json.parse(line)
        except ValueError as error:
            raise WsrError(f"{path}: line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise WsrError(f"{path}: line {number}: expected an object, found {type(row).__name__}")
        rows.append(row)
    return rows
