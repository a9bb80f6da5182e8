"""Merges models leaf by leaf on all cores, with one method or with different methods for groups of leaves."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from wsr.errors import WsrError
from wsr.merging.ingredients import Ingredients, Leaf, Out, of_region
from wsr.merging.method import Given, Method, OfData, OfWeights, name_of
from wsr.runtime.cores import usable_cores
from wsr.runtime.printable import printable
from wsr.runtime.processes import in_processes, may_fork

if TYPE_CHECKING:
    from wsr.region.region import Region
    from wsr.types import Params

Groups = Sequence[tuple[str, Method]]
"""Pairs of a regular expression and a method; the first expression found in a leaf's path gives its method."""

OpenOut = Callable[[Leaf], AbstractContextManager[Any]]
"""Opens what a leaf is merged into, until it is filled."""


@overload
def merge(
    models: "Region | Mapping[str, Params]",
    method: Method,
    given: Given | None = None,
    *,
    base: "Params | None" = None,
    groups: Groups = (),
) -> dict[str, Any]: ...


@overload
def merge(
    models: Sequence[str | Path],
    method: Method,
    *,
    to: str | Path,
    base: str | Path | None = None,
    groups: Groups = (),
    dtype: str | None = None,
    force: bool = False,
) -> Path: ...


def merge(
    models: Any,
    method: Method,
    given: Given | None = None,
    *,
    base: Any = None,
    groups: Groups = (),
    to: str | Path | None = None,
    dtype: str | None = None,
    force: bool = False,
) -> dict[str, Any] | Path:
    """Merges models into one: members of a region, dicts of arrays, or Hugging Face folders and safetensors files.

    Folders and files are read and written in pieces, as a recipe reads and writes them; a merge that was killed
    resumes when it is called again. Dicts may be flat or nested, with arrays of NumPy, JAX or PyTorch.

    Args:
      models: a region, a dict from names to parameters, or a list of paths.
      method: the merge method. Methods that need texts merge a region.
      given: datasets and heads that the method needs besides the weights; for a region.
      base: what the models were fine-tuned from, parameters or a path like the models; a region has its own. Averages
        need none.
      groups: other methods for some leaves, as pairs of a regular expression on leaf paths and a method that needs only
        weights.
      to: for paths: the new folder.
      dtype: for paths: type of the result, such as ``"bfloat16"``; None: that of each tensor in the base, or in the
        first model.
      force: for paths: whether models may differ in config, vocabulary, classes and base.

    Returns:
      For a region, the encoder's parameters: float32, in host memory. For dicts, parameters of the same form and types.
      For paths, the new folder.

    Raises:
      WsrError: if the models do not fit together or do not fit the method, data that the method needs is missing, or a
        group matches no leaf.

    Example:
      >>> import numpy as np, wsr
      >>> region = wsr.made_up_region(3)
      >>> merged = wsr.merge(region, wsr.merging.Ties(density=0.3))
      >>> sorted(merged)
      ['embeddings', 'layers']
      >>> merged = wsr.merge(region, wsr.merging.Uniform(), groups=[("layers/1", wsr.merging.Karcher())])
      >>> base = {"weight": np.zeros(3), "bias": np.zeros(1)}
      >>> a, b = {"weight": np.array([1.0, -2.0, 0.0]), "bias": np.ones(1)}, {"weight": np.ones(3), "bias": np.ones(1)}
      >>> merged = wsr.merge({"a": a, "b": b}, wsr.merging.Ties(density=1.0), base=base)
      >>> merged["weight"].tolist()
      [1.0, -2.0, 1.0]
    """
    if isinstance(models, Mapping):
        _refuse_given(to=to, dtype=dtype, force=force or None, given=given)
        _refuse_texts(method, groups, "the members of a region")
        from wsr.merging.arrays import merge_params

        return merge_params(models, method, base, groups)
    if isinstance(models, str | Path):
        raise WsrError(f"merge: expected a list of paths, found the one path {models}")
    if isinstance(models, Sequence):
        _refuse_given(given=given)
        _refuse_texts(method, groups, "the members of a region")
        if to is None:
            raise WsrError("merge: paths are merged into a new folder; name it by to=")
        from wsr.merging.files import merge_paths

        for note in merge_paths(models, method, base, Path(to), groups=groups, dtype=dtype, force=force):
            print(printable(note))
        return Path(to)
    _refuse_given(base=base, to=to, dtype=dtype, force=force or None)
    return merge_region(models, method, given or Given(), groups)


