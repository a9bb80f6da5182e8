"""Merges parameters that are in memory as dicts of arrays, leaf by leaf."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.merging.ingredients import Ingredients, Leaf, ReadPiece
from wsr.merging.method import Method
from wsr.merging.run import Groups, assigned, merge_leaves, refuse_without_base


def merge_params(
    models: Mapping[str, Any], method: Method, base: Mapping[str, Any] | None, groups: Groups
) -> dict[str, Any]:
    """Merges dicts of arrays into one, of the same form.

    Args:
      models: the parameters of each model, by a name: flat or nested dicts of NumPy, JAX or PyTorch arrays.
      method: the merge method.
      base: the parameters that the models were fine-tuned from; None if the method needs no base.
      groups: other methods for some leaves.

    Returns:
      NumPy arrays of the types of the base, or of the first model. Leaves that are not floats are copied from it.

    Raises:
      WsrError: if the models do not have the same leaves, a leaf is not an array, a weight is NaN or infinite, or the
        method needs a base and there is none.
    """
    if not models:
        raise WsrError("merge: no models were given")
    refuse_without_base(method, groups, base)
    named = ({} if base is None else {"base": base}) | dict(models)
    if base is not None and "base" in models:
        raise WsrError("merge: a model may not be called base, because base= is given; choose another name")
    leaves = {name: {path: _array(name, path, leaf) for path, leaf in _leaves(own)} for name, own in named.items()}
    _refuse_unlike(leaves)
    first = next(iter(leaves.values()))
    floats = {path: leaf.shape for path, leaf in first.items() if _is_float(leaf)}
    openers = {name: partial(_open, name, own) for name, own in leaves.items()}
    ingredients = Ingredients(
        tuple(models),
        floats,
        None if base is None else openers["base"],
        tuple(openers[name] for name in models),
        stored="weights",
        wide=frozenset(path for path in floats if first[path].dtype == np.float64),
    )
    merged = {path: np.empty(leaf.shape, leaf.dtype) if path in floats else leaf for path, leaf in first.items()}

    def keep(leaf: Leaf, values: np.ndarray) -> None:
        merged[leaf.path][...] = values.reshape(leaf.shape)

    merge_leaves(ingredients, assigned(floats, method, groups), keep)
    return _filled(next(iter(named.values())), merged)


def _leaves(tree: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of a nested dict with their paths."""
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}/")
        else:
            yield path, value


def _filled(tree: Mapping[Any, Any], leaves: Mapping[str, np.ndarray], above: str = "") -> dict[Any, Any]:
    """Returns a dict of the form of ``tree`` with other leaves."""
    return {
        name: _filled(value, leaves, f"{above}{name}/") if isinstance(value, Mapping) else leaves[f"{above}{name}"]
        for name, value in tree.items()
    }


def _array(name: str, path: str, leaf: Any) -> np.ndarray:
    try:
        array = np.asarray(leaf)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WsrError(f"merge: {path} of {name} is not an array that NumPy can read: {error}") from error
    if array.dtype == object:
        raise WsrError(f"merge: {path} of {name} is not an array: found {type(leaf).__name__}")
    return array


def _is_float(leaf: np.ndarray) -> bool:
    # The 16-bit type of JAX, bfloat16, is not one of NumPy's own floats.
    return np.issubdtype(leaf.dtype, np.floating) or leaf.dtype.name == "bfloat16"


def _refuse_unlike(models: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    (first_name, first), *others = models.items()
    problems = []
    for name, own in others:
        problems += [f"{path} is in {first_name} but not in {name}" for path in first if path not in own]
        problems += [f"{path} is in {name} but not in {first_name}" for path in own if path not in first]
        for path in first.keys() & own.keys():
            if own[path].shape != first[path].shape:
                problems.append(f"{path} is {first[path].shape} in {first_name} and {own[path].shape} in {name}")
            elif _is_float(own[path]) != _is_float(first[path]):
                problems.append(f"{path} is {first[path].dtype} in {first_name} and {own[path].dtype} in {name}")
            elif not _is_float(first[path]) and not np.array_equal(own[path], first[path]):
                problems.append(f"{path} is not a float leaf and differs between {first_name} and {name}")
    if problems:
        more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
        raise WsrError(f"merge: the models do not fit together: {'; '.join(problems[:8])}{more}")


def _open(name: str, leaves: Mapping[str, np.ndarray], path: str) -> ReadPiece:
    flat = leaves[path].reshape(-1)

    def read(start: int, out: np.ndarray) -> None:
        out[:] = flat[start : start + out.size]
        if not np.isfinite(out).all():
            raise WsrError(f"merge: NaN or infinity in {path} of {name}; leave this model out")

    return read
