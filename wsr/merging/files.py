"""Merges the safetensors files or store members that a recipe names, in pieces."""

import os
import secrets
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wsr.errors import WsrError
from wsr.merging.ingredients import Ingredients, OpenLeaf, ReadPiece, of_region
from wsr.merging.recipe import MergeRecipe
from wsr.merging.run import merge_leaves
from wsr.merging.tensor_files import FLOATS, SINGLE, Tensor, TensorWriter, open_tensors

if TYPE_CHECKING:
    from wsr.region.region import Region

Tensors = Mapping[str, Tensor]


def merge_files(recipe: MergeRecipe, folder: Path) -> None:
    """Merges the safetensors files or folders that a recipe names into a new folder.

    All models must have tensors of the same names and shapes. Configs and tokenizer files beside the base are copied.
    The folder appears only when it is complete.

    Args:
      recipe: the recipe; its models are paths.
      folder: the folder to write; it must not exist.

    Raises:
      WsrError: if the models' tensors differ (the message lists the differences), or the folder exists.
    """
    names = ([recipe.base_model] if recipe.base_model else []) + list(recipe.members)
    models = {name: open_tensors(Path(name)) for name in names}
    first = models[names[0]]
    _refuse_differences(models)
    floats = {name: tensor.shape for name, tensor in first.items() if tensor.dtype in FLOATS}
    ingredients = Ingredients(
        recipe.members,
        floats,
        partial(_open, models[recipe.base_model]) if recipe.base_model else None,
        tuple(partial(_open, models[name]) for name in recipe.members),
        stored="weights",
        inputs_first=False,
    )
    methods = {path: recipe.method(path) for path in floats}
    if folder.exists():
        raise WsrError(f"{folder} already exists; choose another folder")
    scratch = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    try:
        scratch.mkdir(parents=True)
        forms = {
            name: (recipe.dtype if recipe.dtype and name in floats else tensor.dtype, tensor.shape)
            for name, tensor in first.items()
        }
        with TensorWriter(scratch / SINGLE, forms) as writer:
            for name in set(first) - set(floats):
                writer.put(name, first[name].raw())
            merge_leaves(ingredients, methods, lambda leaf, values: writer.put(leaf.path, values))
        _copy_companions(Path(names[0]), scratch)
        os.rename(scratch, folder)
    except OSError as error:
        raise WsrError(f"{folder} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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

    bases = {"base", base_name}
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


def _open(tensors: Tensors, path: str) -> ReadPiece:
    return tensors[path].read


def _no_task_vector(path: str) -> ReadPiece:
    return lambda start, out: out.fill(0)


def _refuse_differences(models: Mapping[str, Tensors]) -> None:
    first_name, first = next(iter(models.items()))
    problems = []
    for name, tensors in models.items():
        problems += [f"{path} is in {first_name} but not in {name}" for path in first if path not in tensors]
        problems += [f"{path} is in {name} but not in {first_name}" for path in tensors if path not in first]
        for path in first.keys() & tensors.keys():
            if tensors[path].shape != first[path].shape:
                problems.append(f"{path} is {first[path].shape} in {first_name} and {tensors[path].shape} in {name}")
            elif not {first[path].dtype, tensors[path].dtype} <= FLOATS.keys() and not np.array_equal(
                first[path].raw(), tensors[path].raw()
            ):
                problems.append(f"{path} is not a float tensor and differs between {first_name} and {name}")
    if problems:
        more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
        raise WsrError(
            f"recipe: the models do not fit together: {'; '.join(problems[:8])}{more}; import them into a store"
        )


def _copy_companions(source: Path, folder: Path) -> None:
    if not source.is_dir():
        return
    for file in [*source.glob("*"), *source.glob("1_Pooling/*")]:
        if file.is_file() and file.suffix in (".json", ".txt", ".model") and ".index." not in file.name:
            (folder / file.relative_to(source)).parent.mkdir(exist_ok=True)
            shutil.copyfile(file, folder / file.relative_to(source))
