"""Writes safetensors files tensor by tensor and in shards, so that the model need not fit in memory.

A file holds the length of the header (8 bytes, little endian), the header (JSON with dtype, shape and position of each
tensor) and the bytes of the tensors in turn (https://github.com/huggingface/safetensors#format).
"""

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from wsr.runtime.tensor_files import INDEX, SINGLE

SHARD_BYTES = 5 * 10**9
"""Size, in bytes, from which a model is split into several files."""
_ALIGNED = 8  # bytes; the tensors begin at a multiple of it


def write_tensors(
    folder: Path, shapes: Mapping[str, tuple[int, ...]], tensor: Callable[[str], np.ndarray], shard_bytes: int
) -> None:
    """Writes float32 tensors into a folder, as one or several safetensors files.

    Args:
      folder: an existing folder.
      shapes: shape of each tensor, by name.
      tensor: returns the tensor of a name; called once for each, in the order of ``shapes``.
      shard_bytes: largest size of a file; a single larger tensor has a file of its own.
    """
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and _bytes(*shards[-1].values(), shape) > shard_bytes:
            shards.append({})
        shards[-1][name] = shape
    files = [SINGLE]
    if len(shards) > 1:
        files = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": _bytes(*shapes.values())}, "weight_map": where}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file, shard in zip(files, shards, strict=True):
        write_file(folder / file, shard, tensor)


def write_file(path: Path, shapes: Mapping[str, tuple[int, ...]], tensor: Callable[[str], np.ndarray]) -> None:
    """Writes float32 tensors into one safetensors file.

    Args:
      path: the file.
      shapes: shape of each tensor, by name.
      tensor: returns the tensor of a name; called once for each, in the order of ``shapes``.
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in shapes.items():
        end = start + _bytes(shape)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % _ALIGNED)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(content)) + content)
        for name, shape in shapes.items():
            own = np.asarray(tensor(name), "<f4", order="C")  # a scalar stays one
            if own.shape != shape:
                raise ValueError(f"tensor {name} has the shape {own.shape}, expected {shape}")
            file.write(own.data)


def _bytes(*shapes: tuple[int, ...]) -> int:
    return sum(4 * int(np.prod(shape)) for shape in shapes)
