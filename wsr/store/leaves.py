"""Trees as flat dicts of leaves, and the hashes that tell whether a leaf is still what was stored."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np

from wsr.errors import WsrError
from wsr.types import Params

Leaves: TypeAlias = dict[str, np.ndarray]
"""Path, its keys joined by "/", to array: ``{"layers/0/query/bias": ...}``."""

Table: TypeAlias = dict[str, dict[str, Any]]
"""Path to what the leaf must be: ``{"sha256": str, "dtype": str, "shape": [int, ...]}``."""


def float32_leaves(tree: Mapping[str, Any], what: str) -> Leaves:
    """Returns the leaves of a nested dict as NumPy arrays; raises naming every leaf that cannot be stored."""
    problems: list[str] = []
    leaves: Leaves = {}
    for path, leaf in _walk(tree, (), problems):
        problem = _problem(leaf)
        if problem:
            problems.append(f"{path} {problem}")
        else:
            leaves[path] = np.ascontiguousarray(leaf).reshape(leaf.shape)
    dotted = [path.replace("/", ".") for path in leaves]
    # Orbax joins keys by "." and lets one of two equal names overwrite the other without a word.
    problems += [f"{name} is the name of two leaves" for name in sorted(set(dotted)) if dotted.count(name) > 1]
    if problems:
        raise WsrError(f"{what} cannot be stored: {'; '.join(problems)}")
    return leaves


def table_of(leaves: Leaves) -> Table:
    """Returns hash, dtype and shape of every leaf. Hashing releases the GIL, hence the threads."""
    with ThreadPoolExecutor() as threads:
        digests = threads.map(_sha256, leaves.values())
        return {path: {"sha256": digest, **_form(leaves[path])} for path, digest in zip(leaves, digests, strict=True)}


def differences(leaves: Leaves, table: Table, *, verify: bool) -> list[str]:
    """Returns, in words, how ``leaves`` differ from ``table``; hashes are compared only if ``verify``."""
    found = table_of(leaves) if verify else {path: _form(leaf) for path, leaf in leaves.items()}
    return table_differences(found, table)


def table_differences(found: Table, expected: Table) -> list[str]:
    """Returns, in words, where two tables differ in paths, shapes, dtypes, or in hashes if both have them."""
    problems = [f"leaf {path} is missing" for path in expected if path not in found]
    problems += [f"leaf {path} is unexpected" for path in found if path not in expected]
    for path, leaf in found.items():
        for key in leaf:
            if path in expected and key in expected[path] and leaf[key] != expected[path][key]:
                problems.append(f"leaf {path}: {key} expected {expected[path][key]}, found {leaf[key]}")
    return problems


def json_sha256(value: Any) -> str:
    """Returns the hash of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _walk(tree: Mapping[str, Any], keys: tuple[str, ...], problems: list[str]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = "/".join((*keys, str(key)))
        if not isinstance(key, str) or not key or "/" in key:
            problems.append(f"{path}: key {key!r} is not a text without '/'")
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
    # Orbax would cast another dtype without a word.
    if leaf.dtype != np.float32:
        return f"is {leaf.dtype} and not float32"
    if 0 in leaf.shape:
        return f"has no elements (shape {tuple(leaf.shape)})"
    if not np.isfinite(leaf).all():
        return "holds NaN or infinity"
    return None


def _form(leaf: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}


def _sha256(leaf: np.ndarray) -> str:
    # A view of bytes: bfloat16 has no buffer of its own.
    return hashlib.sha256(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data).hexdigest()


def hash_params(params: Params) -> str:
    """Returns the hash that identifies a model: over the hashes of all its leaves."""
    return json_sha256(table_of(float32_leaves(params, "the model")))
