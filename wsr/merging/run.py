"""A population under a method, or each part of it under its own; leaf by leaf, on all cores."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.errors import WsrError
from wsr.merging.ingredients import Ingredients, Leaf, of_region
from wsr.merging.method import Given, Method, OfData, OfWeights, name_of
from wsr.runtime.cores import usable_cores

if TYPE_CHECKING:
    from wsr.region.region import Region

Groups = Sequence[tuple[str, Method]]
"""Regular expressions on leaf paths, each with its method; the first that is found in a path says how it is merged."""


def merge(region: "Region", method: Method, given: Given | None = None, *, groups: Groups = ()) -> dict[str, Any]:
    """Returns the merged encoder's parameters: float32, in host memory.

    Args:
      region: the members; weights-only methods read them in pieces.
      method: how.
      given: what the method needs beside the weights.
      groups: other methods for some leaves; weights-only ones.

    Raises:
      WsrError: too few members, something that the method needs and that is not given, a group without a leaf.
    """
    from wsr.geometry.trees import flatten, nest

    given = given or Given()
    method.refuse_members(region.names)
    refuse_missing(method, given)
    if isinstance(method, OfData):
        if groups:
            raise WsrError(
                f"{name_of(type(method))} merges all leaves together: groups are for methods of weights alone"
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
    """Merges leaf by leaf and hands each to ``write(leaf, values)``, from several threads, in no particular order.

    Leaves of equal methods are merged as one part: what a method asks of the whole task vector, it asks of that part.
    """
    parts: dict[Method, list[str]] = {}
    for path in ingredients.shapes:
        parts.setdefault(methods[path], []).append(path)
    for method, paths in parts.items():
        method.refuse_members(ingredients.names)
        if not isinstance(method, OfWeights):
            raise WsrError(f"{name_of(type(method))} needs texts, not weights alone")
        part = ingredients.part(paths)
        fill = method.prepared(part)

        def one(leaf: Leaf, fill: Callable[[Leaf, np.ndarray], None] = fill) -> None:
            values = np.empty(leaf.size, np.float32)
            fill(leaf, values)
            write(leaf, values)

        on_all_cores(one, part.leaves())


def assigned(paths: Iterable[str], method: Method, groups: Groups) -> dict[str, Method]:
    """Returns the method of each leaf; raises where a group has none."""
    try:
        patterns = [(re.compile(pattern), own) for pattern, own in groups]
    except re.error as error:
        raise WsrError(f"groups: {error.pattern!r} is no regular expression: {error}") from error
    found = {path: next((own for pattern, own in patterns if pattern.search(path)), method) for path in paths}
    for pattern, _ in patterns:
        if not any(pattern.search(path) for path in found):
            raise WsrError(f"groups: no leaf matches {pattern.pattern!r}; a path looks like {min(found, default='')!r}")
    return found


def on_all_cores(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Calls ``work`` on each item, from as many threads as there are cores; NumPy lets them run side by side."""
    cores = usable_cores()
    with ThreadPoolExecutor(cores) as threads:
        return list(threads.map(work, items))


def refuse_missing(method: Method, given: Given) -> None:
    """Raises naming what the method needs and was not given."""
    told = {"dataset": "a dataset to choose on (--on)", "own": "the members' own datasets"}
    missing = [what for what in method.needs if not getattr(given, what)]
    if missing:
        raise WsrError(f"{name_of(type(method))} needs {' and '.join(told[what] for what in missing)}")
