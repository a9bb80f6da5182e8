"""Which modules of a SentenceTransformer an export keeps: those without weights of their own."""

import re
from collections.abc import Mapping
from pathlib import Path

from wsr.errors import WsrError
from wsr.models.huggingface.pooling import POOLING_FILE, folder_pooling
from wsr.models.model import Model
from wsr.runtime import strict_json
from wsr.runtime.model_folder import MODULES

_KEPT = ("Transformer", "Pooling", "Normalize")
_OF_MODULES = re.compile(r"modules\.json|.*sentence_[^/]*\.json|\d+_[^/]*/.*")


def lost_modules(files: Mapping[str, Path], model: Model) -> list[str]:
    """Returns why an export of a model cannot be the SentenceTransformer that ``files`` describe.

    Args:
      files: files of a model folder by relative path; without ``modules.json`` nothing is lost.
      model: the model to export.
    """
    if MODULES not in files:
        return []
    try:
        modules = strict_json.parse(files[MODULES].read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{MODULES} cannot be read ({type(error).__name__})"]
    lost = [f"its module {kind} is not kept" for kind in kinds if kind not in _KEPT]
    file = files.get(str(POOLING_FILE))
    try:
        pooling = folder_pooling(file.parent.parent) if file else None
    except WsrError:
        pooling = None
    if pooling != model.config["pooling"]:
        lost.append(f"its pooling is {pooling or 'another'} and that of the store is {model.config['pooling']}")
    return lost


def kept_files(files: Mapping[str, Path], model: Model) -> dict[str, Path]:
    """Returns those files that are true of an export: all, or those that do not describe a SentenceTransformer.

    Args:
      files: files of a model folder by relative path.
      model: the model to export.
    """
    lost = lost_modules(files, model)
    return {file: path for file, path in files.items() if not (lost and _OF_MODULES.fullmatch(file))}
