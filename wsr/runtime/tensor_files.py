"""Safetensors files that are read in pieces and written tensor by tensor; nothing is ever unpickled.

A file holds the length of its header in eight bytes, the header in JSON (dtype, shape and place of each tensor, by
name), and the bytes of the tensors.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.runtime import strict_json
from wsr.runtime.past_cache import write_all

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "bfloat16"}
"""The types of weights, with NumPy's names."""
_OTHERS = dict(
    zip(
        ("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "C64"),
        ("<i8", "<i4", "<i2", "i1", "<u8", "<u4", "<u2", "u1", "?", "<c8"),
        strict=True,
    )
)
"""The types of buffers."""
NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}
"""The types of weights, with the names that PyTorch, configs and recipes use."""
_ABOVE = {"F64": math.inf, "F32": 2.0**128 - 2.0**103, "F16": 65520.0, "BF16": 2.0**128 - 2.0**119}
"""For each type, the least magnitude that it rounds to infinity."""
LONGEST_HEADER_BYTES = 100_000_000


_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""Names that old versions of transformers gave to the parameters of a norm."""


def name_today(name: str) -> str:
    """Returns the name of a tensor as today's transformers has it: gamma is weight, beta is bias."""
    module, dot, leaf = name.rpartition(".")
    return f"{module}{dot}{_OLD_NAMES.get(leaf, leaf)}"


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
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Number of bytes in the file."""
        return self.size * numpy_type(self.dtype).itemsize

    def read(self, start: int, out: np.ndarray) -> None:
        """Reads entries of a float tensor, from index ``start`` on, into the flat array ``out``.

        Args:
          start: index of the first entry.
          out: the array to fill; its size is the number of entries read.
        """
        dtype = numpy_type(self.dtype)
        piece = out if out.dtype == dtype else np.empty(out.size, dtype)
        _fill(self.file, self.start + start * dtype.itemsize, piece)
        if piece is not out:
            _convert(piece, out)

    def will_read(self, start: int, entries: int) -> None:
        """Lets the system begin to bring entries into its page cache; returns at once.

        Args:
          start: index of the first entry.
          entries: number of entries.
        """
        if hasattr(os, "posix_fadvise"):
            size = numpy_type(self.dtype).itemsize
            file = os.open(self.file, os.O_RDONLY)
            try:
                os.posix_fadvise(file, self.start + start * size, entries * size, os.POSIX_FADV_WILLNEED)
            finally:
                os.close(file)

    def raw(self) -> np.ndarray:
        """Returns all bytes of the tensor."""
        return self.whole().reshape(-1).view(np.uint8)

    def whole(self) -> np.ndarray:
        """Returns the whole tensor, in its type on disk."""
        content = np.empty(self.shape, numpy_type(self.dtype))
        _fill(self.file, self.start, content)
        return content


@dataclass(frozen=True, eq=False)
class HeldTensor(Tensor):
    """A tensor in memory, of a file whose entries do not lie in the tensor's order."""

    values: np.ndarray

    def will_read(self, start: int, entries: int) -> None:
        """Does nothing: the entries are in memory."""

    def read(self, start: int, out: np.ndarray) -> None:
        """Copies entries, from index ``start`` on, into the flat array ``out``."""
        _convert(self.values.reshape(-1)[start : start + out.size], out)

    def whole(self) -> np.ndarray:
        """Returns the whole tensor."""
        return self.values


def held(file: Path, values: np.ndarray) -> HeldTensor:
    """Returns a tensor in memory; raises ``WsrError`` for a type that is not read.

    Args:
      file: the file it comes from.
      values: its entries.
    """
    names = {str(numpy_type(name)): name for name in (*FLOATS, *_OTHERS)}
    if str(values.dtype) not in names:
        raise WsrError(f"{file}: types that are not read: {values.dtype}; weights are {', '.join(NAMES.values())}")
    # Unlike ascontiguousarray, which makes a row of a scalar.
    return HeldTensor(file, names[str(values.dtype)], values.shape, 0, np.asarray(values, order="C"))


