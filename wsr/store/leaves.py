"""Flat dicts of leaves, and their hashes.

SHA-256 identifies a leaf, and so a model, in every store and for all time: keys of results contain it. It is computed
when a leaf is stored. BLAKE3 shows whether a leaf on disk is still what was stored; it is computed whenever a leaf is
read, for which SHA-256 is too slow.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import numpy as np
from blake3 import blake3

from wsr.errors import WsrError
from wsr.types import Params

Leaves: TypeAlias = dict[str, np.ndarray]
"""Arrays by path, the keys joined by "/": ``{"layers/0/query/bias": ...}``."""

Table: TypeAlias = dict[str, dict[str, Any]]
"""Hash and form of each leaf, by path: ``{"sha256": str, "dtype": str, "shape": [int, ...]}``, or ``"blake3": str``."""

HASHES: Mapping[str, Callable[[], Any]] = {"sha256": hashlib.sha256, "blake3": blake3}
"""The hash functions by name. An object of one has ``update`` and ``hexdigest``, as those of hashlib."""


def float32_leaves(tree: Mapping[str, Any], what: str) -> Leaves:
    """Returns the leaves of a nested dict as NumPy arrays.

    Args:
      tree: the nested dict.
      what: its name, for error messages.

    Raises:
      WsrError: naming every leaf that cannot be stored: all must be finite float32 arrays.
    """
    problems: list[str] = []
    leaves: Leaves = {}
    for path, leaf in _walk(tree, (), problems):
        problem = _problem(leaf)
        if problem:
            problems.append(f"{path} {problem}")
        else:
            leaves[path] = np.ascontiguousarray(leaf).reshape(leaf.shape)
    dotted = [path.replace("/", ".") for path in leaves]
    # Orbax joins keys by "."; of two equal names one would silently overwrite the other.
    problems += [f"{name} names two leaves" for name in sorted(set(dotted)) if dotted.count(name) > 1]
    if problems:
        raise WsrError(f"{what} cannot be stored: {'; '.join(problems)}")
    return leaves


def table_of(leaves: Leaves) -> Table:
    """Returns the sha256, dtype and shape of every leaf."""
    return {path: {"sha256": digest, **_form(leaves[path])} for path, digest in digests(leaves, "sha256").items()}


def digests(leaves: Leaves, name: str) -> dict[str, str]:
    """Returns the hash of every leaf's bytes, in hexadecimal, by the function of this name."""
    with ThreadPoolExecutor() as threads:  # hashing releases the GIL
        return dict(zip(leaves, threads.map(partial(_digest, name), leaves.values()), strict=True))


def differences(leaves: Leaves, table: Table, *, verify: bool) -> list[str]:
    """Returns the differences of ``leaves`` from ``table``, in words.

    Args:
      leaves: leaves that ``table`` names.
      table: what is expected of them.
      verify: whether hashes are compared, by the functions that the table names.
    """
    found = {path: _form(leaf) for path, leaf in leaves.items()}
    for name in HASHES if verify else ():
        named = {path: leaf for path, leaf in leaves.items() if name in table[path]}
        for path, digest in digests(named, name).items():
            found[path][name] = digest
    return table_differences(found, table)


def table_differences(found: Table, expected: Table) -> list[str]:
    """Returns the differences of two tables, in words: paths, shapes, dtypes, and hashes if both have them."""
    problems = [f"leaf {path} is missing" for path in expected if path not in found]
    problems += [f"leaf {path} is unexpected" for path in found if path not in expected]
    for path, leaf in found.items():
        for key in leaf:
            if path in expected and key in expected[path] and leaf[key] != expected[path][key]:
                problems.append(f"leaf {path}: {key} expected {expected[path][key]}, found {leaf[key]}")
    return problems


def json_sha256(value: Any) -> str:
    """Returns the sha256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _walk(tree: Mapping[str, Any], keys: tuple[str, ...], problems: list[str]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = "/".join((*keys, str(key)))
        if not isinstance(key, str) or not key or "/" in key:
            problems.append(f"{path}: key {key!r} is not a string without '/'")
        elif isinstance(value, Mapping) and value:
            found += _walk(value, (*keys, key), problems)
        else:
            found.append((path, value))
    return found


def _problem(leaf: Any) -> str | None:
    if isinstance(leaf, Mapping):
        return "is an empty dict"
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        return f"is a {type(leaf).__name__} and not an array"
    # Orbax would silently cast another dtype.
    if leaf.dtype != np.float32:
        return f"is {leaf.dtype} and not float32"
    if 0 in leaf.shape:
        return f"has no elements (shape {tuple(leaf.shape)})"
    if not np.isfinite(leaf).all():
        return "holds NaN or infinity"
    return None


def _form(leaf: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def _digest(name: str, leaf: np.ndarray) -> str:
    digest = HASHES[name]()
    # Viewed as bytes, because bfloat16 does not support the buffer protocol.
    digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def hash_params(params: Params) -> str:
    """Returns the hash that identifies a model: the sha256 over the hashes of all its leaves.

    Raises:
      WsrError: if a leaf is not a finite float32 array.

    Example:
      >>> import wsr
      >>> from wsr.store.leaves import hash_params
      >>> tiny = wsr.load("tiny")
      >>> hash_params(tiny.params) == hash_params(wsr.load("tiny").params)
      True
    """
    return json_sha256(table_of(float32_leaves(params, "the model")))
