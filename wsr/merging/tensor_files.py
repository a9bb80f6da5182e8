"""Safetensors files that are read in pieces and written tensor by tensor; nothing is ever unpickled.

A file holds the length of its header in eight bytes, the header in JSON (dtype, shape and place of each tensor, by
name), and the bytes of the tensors.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.runtime import strict_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"}
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
LONGEST_HEADER_BYTES = 100_000_000


@dataclass(frozen=True)
class Tensor:
    """The place of a tensor in a file."""

    file: Path
    """The file."""
    dtype: str
    """Type of its entries, in the notation of safetensors."""
    shape: tuple[int, ...]
    """Its shape."""
    start: int
    """Offset of its first byte in the file."""

    @property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    def read(self, start: int, out: np.ndarray) -> None:
        """Reads entries, from index ``start`` on, into the flat float32 array ``out``.

        Args:
          start: index of the first entry.
          out: the array to fill; its size is the number of entries read.
        """
        dtype = _numpy(self.dtype)
        piece = out if self.dtype == "F32" else np.empty(out.size, dtype)
        _fill(self.file, self.start + start * dtype.itemsize, piece)
        if piece is not out:
            out[:] = piece

    def raw(self) -> np.ndarray:
        """Returns all bytes of the tensor."""
        content = np.empty(self.size * BYTES[self.dtype], np.uint8)
        _fill(self.file, self.start, content)
        return content


def open_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file, or of a folder with one file or an index of several, by name.

    Args:
      path: a safetensors file, or a folder.

    Raises:
      WsrError: if there are no safetensors, an index names a file outside its folder, or a file contradicts its header.
    """
    if path.is_file() and path.suffix == ".safetensors":
        return _of_file(path)
    if (path / SINGLE).is_file():
        return _of_file(path / SINGLE)
    if (path / INDEX).is_file():
        return _of_index(path / INDEX)
    raise WsrError(
        f"{path}: expected a .safetensors file or a folder with {SINGLE} or {INDEX}; pickles (.bin, .pt) are never read"
    )


class TensorWriter:
    """Writes the tensors of one file in any order, from any thread; the file appears when all are written.

    Args:
      path: the file.
      forms: dtype and shape of each tensor, by name.
    """

    def __init__(self, path: Path, forms: Mapping[str, tuple[str, tuple[int, ...]]]):
        self._path, self._scratch = path, path.with_name(f".{path.name}.tmp")
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        self._places, end = {}, 0
        for name, (dtype, shape) in forms.items():
            size = int(np.prod(shape, dtype=np.int64)) * BYTES[dtype]
            self._places[name] = (dtype, end)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        content = json.dumps(header, separators=(",", ":")).encode()
        content += b" " * (-len(content) % 8)
        self._first = 8 + len(content)
        self._file = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.pwrite(self._file, len(content).to_bytes(8, "little") + content, 0)
        os.ftruncate(self._file, self._first + end)

    def put(self, name: str, values: np.ndarray) -> None:
        """Writes one tensor.

        Args:
          name: name of the tensor.
          values: float32 entries, or raw bytes as uint8.
        """
        dtype, place = self._places[name]
        flat = values if values.dtype == np.uint8 else values.astype(_numpy(dtype), copy=False)
        rest, at = flat.reshape(-1).view(np.uint8).data, self._first + place
        while rest:
            count = os.pwrite(self._file, rest, at)
            rest, at = rest[count:], at + count

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self._file)
        if kind is None:
            os.replace(self._scratch, self._path)
        else:
            self._scratch.unlink(missing_ok=True)


def _of_file(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(size - 8, LONGEST_HEADER_BYTES):
                raise ValueError(f"its header would have {length} bytes")
            header = strict_json.parse(file.read(length).decode())
        found = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            tensor = Tensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            end = tensor.start + tensor.size * BYTES[tensor.dtype]
            if not 8 + length <= tensor.start <= end <= size or end != 8 + length + entry["data_offsets"][1]:
                raise ValueError(f"{name} does not lie where its header says")
            found[name] = tensor
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WsrError(f"{path}: not readable as safetensors: {type(error).__name__}: {error}") from error


def _of_index(index: Path) -> dict[str, Tensor]:
    try:
        where = strict_json.parse(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(where.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WsrError(f"{index}: expected weight_map, a table from tensor to file name ({error})") from error
    outside = [name for name in names if not name.endswith(".safetensors") or set(name) & set("/\\")]
    if outside:
        raise WsrError(f"{index}: expected names of safetensors files in the same folder, found {', '.join(outside)}")
    files = {name: _of_file(index.parent / name) for name in names}
    absent = [f"{tensor} in {name}" for tensor, name in where.items() if tensor not in files[name]]
    if absent:
        raise WsrError(f"{index}: tensors missing from their files: {', '.join(absent)}")
    return {tensor: files[name][tensor] for tensor, name in where.items()}


def _fill(path: Path, start: int, out: np.ndarray) -> None:
    # Opened for each piece, because a process may not have one open file per member. Read, not mapped: mapped
    # pages count as memory of this process until the kernel drops them.
    file = os.open(path, os.O_RDONLY)
    try:
        rest = out.reshape(-1).view(np.uint8).data
        while rest and (count := os.preadv(file, [rest], start)):
            rest, start = rest[count:], start + count
    finally:
        os.close(file)
    if rest:
        raise WsrError(f"{path}: the file became shorter while it was read")


def _numpy(dtype: str) -> np.dtype:
    if dtype == "BF16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(FLOATS[dtype])