def open_tensors(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a file, or of a folder with one file or an index of several, by name.

    Args:
      path: a safetensors file, or a folder.

    Raises:
      WsrError: if there are no safetensors or only pickles, an index names a file outside its folder, a file
        contradicts its header, or a tensor has a type that is not read, such as float8.
    """
    if path.is_file() and path.suffix == ".safetensors":
        return _of_file(path)
    if (path / SINGLE).exists():
        return _of_file(path / SINGLE)
    if (path / INDEX).exists():
        return _of_index(path / INDEX)
    if not path.is_dir():
        raise WsrError(f"{path}: expected a .safetensors file or a folder with {SINGLE} or {INDEX}")
    pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLED)
    if pickled:
        raise WsrError(
            f"{path}: found {', '.join(pickled)} but no {SINGLE}; opening a pickle can run code, so "
            "pickles are never read: convert it with transformers' save_pretrained"
        )
    raise WsrError(f"{path}: expected {SINGLE} or {INDEX}, found neither")


class TensorWriter:
    """Writes the tensors of one file in any order, from any thread; the file appears when all are written.

    Args:
      path: the file.
      forms: dtype and shape of each tensor, by name.
      resumes: whether to keep what an interrupted writer of the same forms left, and to leave it if interrupted again.
    """

    def __init__(self, path: Path, forms: Mapping[str, tuple[str, tuple[int, ...]]], *, resumes: bool = False):
        self._path, self._scratch, self._resumes = path, path.with_name(f".{path.name}.tmp"), resumes
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        self._places, end = {}, 0
        for name, (dtype, shape) in forms.items():
            size = math.prod(shape) * numpy_type(dtype).itemsize
            self._places[name] = (dtype, end)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        content = json.dumps(header, separators=(",", ":")).encode()
        content += b" " * (-len(content) % 8)
        self._first = 8 + len(content)
        if resumes and path.exists():  # interrupted after this file was complete
            os.replace(path, self._scratch)
        self._file = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | (0 if resumes else os.O_TRUNC), 0o644)
        os.pwrite(self._file, len(content).to_bytes(8, "little") + content, 0)
        os.ftruncate(self._file, self._first + end)

    def put(self, name: str, values: np.ndarray, *, start: int = 0) -> None:
        """Writes one tensor, or a piece of it.

        Args:
          name: name of the tensor.
          values: float32 or float64 entries, or raw bytes as uint8.
          start: index of the first entry.

        Raises:
          WsrError: if an entry is NaN or too large for the tensor's type.
        """
        write_all(self._file, *self.placed(name, values, start))

    def placed(self, name: str, values: np.ndarray, start: int) -> tuple[int, np.ndarray]:
        """Returns the place in ``file`` and the bytes of entries, see ``put``."""
        dtype, place = self._places[name]
        flat = values
        if values.dtype != np.uint8:
            _refuse_overflow(name, dtype, values)
            flat = values.astype(numpy_type(dtype), copy=False)
        at = self._first + place + start * numpy_type(dtype).itemsize
        return at, np.ascontiguousarray(flat).reshape(-1).view(np.uint8)

    @property
    def file(self) -> Path:
        """The file while it is not complete."""
        return self._scratch

    def sync(self) -> None:
        """Waits until everything that was written is on the disk."""
        os.fdatasync(self._file)

    def __enter__(self) -> "TensorWriter":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        os.close(self._file)
        if kind is None:
            os.replace(self._scratch, self._path)
        elif not self._resumes:
            self._scratch.unlink(missing_ok=True)


def _of_file(path: Path) -> dict[str, Tensor]:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= min(size - 8, LONGEST_HEADER_BYTES):
                raise ValueError(f"its header would have {length} bytes")
            header = strict_json.parse(file.read(length).decode())
        found, strange = {}, []
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            tensor = Tensor(path, entry["dtype"], tuple(entry["shape"]), 8 + length + entry["data_offsets"][0])
            if not all(type(extent) is int and extent >= 0 for extent in tensor.shape):
                raise ValueError(f"{name} has the shape {entry['shape']}")
            if tensor.dtype not in FLOATS.keys() | _OTHERS.keys():
                strange.append(f"{name} ({tensor.dtype})")
                continue
            end = tensor.start + tensor.size * numpy_type(tensor.dtype).itemsize
            if not 8 + length <= tensor.start <= end <= size or end != 8 + length + entry["data_offsets"][1]:
                raise ValueError(f"{name} does not lie where its header says")
            found[name] = tensor
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WsrError(f"{path}: not readable as safetensors: {type(error).__name__}: {error}") from error
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise WsrError(
            f"{path}: types that are not read: {', '.join(strange[:3])}{more}; weights are read as "
            f"{', '.join(NAMES.values())}, so save the model in one of these"
        )
    return found


def _of_index(index: Path) -> dict[str, Tensor]:
    try:
        where = strict_json.parse(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(where.values()))
        outside = [name for name in names if not name.endswith(".safetensors") or set(name) & set("/\\")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WsrError(f"{index}: expected weight_map, a table from tensor to file name ({error})") from error
    if outside:
        raise WsrError(f"{index}: expected names of safetensors files in the same folder, found {', '.join(outside)}")
    gone = [name for name in names if not (index.parent / name).exists()]
    if gone:
        raise WsrError(f"{index}: files that it names are missing: {', '.join(gone)}; download the model again")
    files = {name: _of_file(index.parent / name) for name in names}
    absent = [f"{tensor} in {name}" for tensor, name in sorted(where.items()) if tensor not in files[name]]
    if absent:
        raise WsrError(f"{index}: the index names tensors that their files lack: {', '.join(absent)}")
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


def _convert(entries: np.ndarray, out: np.ndarray) -> None:
    if entries.dtype == numpy_type("BF16") and out.dtype == np.float32:
        bits = out.view(np.uint32)  # bfloat16 is the upper half of float32
        bits[:] = entries.view(np.uint16)
        bits <<= 16
    else:
        out[:] = entries


@cache
def numpy_type(dtype: str) -> np.dtype:
    """Returns NumPy's type of a type in the notation of safetensors."""
    if dtype == "BF16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(FLOATS.get(dtype) or _OTHERS[dtype])


def _refuse_overflow(name: str, dtype: str, values: np.ndarray) -> None:
    least, most = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (math.isfinite(least) and math.isfinite(most)):
        raise WsrError(f"{name}: the result holds NaN or infinity")
    if max(-least, most) >= _ABOVE[dtype]:
        raise WsrError(
            f"{name}: its largest value, {max(-least, most):.6g}, is beyond {NAMES[dtype]}; choose bfloat16 or float32 "
            "as dtype"
        )
