"""Merges the safetensors files or store members that a recipe names, in pieces."""

import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.agreement import (
    config_differences,
    last_layer,
    other_base,
    rows_by_label,
    vocabulary_difference,
)
from wsr.exchange.door import Brought, open_model, open_modules
from wsr.merging.ingredients import Ingredients, OpenLeaf, ReadPiece, of_region
from wsr.merging.recipe import MergeRecipe
from wsr.merging.run import merge_leaves
from wsr.runtime.model_folder import (
    CONFIG,
    companions,
    copy_companions,
    read_json,
    settings_of_use,
    shared_files,
    with_dtype,
)
from wsr.runtime.tensor_files import FLOATS, NAMES, SINGLE, Tensor, TensorWriter, name_today

if TYPE_CHECKING:
    from wsr.region.region import Region

_COUNTED = re.compile(r"(^|\.)position_ids$")
"""Buffers that hold 0, 1, 2, ... and that some versions of transformers save and others do not."""


def merge_files(recipe: MergeRecipe, folder: Path, *, force: bool = False) -> list[str]:
    """Merges the safetensors files or folders that a recipe names into a new folder.

    All models must have tensors of the same names and shapes, one config, one vocabulary and one base. The files that
    belong to the first model (the base, if there is one) are copied, and settings that all members share. The folder
    appears only when it is complete.

    Args:
      recipe: the recipe; its models are paths.
      folder: the folder to write; it must not exist.
      force: whether models may differ in config, vocabulary, classes and base.

    Returns:
      What was adapted and, with ``force``, which differences were let through, for the user.

    Raises:
      WsrError: if a model is refused, the models do not fit together (the message lists the differences), a weight is
        NaN or infinite, a result is too large for its type, or the folder exists.
    """
    names = list(dict.fromkeys(([recipe.base_model] if recipe.base_model else []) + list(recipe.members)))
    models = {name: open_model(Path(name)) for name in names}
    tensors, notes = _alike({name: _tensors_of(model) for name, model in models.items()})
    models = {name: Brought(model.path, tensors[name], model.config) for name, model in models.items()}
    first = models[names[0]]
    rows, more = _agreed(first, [models[name] for name in names[1:]], force=force)
    notes += more
    openers = {name: partial(_open, model, rows.get(str(model.path), {})) for name, model in models.items()}
    floats = {name: tensor.shape for name, tensor in first.tensors.items() if tensor.dtype in FLOATS}
    forms = {
        name: (recipe.dtype if recipe.dtype and name in floats else tensor.dtype, tensor.shape)
        for name, tensor in first.tensors.items()
    }
    wide = frozenset(name for name, (dtype, _) in forms.items() if dtype == "F64")
    ingredients = Ingredients(
        _told_apart(recipe.members),
        floats,
        openers[recipe.base_model] if recipe.base_model else None,
        tuple(openers[name] for name in recipe.members),
        stored="weights",
        inputs_first=False,
        wide=wide,
    )
    methods = {path: recipe.method(path) for path in floats}
    given = {path for path in wide if any(own.tensors[path].dtype == "F64" for own in models.values())}
    rounded = [path for path in given if not getattr(methods[path], "wide", False)]
    if rounded:
        notes.append(f"{recipe.merge_method} computes in float32: {len(rounded)} float64 tensors were rounded to it")
    if folder.exists():
        raise WsrError(f"{folder} already exists; choose another folder")
    scratch = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        scratch.mkdir(parents=True)
        with ExitStack() as stack:
            write = _writers(stack, scratch, forms)
            for name in set(forms) - set(floats):
                write(name, first.tensors[name].raw())
            merge_leaves(ingredients, methods, lambda leaf, values: write(leaf.path, values))
        _copy_companions(first, [models[name] for name in recipe.members], scratch, forms)
        os.rename(scratch, folder)
    except OSError as error:
        raise WsrError(f"{folder} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return notes


def merge_members(recipe: MergeRecipe, region: "Region", base_name: str) -> dict[str, Any]:
    """Merges the members of a region that a recipe names; the recipe's filters apply to this package's leaf paths.

    Args:
      recipe: the recipe; its models are names of members, ``base``, or the base's own name.
      region: the members of a store.
      base_name: the store's name for its base.

    Returns:
      The merged parameters: float32, in host memory.

    Raises:
      WsrError: if the recipe names a member that the region lacks, or another base.
    """
    from wsr.geometry.trees import nest

    bases = {"base", base_name, base_name.removeprefix("./")}
    if recipe.base_model is not None and recipe.base_model not in bases:
        raise WsrError(
            f"{recipe.path}: base_model: {recipe.base_model}: expected the store's base, {base_name} or simply base"
        )
    absent = [name for name in recipe.members if name not in region.names and name not in bases]
    if absent:
        raise WsrError(
            f"{recipe.path}: the store has no member {', '.join(absent)}; it has {', '.join(region.names[:5])} ..."
        )
    whole = of_region(region)
    openers: dict[str, OpenLeaf] = dict(zip(region.names, whole.members, strict=True))
    ingredients = Ingredients(
        recipe.members, whole.shapes, whole.base, tuple(openers.get(name, _no_task_vector) for name in recipe.members)
    )
    merged = {path: np.empty(shape, np.float32) for path, shape in whole.shapes.items()}
    methods = {path: recipe.method(path) for path in merged}
    merge_leaves(ingredients, methods, lambda leaf, values: np.copyto(merged[leaf.path], values.reshape(leaf.shape)))
    return nest(merged)


def _tensors_of(model: Brought) -> dict[str, Tensor]:
    return {**model.tensors, **(open_modules(model.path) if model.path.is_dir() else {})}


def _alike(models: Mapping[str, Mapping[str, Tensor]]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Returns the tensors of each model under the names of the first model's, and what was adapted."""
    notes = []
    (first_name, first), *_ = models.items()
    counted = {name for own in models.values() for name in own if _COUNTED.search(name)}
    partly = {name for name in counted if not all(name in own for own in models.values())}
    if partly:
        notes.append(f"left out, because not every model has it and it is not learned: {', '.join(sorted(partly))}")
    known = {name_today(name): name for name in first}
    found = {}
    for model, tensors in models.items():
        own = {name if name in first else known.get(name_today(name), name): at for name, at in tensors.items()}
        renamed = len(own.keys() - tensors.keys())
        if renamed:
            notes.append(f"{renamed} tensors of {model} have the names of another version; they were matched")
        if len(own) != len(tensors):
            raise WsrError(f"{model}: tensors under an old and a new name, such as gamma and weight; keep one of each")
        found[model] = {name: at for name, at in own.items() if name not in partly}
    _refuse_other_shapes(found)
    return {model: {name: own[name] for name in found[first_name]} for model, own in found.items()}, notes


def _refuse_other_shapes(models: Mapping[str, Mapping[str, Tensor]]) -> None:
    first_name, first = next(iter(models.items()))
    problems = []
    for name, tensors in models.items():
        problems += [f"{path} is in {first_name} but not in {name}" for path in first if path not in tensors]
        problems += [f"{path} is in {name} but not in {first_name}" for path in tensors if path not in first]
        for path in first.keys() & tensors.keys():
            if tensors[path].shape != first[path].shape:
                problems.append(f"{path} is {first[path].shape} in {first_name} and {tensors[path].shape} in {name}")
            elif not {first[path].dtype, tensors[path].dtype} <= FLOATS.keys() and not np.array_equal(
                first[path].whole(), tensors[path].whole()
            ):
                problems.append(f"{path} is not a float tensor and differs between {first_name} and {name}")
    if problems:
        more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
        raise WsrError(f"the models do not fit together: {'; '.join(problems[:8])}{more}; import them into a store")


def _agreed(
    first: Brought, others: Sequence[Brought], *, force: bool
) -> tuple[dict[str, dict[str, list[int]]], list[str]]:
    """Returns the order of rows to read by model and tensor, where it is another, and notes; raises if one differs."""
    rows: dict[str, dict[str, list[int]]] = {}
    problems, notes = [], []
    for other in others:
        problems += config_differences(first, other)
        problems += [told for told in (vocabulary_difference(first, other), other_base(first, other)) if told]
        order = rows_by_label(first, other)
        if isinstance(order, str):
            problems.append(order)
        elif order:
            rows[str(other.path)] = dict.fromkeys(last_layer(first), order)
            notes.append(f"the classes of {other} stand in another order than in {first}: matched by their names")
    told = "; ".join(problems[:8]) + (f" (and {len(problems) - 8} more)" if len(problems) > 8 else "")
    if problems and not force:
        raise WsrError(f"the models do not compute alike: {told}; --force merges them all the same")
    return rows, notes + ([f"let through by --force: {told}"] if problems else [])


def _told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """Returns the names, numbered from the second time on that one is listed: random draws depend on the name."""
    times: Counter[str] = Counter()
    found = []
    for name in names:
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return tuple(found)


def _open(model: Brought, rows: Mapping[str, list[int]], path: str) -> ReadPiece:
    tensor = model.tensors[path]

    def read(start: int, out: np.ndarray) -> None:
        tensor.read(start, out)
        if not np.isfinite(out).all():
            raise WsrError(f"{model}: a broken run: NaN or infinity in {path}; leave this model out")

    if path not in rows:
        return read
    whole = np.empty(tensor.size, np.float64)
    read(0, whole)
    ordered = whole.reshape(tensor.shape)[rows[path]].reshape(-1)

    def copy(start: int, out: np.ndarray) -> None:
        out[:] = ordered[start : start + out.size]

    return copy


def _no_task_vector(path: str) -> ReadPiece:
    return lambda start, out: out.fill(0)


def _writers(stack: ExitStack, folder: Path, forms: Mapping[str, tuple[str, tuple[int, ...]]]) -> Any:
    """Returns ``write(name, values)`` for the tensors of the model and those of its modules, one file for each."""
    files: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {"": {}}
    for name, form in forms.items():
        module, _, own = name.rpartition("/")
        files.setdefault(module, {})[own] = form
    for module in files:
        (folder / module).mkdir(exist_ok=True)
    writers = {
        module: stack.enter_context(TensorWriter(folder / module / SINGLE, own)) for module, own in files.items()
    }

    def write(name: str, values: np.ndarray) -> None:
        module, _, own = name.rpartition("/")
        writers[module].put(own, values)

    return write


def _copy_companions(
    first: Brought, members: Sequence[Brought], folder: Path, forms: Mapping[str, tuple[str, tuple[int, ...]]]
) -> None:
    files = companions(first.path) | shared_files([settings_of_use(member.path) for member in members])
    copy_companions(files, folder)
    entries: Counter[str] = Counter()
    for dtype, shape in forms.values():
        entries[dtype] += int(np.prod(shape)) if dtype in FLOATS else 0
    if (folder / CONFIG).exists() and entries:
        config = with_dtype(read_json(folder / CONFIG), NAMES[entries.most_common(1)[0][0]])
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
