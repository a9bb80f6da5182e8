"""Finished points on disk, one small file each, and the rows of a study.

A point's file is written whole under the name of its content and never changed, so an interrupted evaluation loses
nothing that was finished, and two processes that score the same point do no harm.
"""

import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsr.atomic import write_atomically
from wsr.errors import WsrError


class Points:
    """Losses and predictions of points that are already evaluated."""

    def __init__(self, folder: Path | None):
        self._folder = folder
        self._known: dict[str, dict[str, np.ndarray]] = {}

    @classmethod
    def in_memory(cls) -> "Points":
        """Keeps points for as long as the process lives."""
        return cls(None)

    @classmethod
    def on_disk(cls, folder: Path) -> "Points":
        """Keeps points in ``folder``, which is created."""
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def __contains__(self, key: str) -> bool:
        return key in self._known or (self._folder is not None and self._read(key) is not None)

    def get(self, key: str) -> dict[str, np.ndarray]:
        """The arrays of a finished point."""
        if key not in self:
            raise KeyError(key)
        return self._known[key]

    def put(self, key: str, **arrays: np.ndarray) -> None:
        """Keeps a finished point."""
        self._known[key] = arrays
        if self._folder is not None:
            content = io.BytesIO()
            np.savez(content, allow_pickle=False, **arrays)
            write_atomically(self._folder / f"{key}.npz", content.getvalue())

    def _read(self, key: str) -> dict[str, np.ndarray] | None:
        assert self._folder is not None
        file = self._folder / f"{key}.npz"
        try:
            with np.load(file, allow_pickle=False) as archive:  # zip entries carry a CRC, which this verifies
                self._known[key] = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None
        except Exception:  # zipfile, zlib and NumPy each have their own way to say that a file is damaged
            print(f"results: {file} is damaged; the point is evaluated again", flush=True)
            file.unlink()
            return None
        return self._known[key]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a study's rows, one JSON object a line, whole or not at all."""
    lines = "".join(json.dumps(dict(row), allow_nan=False) + "\n" for row in rows)
    write_atomically(path, lines.encode())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads what ``write_rows`` wrote.

    Raises:
      WsrError: naming the file and the line that is not a JSON object.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise WsrError(f"{path}: line {number}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise WsrError(f"{path}: line {number}: expected an object, found {type(row).__name__}")
        rows.append(row)
    return rows
