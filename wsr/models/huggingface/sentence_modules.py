"""Which modules of a SentenceTransformer an export keeps: those without weights of their own."""

from collections.abc import Mapping
from pathlib import Path

from wsr.errors import WsrError
from wsr.models.huggingface.pooling import folder_pooling
from wsr.models.model import Model
from wsr.runtime import strict_json
from wsr.runtime.model_folder import MODULES

_KEPT = ("Transformer", "Pooling", "Normalize")


def lost_modules(folder: Path, model: Model) -> list[str]:
    """Returns why an export cannot be the SentenceTransformer of a folder; empty if it can or there is none.

    Args:
      folder: holds ``modules.json`` and the folders that it names, or not.
      model: the model to export.
    """
    path = folder / MODULES
    if not path.exists():
        return []
    try:
        modules = strict_json.parse(path.read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{MODULES} cannot be read ({type(error).__name__})"]
    lost = [f"the module {kind} has weights or code of its own" for kind in kinds if kind not in _KEPT]
    if "Pooling" not in kinds:
        return lost or ["it has no pooling"]
    try:
        pooling = folder_pooling(folder)
    except WsrError:
        pooling = None
    if pooling != model.config["pooling"]:
        lost.append(f"its pooling is {pooling or 'another'} and that of the store {model.config['pooling']}")
    return lost


def kept_files(files: Mapping[str, Path], model: Model) -> tuple[dict[str, Path], list[str]]:
    """Returns those companions that are true of an export, and what is lost.

    Args:
      files: companions by relative path.
      model: the model to export.
    """
    if MODULES not in files:
        return dict(files), []
    lost = lost_modules(files[MODULES].parent, model)
    if not lost:
        return dict(files), []
    of_modules = ("sentence_bert_config.json", "config_sentence_transformers.json", MODULES)
    return {file: path for file, path in files.items() if file not in of_modules and not _of_module(file)}, lost


def _of_module(file: str) -> bool:
    return "/" in file and file.partition("/")[0][:1].isdigit()
