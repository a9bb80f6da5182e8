"""Merges a population leaf by leaf on all cores, with one method or with different methods for groups of leaves."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.errors import WsrError
from wsr.merging.ingredients import Ingredients, Leaf, of_region
from wsr.merging.method import Given, Method, OfData, OfWeights, name_of
from wsr.runtime.cores import usable_cores

if TYPE_CHECKING:
    from wsr.region.region import Region

Groups = Sequence[tuple[str, Method]]
"""Pairs of a regular expression and a method; the first expression found in a leaf's path gives its method."""


def merge(region: "Region", method: Method, given: Given | None = None, *, groups: Groups = ()) -> dict[str, Any]:
    """Merges the members of a region into one model and returns its parameters.

    Args:
      region: the members.
      method: the merge method; methods that need only weights read the members in pieces.
      given: datasets and heads that the method needs besides the weights.
      groups: other methods for some leaves, as pairs of a regular expression on leaf paths and a method that needs only
        weights.

    Returns:
      The encoder's parameters: float32, in host memory.

    Raises:
      WsrError: if the number of members does not fit the method, data that the method needs is missing, or a group
        matches no leaf.

    Example:
      >>> import wsr
      >>> region = wsr.made_up_region(3)
      >>> merged = wsr.merge(region, wsr.merging.Ties(density=0.3))
      >>> sorted(merged)
      ['embeddings', 'layers']
      >>> merged = wsr.merge(region, wsr.merging.Uniform(), groups=[("layers/1", wsr.merging.Karcher())])
    """
    from wsr.geometry.trees import flatten, nest

    given = given or Given()
    method.refuse_members(region.names)
    refuse_missing(method, given)
    if isinstance(method, OfData):
        if groups:
            raise WsrError(
                f"{name_of(type(method))} merges all leaves together; groups need a method that uses only weights"
            )
        return dict(method.merge(region, given))
    merged = {path: np.empty(np.shape(leaf), np.float32) for path, leaf in flatten(region.base).items()}

    def keep(leaf: Leaf, values: np.ndarray) -> None:
        merged[leaf.path][...] = values.reshape(leaf.shape)

    merge_leaves(of_region(region), assigned(merged, method, groups), keep)
    return nest(merged)


def merge_leaves(
    ingredients: Ingredients, methods: Mapping[str, Method], write: Callable[[Leaf, np.ndarray], None]
) -> None:
    """Merges leaf by leaf and passes each result to ``write(leaf, values)``, from several threads and in any order.

    Leaves with equal methods are merged as one part; quantities that a method takes from a whole task vector come from
    that part.

    Args:
      ingredients: the base and the members.
      methods: the method of each leaf, by path.
      write: receives each merged leaf as a flat array: float32, or float64 for a wide leaf and a method that can.

    Raises:
      WsrError: if a method needs texts, or the number of members does not fit it.
    """
    parts: dict[Method, list[str]] = {}
    for path in ingredients.shapes:
        parts.setdefault(methods[path], []).append(path)
    for method, paths in parts.items():
        method.refuse_members(ingredients.names)
        if not isinstance(method, OfWeights):
            raise WsrError(f"{name_of(type(method))} needs texts and cannot merge weights alone")
        part = replace(ingredients.part(paths), wide=ingredients.wide if method.wide else frozenset())
        fill = method.prepared(part)

        def one(leaf: Leaf, fill: Callable[[Leaf, np.ndarray], None] = fill) -> None:
            values = np.empty(leaf.size, leaf.dtype)
            fill(leaf, values)
            write(leaf, values)

        on_all_cores(one, part.leaves())


def assigned(paths: Iterable[str], method: Method, groups: Groups) -> dict[str, Method]:
    """Returns the method of each leaf, by path.

    Args:
      paths: paths of the leaves.
      method: the method of leaves that no group matches.
      groups: other methods for some leaves.

    Raises:
      WsrError: if a group matches no leaf, or its pattern is not a regular expression.
    """
    try:
        patterns = [(re.compile(pattern), own) for pattern, own in groups]
    except re.error as error:
        raise WsrError(f"groups: {error.pattern!r} is not a regular expression: {error}") from error
    found = {path: next((own for pattern, own in patterns if pattern.search(path)), method) for path in paths}
    for pattern, _ in patterns:
        if not any(pattern.search(path) for path in found):
            raise WsrError(f"groups: no leaf matches {pattern.pattern!r}; a path looks like {min(found, default='')!r}")
    return found


def on_all_cores(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Calls a function on each item, with one thread per core; NumPy releases the interpreter lock.

    Args:
      work: the function.
      items: the items.

    Returns:
      The results, in order.
    """
    cores = usable_cores()
    with ThreadPoolExecutor(cores) as threads:
        return list(threads.map(work, items))


def refuse_missing(method: Method, given: Given) -> None:
    """Raises ``WsrError`` if the method needs data that was not given.

    Args:
      method: the method.
      given: the data.
    """
    told = {"dataset": "a dataset to choose on (--on)", "own": "the members' own datasets"}
    missing = [what for what in method.needs if not getattr(given, what)]
    if missing:
        raise WsrError(f"{name_of(type(method))} needs {' and '.join(told[what] for what in missing)}")
