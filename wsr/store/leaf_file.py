"""Reads an uncompressed leaf of a checkpoint: a file with the bytes of the array and nothing else."""

import hashlib
import os
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows "bfloat16" by its name from here on.
import numpy as np


class WrongLeaf(Exception):
    """A leaf that differs from what was written; the message names it."""


class LeafFile:
    """A leaf on disk, read from its first entry to its last, whole or in pieces.

    Args:
      folder: the checkpoint.
      path: the leaf, such as ``"params/layers/0/query/bias"``.
      form: hash, dtype and shape of the leaf: its entry in the checkpoint's table.
    """

    def __init__(self, folder: Path, path: str, form: dict[str, Any]):
        self.path, self.form = path, form
        self.dtype = np.dtype(form["dtype"])
        # Zarr's name for the only chunk of an array; arrays without dimensions have one as well.
        chunk = ".".join("0" for _ in form["shape"]) or "0"
        self._file = str(folder / "state" / path.replace("/", ".") / chunk)
        self._end = self.dtype.itemsize * int(np.prod(form["shape"]))
        self._position = 0
        self._hash = hashlib.sha256()

    def whole(self) -> np.ndarray:
        """Returns the whole leaf, without verifying its hash."""
        leaf = np.empty(self.form["shape"], self.dtype)
        self._read(leaf.reshape(-1).view(np.uint8))
        return leaf

    def next(self, out: np.ndarray) -> None:
        """Fills the flat array ``out`` with the next entries; after the last one, verifies the hash of the leaf.

        Raises:
          WrongLeaf: if the file differs from what was written; the message names both hashes.
        """
        piece = out.view(np.uint8)
        self._read(piece)
        self._hash.update(piece.data)
        if self._position == self._end and self._hash.hexdigest() != self.form["sha256"]:
            raise WrongLeaf(self._other(self._hash.hexdigest()))

    def _read(self, piece: np.ndarray) -> None:
        try:
            self._fill(piece)
        except OSError as error:
            raise WrongLeaf(f"leaf {self.path}: {error}") from error

    def _fill(self, piece: np.ndarray) -> None:
        # Opened for each piece: there may be more members than files that a process may hold open.
        file = os.open(self._file, os.O_RDONLY)
        try:
            size, rest = os.fstat(file).st_size, piece
            while rest.size and (count := os.preadv(file, [rest.data], self._position)):
                rest, self._position = rest[count:], self._position + count
        finally:
            os.close(file)
        if rest.size or size != self._end:
            with open(self._file, "rb") as content:
                found = hashlib.file_digest(content, "sha256").hexdigest()
            raise WrongLeaf(f"{self._other(found)}: the file has {size} bytes, expected {self._end}")

    def _other(self, found: str) -> str:
        return f"leaf {self.path}: sha256 expected {self.form['sha256']}, found {found}"
