"""Merges safetensors files and Hugging Face folders in pieces, by a recipe or by one method."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.door import Brought, open_modules
from wsr.exchange.vocabulary import under_one_vocabulary, write_vocabulary
from wsr.merging.adapters import located, open_named, parted
from wsr.merging.fitting import alike, of_other_bases, refuse_unlike, reordered, unlike
from wsr.merging.ingredients import Ingredients, OpenLeaf, ReadPiece, of_region
from wsr.merging.method import Method, name_of
from wsr.merging.recipe import DTYPES, MergeRecipe
from wsr.merging.run import Groups, assigned, merge_leaves, refuse_without_base
from wsr.merging.slices import Slice, depths, taken, with_layers, without_layers
from wsr.merging.unfinished import unfinished
from wsr.merging.writing import Form, Part, write_parts
from wsr.runtime.model_folder import (
    CONFIG,
    companions,
    copy_companions,
    read_json,
    settings_of_use,
    shared_files,
    with_dtype,
)
from wsr.runtime.read_ahead import ReadAhead
from wsr.runtime.tensor_files import FLOATS, NAMES, Tensor

if TYPE_CHECKING:
    from wsr.region.region import Region

AHEAD = 2**24
"""Entries of a tensor that the disk is asked for before they are read piece by piece."""
_STAGE = ".merged_by"
"""Name of the file in the folder of a finished stage that says what it is merged of."""


def merge_files(
    recipe: MergeRecipe, folder: Path, *, force: bool = False, tokenizer: str | None = None, card: str | None = None
) -> list[str]:
    """Merges the safetensors files or folders that a recipe names into a new folder.

    All models must have tensors of the same names and shapes, one config, one vocabulary and one base. The files that
    belong to the first model (the base, if there is one) are copied, and settings that all members share. The folder
    appears only when it is complete. A merge that was killed resumes when it is run again.

    Args:
      recipe: the recipe; its models are paths, ``BASE+ADAPTER`` or names of its stages.
      folder: the folder to write; it must not exist.
      force: whether models may differ in config, vocabulary, classes and base.
      tokenizer: the vocabulary of the result if the models have different ones: ``base``, ``union`` or a folder with a
        tokenizer; None: they must have one.
      card: text of the model card, README.md; None: no card.

    Returns:
      What was adapted and, with ``force``, which differences were let through, for the user.

    Raises:
      WsrError: if a model is refused, the models do not fit together (the message lists the differences), a weight is
        NaN or infinite, a result is too large for its type, or the folder exists.
    """
    if folder.exists():
        raise WsrError(f"{folder} already exists; choose another folder")
    scratch = folder.with_name(f".{folder.name}.stages")
    notes: list[str] = []
    written: dict[str, str] = {}
    merge_slices = partial(_merge_slices, force=force, tokenizer=tokenizer)
    try:
        for number, stage in enumerate(recipe.stages):
            made, place = stage.slices_of(written), scratch / str(number)
            notes += merge_slices(made, place, stage.dtype, stage.merge_method, reuse=True)
            written[stage.name] = str(place)
        notes += merge_slices(recipe.slices_of(written), folder, recipe.dtype, recipe.merge_method, card=card)
    except Exception:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    shutil.rmtree(scratch, ignore_errors=True)
    return list(dict.fromkeys(notes))


def merge_paths(
    models: Sequence[str | Path],
    method: Method,
    base: str | Path | None,
    folder: Path,
    *,
    groups: Groups = (),
    dtype: str | None = None,
    force: bool = False,
    card: str | None = None,
) -> list[str]:
    """Merges safetensors files or folders by one method, as ``merge_files`` does by a recipe.

    Args:
      models: folders or files.
      method: a method that needs only weights.
      base: what the models were fine-tuned from; None if the method needs no base.
      folder: the folder to write; it must not exist.
      groups: other methods for some tensors.
      dtype: type of the result, such as ``"bfloat16"``; None: that of each tensor in the first model.
      force: whether models may differ in config, vocabulary, classes and base.
      card: text of the model card, README.md; None: no card.

    Returns:
      Notes for the user, see ``merge_files``.

    Raises:
      WsrError: see ``merge_files``.
    """
    refuse_without_base(method, groups, base)
    if dtype is not None and dtype not in DTYPES:
        raise WsrError(f"merge: dtype = {dtype!r}; expected one of {', '.join(DTYPES)}")
    if folder.exists():
        raise WsrError(f"{folder} already exists; choose another folder")
    names = tuple(map(str, models))
    tensors = open_named(names[0]).tensors if names and groups else {}
    floats = [name for name, tensor in tensors.items() if tensor.dtype in FLOATS]
    own = assigned(floats, method, groups) if groups else {}
    method.refuse_members(names)
    whole = Slice(names, None if base is None else str(base), lambda name, depth, names: own.get(name, method))
    kind = DTYPES[dtype] if dtype else None
    return _merge_slices([whole], folder, kind, name_of(type(method)), force=force, card=card)


def merge_members(recipe: MergeRecipe, region: "Region", base_name: str) -> dict[str, Any]:
    """Merges the members of a region that a recipe names; the recipe's filters apply to this package's leaf paths.

    Args:
      recipe: the recipe; its models are names of members, ``base``, or the base's own name.
      region: the members of a store.
      base_name: the store's name for its base.

    Returns:
      The merged parameters: float32, in host memory.

    Raises:
      WsrError: see ``methods_of_members``.
    """
    from wsr.geometry.trees import nest

    methods = methods_of_members(recipe, region, base_name)
    whole = of_region(region)
    openers: dict[str, OpenLeaf] = dict(zip(region.names, whole.members, strict=True))
    ingredients = Ingredients(
        recipe.members, whole.shapes, whole.base, tuple(openers.get(name, _no_task_vector) for name in recipe.members)
    )
    merged = {path: np.empty(shape, np.float32) for path, shape in whole.shapes.items()}
    merge_leaves(ingredients, methods, lambda leaf, values: np.copyto(merged[leaf.path], values.reshape(leaf.shape)))
    return nest(merged)


def methods_of_members(recipe: MergeRecipe, region: "Region", base_name: str) -> dict[str, Method]:
    """Returns the method of each leaf of a region by a recipe that names its members.

    Args:
      recipe: the recipe; its models are names of members, ``base``, or the base's own name.
      region: the members of a store.
      base_name: the store's name for its base.

    Raises:
      WsrError: if the recipe names a member that the region lacks, or another base, or has slices or stages.
    """
    (own, *rest) = recipe.slices_of({})
    if recipe.stages or rest or own.layers is not None:
        raise WsrError(f"{recipe.path}: slices and stages merge files; with --store, list models")
    bases = {"base", base_name, base_name.removeprefix("./")}
    if own.base is not None and own.base not in bases:
        raise WsrError(f"{recipe.path}: base_model: {own.base}: expected the store's base, {base_name} or simply base")
    absent = [name for name in own.members if name not in region.names and name not in bases]
    if absent:
        raise WsrError(
            f"{recipe.path}: the store has no member {', '.join(absent)}; it has {', '.join(region.names[:5])} ..."
        )
    shapes = of_region(region).shapes
    return {path: own.method(path, depth, [path] * len(own.members)) for path, depth in depths(shapes).items()}


def _merge_slices(
    slices: Sequence[Slice],
    folder: Path,
    dtype: str | None,
    method: str,
    *,
    force: bool,
    reuse: bool = False,
    tokenizer: str | None = None,
    card: str | None = None,
) -> list[str]:
    """Writes the folder; with ``reuse``, keeps one that an equal merge has written. Returns notes."""
    names = dict.fromkeys(name for own in slices for name in own.models)
    models, target = {name: open_named(name) for name in names}, None
    if tokenizer is not None:
        models, target = under_one_vocabulary(models, tokenizer, based=slices[0].base is not None)
    first = next(iter(models.values()))
    sliced = slices[0].layers is not None
    config = with_layers({n: own.config or {} for n, own in models.items()}, slices) if sliced else first.config
    if sliced:
        models = {name: replace(own, config=without_layers(own.config)) for name, own in models.items()}
    own, *others = models.values()
    problems = [told for other in others for told in unlike(own, other, one_vocabulary=target is not None)]
    parts, notes = [], []
    ahead = ReadAhead(sum(tensor.bytes for model in models.values() for tensor in model.tensors.values()))
    for number in range(len(slices)):
        part, more, wrong = _opened(models, slices, number, dtype, ahead)
        parts.append(part)
        notes += more
        problems += wrong
    notes += refuse_unlike(problems, force=force)
    rounded = sum(part.rounded for part in parts)
    if rounded:
        notes.append(f"{method} computes in float32: {rounded} float64 tensors were rounded to it")
    identity = _identity(parts, models, dtype, tokenizer)
    if reuse and (folder / _STAGE).exists() and (folder / _STAGE).read_text() == identity:
        return notes
    with unfinished(folder, identity) as scratch:
        forms = write_parts(parts, scratch, dtype)
        _copy_companions(first, [models[name] for own in slices for name in own.members], config, scratch.path, forms)
        if target is not None:
            write_vocabulary(target, first, scratch.path)
        if card is not None:
            (scratch.path / "README.md").write_text(card, encoding="utf-8")
        if reuse:
            shutil.rmtree(folder, ignore_errors=True)
            (scratch.path / _STAGE).write_text(identity)
        scratch.complete()
    return notes


def _opened(
    models: Mapping[str, Brought], slices: Sequence[Slice], number: int, dtype: str | None, ahead: ReadAhead
) -> tuple[Part, list[str], list[str]]:
    """Returns a slice ready to be merged, what was adapted, and what does not agree."""
    own = slices[number]
    every = {name: _tensors_of(models[name]) for name in own.models}
    origins = {name: taken(name, tensors, slices, number) for name, tensors in every.items()}
    placed = {name: {new: every[name][old] for new, old in origin.items()} for name, origin in origins.items()}
    tensors, notes = alike(placed)
    opened = {name: replace(models[name], tensors=tensors[name]) for name in own.models}
    first, *others = opened.values()
    rows, more, problems = reordered(first, others)
    # Slices may merge layers of other numbers: the base shows where the numbers are the same.
    beside = [models[name] for name in own.models] if own.layers else [first, *others]
    problems += of_other_bases(beside[0], beside[1:])
    openers = {name: _opener(model, rows.get(str(model.path), {}), ahead) for name, model in opened.items()}
    floats = {name: tensor.shape for name, tensor in first.tensors.items() if tensor.dtype in FLOATS}
    wide = frozenset(name for name in floats if (dtype or first.tensors[name].dtype) == "F64")
    ingredients = Ingredients(
        _told_apart(own.members),
        floats,
        openers[own.base] if own.base else None,
        tuple(openers[name] for name in own.members),
        stored="weights",
        inputs_first=False,
        wide=wide,
    )
    methods = {
        name: own.method(name, depth, [origins[member].get(name, name) for member in own.members])
        for name, depth in depths(floats).items()
    }
    given = {name for name in wide if any(model.tensors[name].dtype == "F64" for model in opened.values())}
    rounded = sum(not getattr(methods[name], "wide", False) for name in given)
    tensors_of_models = tuple(model.tensors for model in opened.values())
    return Part(ingredients, methods, tensors_of_models, ahead, rounded), notes + more, problems


def _identity(parts: Sequence[Part], models: Mapping[str, Brought], dtype: str | None, tokenizer: str | None) -> str:
    """A hash of what is merged and how: the files of the models, the method of each tensor, and this package."""
    from wsr import __version__

    files = {tensor.file for model in models.values() for tensor in _tensors_of(model).values()}
    for name in models:
        adapter = parted(name)[1]
        files |= set(located(adapter).glob("*")) if adapter else set()
    content = {
        "version": __version__,
        "files": sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files),
        "dtype": dtype,
        "tokenizer": tokenizer,
        "parts": [
            [part.ingredients.names, sorted((name, repr(method)) for name, method in part.methods.items())]
            for part in parts
        ],
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _tensors_of(model: Brought) -> dict[str, Tensor]:
    return {**model.tensors, **(open_modules(model.path) if model.path.is_dir() else {})}


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names, numbered from the second time on that one is listed: random draws depend on the name."""
    times: Counter[str] = Counter()
    found = []
    for name in names:
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return tuple(found)


