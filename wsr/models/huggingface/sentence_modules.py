"""Which SentenceTransformers wsr keeps: a Transformer, then a Pooling, and any number of Dense and Normalize."""

import re
from collections.abc import Mapping
from pathlib import Path

from wsr.errors import WsrError
from wsr.models.huggingface.pooling import pooling_in
from wsr.models.model import Model
from wsr.runtime import strict_json
from wsr.runtime.model_folder import CONFIG, MODULES
from wsr.runtime.tensor_files import SINGLE

_KEPT = ("Transformer", "Pooling", "Normalize", "Dense")
_PACKAGE = "sentence_transformers."
_OF_MODULES = re.compile(r"modules\.json|.*sentence_[^/]*\.json|\d+_[^/]*/.*")


def lost_modules(files: Mapping[str, Path], model: Model) -> list[str]:
    """Returns why an export of a model cannot be the SentenceTransformer that ``files`` describe.

    Args:
      files: files of a model folder by relative path, with the weights of modules; without ``modules.json`` nothing is
        lost.
      model: the model to export.
    """
    if MODULES not in files:
        return []
    try:
        listed = strict_json.parse(files[MODULES].read_text(encoding="utf-8"))
        modules = [(str(module["type"]), str(module["path"])) for module in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{MODULES} cannot be read ({type(error).__name__})"]
    kinds = [kind.rpartition(".")[2] if kind.startswith(_PACKAGE) else kind for kind, _ in modules]
    lost = [f"its module {kind} is not kept" for kind in kinds if kind not in _KEPT]
    if kinds[:2] != ["Transformer", "Pooling"] or "Transformer" in kinds[1:] or "Pooling" in kinds[2:]:
        lost.append(f"its modules are {', '.join(kinds)}, not a Transformer, a Pooling and what follows them")
    wanted = {"Pooling": [CONFIG], "Dense": [CONFIG, SINGLE]}
    absent = [
        f"{path}/{name}"
        for kind, (_, path) in zip(kinds, modules, strict=True)
        for name in wanted.get(kind, ())
        if f"{path}/{name}" not in files
    ]
    if absent:
        lost.append(f"{', '.join(absent)} is missing, or is not the same in all members")
    for kind, (_, path) in zip(kinds, modules, strict=True):
        if kind == "Pooling" and f"{path}/{CONFIG}" in files:
            lost += _other_pooling(files[f"{path}/{CONFIG}"], model)
    return lost


def kept_files(files: Mapping[str, Path], model: Model) -> dict[str, Path]:
    """Returns those files that are true of an export: all, or those that do not describe a SentenceTransformer.

    Args:
      files: files of a model folder by relative path.
      model: the model to export.
    """
    lost = lost_modules(files, model)
    return {file: path for file, path in files.items() if not (lost and _OF_MODULES.fullmatch(file))}


def _other_pooling(file: Path, model: Model) -> list[str]:
    ours = model.config["pooling"]
    try:
        pooling = pooling_in(file)
    except WsrError as error:
        return [" ".join(str(error).split())]
    return [] if pooling == ours else [f"its pooling is {pooling} and that of the store is {ours}"]