def merge_region(region: "Region", method: Method, given: Given, groups: Groups) -> dict[str, Any]:
    """Merges the members of a region, see ``merge``.

    Args:
      region: the members.
      method: the merge method.
      given: the data that the method needs besides the weights.
      groups: other methods for some leaves.
    """
    from wsr.geometry.trees import flatten, nest

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
    ingredients: Ingredients,
    methods: Mapping[str, Method],
    write: Callable[[Leaf, Any], None],
    *,
    done: Collection[str] = (),
    out_of: OpenOut = lambda leaf: nullcontext(np.empty(leaf.size, leaf.dtype)),
    to_files: bool = False,
    coming: Callable[[Leaf], None] = lambda leaf: None,
) -> None:
    """Merges leaf by leaf and passes each result to ``write(leaf, out)``, from several threads and in any order.

    Leaves with equal methods are merged as one part; quantities that a method takes from a whole task vector come from
    that part. What is written to files is merged in forked processes if that is safe.

    Args:
      ingredients: the base and the members.
      methods: the method of each leaf, by path.
      write: receives each merged leaf as ``out_of`` made it, filled.
      done: paths of leaves that are not merged again.
      out_of: opens what a leaf is merged into; by default a flat array, float32, or float64 for a wide leaf and a
        method that can.
      to_files: whether ``out_of`` opens places in files; then ``write`` receives None in place of ``out``.
      coming: called in a forked process on the leaf that it merges after the next one.

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
        leaves = [leaf for leaf in part.leaves() if leaf.path not in done]
        if not leaves:
            continue
        fill = method.prepared(part)
        if to_files and not method.threaded and may_fork():
            in_processes(partial(_filled, fill, out_of), leaves, lambda leaf: write(leaf, None), coming)
        else:
            on_all_cores(partial(_written, fill, out_of, write), leaves)


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
      work: the function; it must not call ``on_all_cores``.
      items: the items.

    Returns:
      The results, in order.
    """
    from threadpoolctl import threadpool_limits

    items, cores = list(items), usable_cores()
    # BLAS shares the cores with these threads; with more threads than cores, each product waits for the others.
    each = max(1, cores // max(1, len(items)))
    with threadpool_limits(each, user_api="blas"), ThreadPoolExecutor(cores) as threads:
        return list(threads.map(work, items))


def refuse_missing(method: Method, given: Given) -> None:
    """Raises ``WsrError`` if the method needs data that was not given, or was given more datasets than it can use.

    Args:
      method: the method.
      given: the data.
    """
    told = {"dataset": "a dataset to choose on (--on)", "own": "the members' own datasets"}
    missing = [what for what in method.needs if not getattr(given, what)]
    if missing:
        raise WsrError(f"{name_of(type(method))} needs {' and '.join(told[what] for what in missing)}")
    if "dataset" in method.needs and len(given.datasets) > 1 and not getattr(method, "several", False):
        raise WsrError(
            f"{name_of(type(method))} chooses on one dataset, found {len(given.datasets)}: "
            f"{', '.join(own.name for own in given.datasets)}; --method=learned chooses on several"
        )
    if "dataset" in method.needs and not getattr(method, "of_decoders", False):
        from wsr.data.dataset import Dataset

        for own in given.datasets:
            if not isinstance(own, Dataset):
                raise WsrError(
                    f"{name_of(type(method))} chooses by a probe on a labelled dataset, found {own.name}, plain texts "
                    "or questions; --method=learned chooses on these too"
                )


def refuse_without_base(method: Method, groups: Groups, base: object) -> None:
    """Raises ``WsrError`` if a method needs a base and there is none.

    Args:
      method: the merge method.
      groups: other methods for some leaves.
      base: the base; None: there is none.
    """
    for own in (method, *(own for _, own in groups)):
        around = getattr(own, "around", "base")
        if base is None and around == "base" and isinstance(own, OfWeights) and own.based:
            raise WsrError(f"{name_of(type(own))} needs base=, what the models were fine-tuned from")


def _refuse_texts(method: Method, groups: Groups, what: str) -> None:
    for own in (method, *(own for _, own in groups)):
        if not isinstance(own, OfWeights):
            raise WsrError(f"{name_of(type(own))} needs texts: it merges {what}, see wsr.from_params")


def _refuse_given(**options: object) -> None:
    wrong = [f"{name}=" for name, value in options.items() if value is not None]
    if wrong:
        raise WsrError(f"merge: {', '.join(wrong)} does not go with such models; see help(wsr.merge)")


def _filled(fill: Callable[[Leaf, Out], None], out_of: OpenOut, leaf: Leaf) -> Any:
    with out_of(leaf) as out:
        fill(leaf, out)
    return out


def _written(
    fill: Callable[[Leaf, Out], None], out_of: OpenOut, write: Callable[[Leaf, Any], None], leaf: Leaf
) -> None:
    write(leaf, _filled(fill, out_of, leaf))