def _opener(model: Brought, rows: Mapping[str, list[int]], ahead: ReadAhead) -> OpenLeaf:
    """Returns what opens the leaves of a model, some of them with their rows in another order."""
    finite: set[str] = set()  # leaves that were read to their ends, which need no other check

    def open_leaf(path: str) -> ReadPiece:
        tensor, expected = ahead.of(model.tensors[path]), 0

        def read(start: int, out: np.ndarray) -> None:
            nonlocal expected
            if start + out.size > expected:
                tensor.will_read(expected, min(AHEAD, tensor.size - expected))
                expected += AHEAD
            tensor.read(start, out)
            if path in finite:
                return
            if not np.isfinite(out).all():
                raise WsrError(f"{model}: a broken run: NaN or infinity in {path}; leave this model out")
            if start + out.size == tensor.size:
                finite.add(path)

        if path not in rows:
            return read
        whole = np.empty(tensor.size, np.float64)
        read(0, whole)
        ordered = whole.reshape(tensor.shape)[rows[path]].reshape(-1)

        def copy(start: int, out: np.ndarray) -> None:
            out[:] = ordered[start : start + out.size]

        return copy

    return open_leaf


def _no_task_vector(path: str) -> ReadPiece:
    return lambda start, out: out.fill(0)


def _copy_companions(
    first: Brought,
    members: Sequence[Brought],
    config: Mapping[str, Any] | None,
    folder: Path,
    forms: Mapping[str, Form],
) -> None:
    files = companions(first.path) | shared_files([settings_of_use(member.path) for member in members])
    copy_companions(files, folder)
    entries: Counter[str] = Counter()
    for dtype, shape in forms.values():
        entries[dtype] += int(np.prod(shape)) if dtype in FLOATS else 0
    if (folder / CONFIG).exists() and entries:
        content = with_dtype({**read_json(folder / CONFIG), **(config or {})}, NAMES[entries.most_common(1)[0][0]])
        (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
