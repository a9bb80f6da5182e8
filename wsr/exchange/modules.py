"""Weights of the modules of SentenceTransformers at a point of a store: ``base + sum_k c_k (member_k - base)``."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.runtime.tensor_files import SINGLE, open_tensors
from wsr.store import Store

Modules = dict[str, dict[str, np.ndarray]]
"""Float32 tensors of each file of weights, by its relative path, such as ``2_Dense/model.safetensors``."""


def modules_of_point(store: Store, coefficients: Mapping[str, float | None]) -> Modules:
    """Returns the weights of the modules at a point; empty if the store keeps none.

    Args:
      store: the store.
      coefficients: coefficients of the members; those of a merge without coefficients are None: their mean is taken.

    Raises:
      WsrError: if the members' modules differ in their tensors, or a point whose coefficients do not add up to 1 has no
        modules in the base to begin from.
    """
    known = {name: own for name, own in coefficients.items() if name in store}
    given = [own for own in known.values() if own is not None]
    row = given if len(given) == len(known) else [1 / len(known)] * len(known)
    base = _weights(store.companions())
    members = [_weights(store.companions([name])) for name in known]
    return {file: _combined(file, base.get(file), members, row) for file in sorted({*base}.union(*members))}


def _combined(file: str, base: Path | None, members: list[dict[str, Path]], row: list[float]) -> dict[str, np.ndarray]:
    paths = [own.get(file) for own in members]
    if any(path is None for path in paths):
        raise WsrError(f"{file} is a module of some members and not of others; export a member alone")
    if base is None and abs(sum(row) - 1) > 1e-6:
        raise WsrError(f"{file}: the base has no such module, so the coefficients must add up to 1, not {sum(row):g}")
    opened = [open_tensors(path) for path in paths if path is not None]
    origin = open_tensors(base) if base is not None else opened[0]
    for tensors in opened:
        if {name: own.shape for name, own in tensors.items()} != {name: own.shape for name, own in origin.items()}:
            raise WsrError(f"{file} has other tensors in some members; export a member alone")
    found = {}
    for name, at in origin.items():
        start = at.whole().astype(np.float64)
        moves = [
            own * (tensors[name].whole().astype(np.float64) - start) for tensors, own in zip(opened, row, strict=True)
        ]
        found[name] = np.asarray(start + sum(moves), np.float32)
    return found


def _weights(files: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in files.items() if name.endswith(f"/{SINGLE}")}
