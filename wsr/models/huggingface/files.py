"""Reads the weights of a folder from safetensors, one file or sharded; never opens pickles."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.models.huggingface.config import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".pkl", ".ckpt")


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Returns every tensor of the model in ``folder``, by name, in its stored dtype.

    Raises:
      WsrError: the folder has no safetensors or only pickles, the index names files outside it, or a file is damaged.
    """
    if (folder / SINGLE).exists():
        return read_file(folder / SINGLE)
    if (folder / INDEX).exists():
        return _read_shards(folder)
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLED)
    if pickled:
        raise WsrError(
            f"{folder}: found {', '.join(pickled)} but no {SINGLE}; opening a pickle can run code, so "
            "pickles are never read: convert it with transformers' save_pretrained"
        )
    raise WsrError(f"{folder}: expected {SINGLE} or {INDEX}, found neither")


def refuse_links(folder: Path) -> None:
    """Raises ``WsrError`` if a link in ``folder`` leads out of it; the hub's cache, which consists of links, may do so.

    A folder may come from a stranger: a link must not pass another file of this machine off as its content.
    """
    inside = [folder.resolve()]
    if inside[0].parent.name == "snapshots":  # the cache keeps file contents in blobs/, beside snapshots/
        inside.append(inside[0].parent.parent / "blobs")
    entries = [*folder.iterdir(), *folder.glob("*/*.json")] if folder.is_dir() else []
    outside = sorted(
        str(entry.relative_to(folder))
        for entry in entries
        if not any(entry.resolve().is_relative_to(place) for place in inside)
    )
    if outside:
        raise WsrError(
            f"{folder}: links out of the folder are not followed: {', '.join(outside)}; copy the files into it"
        )


def _read_shards(folder: Path) -> dict[str, np.ndarray]:
    index = folder / INDEX
    where = read_json(index).get("weight_map")
    if not isinstance(where, Mapping) or not all(isinstance(name, str) for name in where.values()):
        raise WsrError(f"{index}: expected weight_map, a table from tensor to file name")
    outside = sorted({name for name in where.values() if not _is_plain(name)})
    if outside:
        raise WsrError(f"{index}: expected names of safetensors files in the same folder, found {', '.join(outside)}")
    shards = {name: read_file(folder / name) for name in sorted(set(where.values()))}
    absent = [f"{tensor} in {name}" for tensor, name in sorted(where.items()) if tensor not in shards[name]]
    if absent:
        raise WsrError(f"{index}: the index names tensors that their files lack: {', '.join(absent)}")
    return {tensor: shards[name][tensor] for tensor, name in where.items()}


def _is_plain(name: str) -> bool:
    return name.endswith(".safetensors") and not set(name) & set("/\\")


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of one safetensors file, by name; raises ``WsrError`` if it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WsrError(f"{path}: not readable as safetensors: {' '.join(str(error).split())}") from error
