"""The three forms in which a member's checkpoint stores its encoder, distinguished by the prefix of the leaf names.

params/<leaf>          float32 weights
task_vector/<leaf>     their difference from the base, in bfloat16
low_rank/<leaf>/a, /b  float32 factors of their difference from the base; leaves without factors equal the base
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from wsr.geometry import low_rank
from wsr.geometry.low_rank import Factors, LowRank, OpenLowRank
from wsr.geometry.trees import flatten, nest
from wsr.store import checkpoint
from wsr.store.leaves import Leaves, Table
from wsr.types import Params

DTypeOnDisk = Literal["float32", "bfloat16_task_vector"]

ReadPiece = Callable[[int, np.ndarray], None]


def whole_on_disk(encoder: Leaves, base: Callable[[], Params], dtype: DTypeOnDisk) -> Leaves:
    """Returns the leaves to store for an encoder, all of them dense.

    Args:
      encoder: the encoder's leaves, float32.
      base: returns the parameters of the base.
      dtype: ``float32`` stores the weights, ``bfloat16_task_vector`` the task vector.
    """
    if dtype == "float32":
        return {f"params/{path}": leaf for path, leaf in encoder.items()}
    origin = flatten(base())
    return {f"task_vector/{path}": _bfloat16(leaf - origin[path]) for path, leaf in encoder.items()}


def factors_on_disk(task_vector: LowRank) -> dict[str, Any]:
    """Returns the leaves to store for an encoder given by its low-rank factors."""
    return {
        f"low_rank/{path}/{side}": leaf
        for path, factors in task_vector.items()
        for side, leaf in factors._asdict().items()
    }


def names_on_disk(table: Table, paths: Iterable[str]) -> list[str]:
    """Returns the names of the stored leaves from which the encoder's leaves at ``paths`` are computed."""
    part = _part(table)
    if part != "low_rank":
        return [f"{part}/{path}" for path in paths]
    return [name for path in paths for name in _names_of_factors(path) if name in table]


def factors_of(leaves: Leaves) -> LowRank:
    """Returns the factors of each leaf that changes, from all stored leaves of an encoder given by its factors."""
    own = of_part(leaves, "low_rank")
    paths = [name.removesuffix("/a") for name in own if name.endswith("/a")]
    return {path: Factors(own[f"{path}/a"], own[f"{path}/b"]) for path in paths}


def dense(leaves: Leaves, table: Table, base: Callable[[], Params], paths: Iterable[str]) -> Leaves:
    """Returns the encoder's leaves at ``paths`` in float32.

    Args:
      leaves: the stored leaves that ``names_on_disk`` names.
      table: the checkpoint's table.
      base: returns the parameters of the base.
      paths: the leaves to compute.
    """
    part = _part(table)
    own = of_part(leaves, part)
    if part == "params":
        return own
    origin = flatten(base())
    if part == "task_vector":
        return {path: np.asarray(origin[path] + leaf.astype(np.float32)) for path, leaf in own.items()}
    moving = {path: Factors(own[f"{path}/a"], own[f"{path}/b"]) for path in paths if f"{path}/a" in own}
    return flatten(low_rank.add(nest({path: origin[path] for path in paths}), moving))


def open_in_pieces(folder: Path, table: Table, base: Callable[[], Params]) -> Callable[[str], ReadPiece]:
    """Opens the task vector of the member in ``folder`` for reading in pieces; see ``Store.open_task_vector``."""
    part = _part(table)
    if part == "low_rank":
        return OpenLowRank(partial(_read_factors, folder, table))
    open_leaf = checkpoint.open_leaves(folder)
    origin = flatten(base()) if part == "params" else {}

    def open_one(path: str) -> ReadPiece:
        fill = open_leaf(f"{part}/{path}")
        return partial(_minus, fill, origin[path].reshape(-1)) if origin else partial(_widened, fill)

    return open_one


def is_low_rank(table: Table) -> bool:
    """Returns whether an encoder is stored as factors."""
    return _part(table) == "low_rank"


def kept_as(table: Table) -> tuple[str, int]:
    """Returns the form in which an encoder is stored, such as ``rank 8``, and its size in bytes."""
    part = _part(table)
    own = {name: form for name, form in table.items() if name.startswith(f"{part}/")}
    size = sum(np.dtype(form["dtype"]).itemsize * int(np.prod(form["shape"])) for form in own.values())
    if part == "low_rank":
        return f"rank {max(form['shape'][1] for name, form in own.items() if name.endswith('/a'))}", size
    return "float32" if part == "params" else "bfloat16_task_vector", size


def of_part(leaves: Leaves, part: str) -> Leaves:
    """Returns the leaves whose names begin with ``part/``, by their names without this prefix."""
    prefix = f"{part}/"
    return {path.removeprefix(prefix): leaf for path, leaf in leaves.items() if path.startswith(prefix)}


def _part(table: Table) -> str:
    return next(part for part in ("params", "task_vector", "low_rank") if any(n.startswith(f"{part}/") for n in table))


def _names_of_factors(path: str) -> list[str]:
    return [f"low_rank/{path}/{side}" for side in Factors._fields]


def _read_factors(folder: Path, table: Table, path: str) -> Factors | None:
    names = _names_of_factors(path)
    if names[0] not in table:
        return None
    found = checkpoint.read(folder, names)
    return Factors(*(found[name] for name in names))


def _bfloat16(leaf: Any) -> np.ndarray:
    # asarray: NumPy's arithmetic turns an array of no dimensions into a scalar.
    return np.asarray(leaf).astype(ml_dtypes.bfloat16)


def _minus(fill: Callable[[np.ndarray], None], base_leaf: np.ndarray, start: int, out: np.ndarray) -> None:
    fill(out)
    np.subtract(out, base_leaf[start : start + out.size], out=out)


def _widened(fill: Callable[[np.ndarray], None], start: int, out: np.ndarray) -> None:
    piece = np.empty(out.size, ml_dtypes.bfloat16)
    fill(piece)
    out[:] = piece
