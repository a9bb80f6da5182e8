"""Reads an uncompressed leaf of a checkpoint: a file with the bytes of the array and nothing else."""

import contextlib
import hashlib
import math
import os
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  # NumPy knows "bfloat16" by its name from here on.
import numpy as np

from wsr.store.leaves import HASHES

AHEAD_BYTES = 2**20
"""What the disk brings while the piece before it is hashed and used."""


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
        self._file = f"{folder}/state/{path.replace('/', '.')}/{chunk}"
        self._end = self.dtype.itemsize * math.prod(form["shape"])
        self._position = self._asked = 0
        self._hash_name = next(name for name in HASHES if name in form)
        self._hash = HASHES[self._hash_name]()

    def will_read(self) -> None:
        """Lets the system begin to bring the first entries into its page cache; returns at once."""
        with contextlib.suppress(OSError):  # ``next`` will say what is wrong
            file = os.open(self._file, os.O_RDONLY)
            try:
                self._ahead(file)
            finally:
                os.close(file)

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
        if self._position == self._end and self._hash.hexdigest() != self.form[self._hash_name]:
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
            self._ahead(file)
        finally:
            os.close(file)
        if rest.size or size != self._end:
            with open(self._file, "rb") as content:
                found = hashlib.file_digest(content, HASHES[self._hash_name]).hexdigest()
            raise WrongLeaf(f"{self._other(found)}: the file has {size} bytes, expected {self._end}")

    def _ahead(self, file: int) -> None:
        # Each byte is asked for once: the system looks up every page of what it is asked for.
        first, last = max(self._asked, self._position), min(self._position + AHEAD_BYTES, self._end)
        if first < last and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file, first, last - first, os.POSIX_FADV_WILLNEED)
            self._asked = last

    def _other(self, found: str) -> str:
        return f"leaf {self.path}: {self._hash_name} expected {self.form[self._hash_name]}, found {found}"
