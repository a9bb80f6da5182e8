"""What of a model folder may be read and passed on: no links out of it, no code, no pickles, no state of a training."""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.runtime import strict_json
from wsr.runtime.tensor_files import INDEX, PICKLED, SINGLE

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
BASE_HEAD = "base_head.safetensors"
"""What a store keeps of its base's head: an adapter may lack layers of the head that it was trained with."""
MODULES = "modules.json"
"""Lists the modules of a SentenceTransformer, with the folder of each."""
SENTENCEPIECE_FILES = ("spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model")
"""SentencePiece models: of ALBERT, T5 and SigLIP, of DeBERTa, of XLM-RoBERTa, of Llama and Gemma."""
_OTHER_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
TOKENIZER_FILES = (*_OTHER_VOCABULARIES, *SENTENCEPIECE_FILES)
"""Files of which a tokenizer needs one."""
MOST_LABELS = 1_000_000
"""Largest number of classes that a config may name."""
_OF_TRANSFORMER = (SINGLE, INDEX, *(f"pytorch_model{ending}" for ending in PICKLED))
_TEMPLATES = "additional_chat_templates"
_WEIGHTS = (*PICKLED, ".safetensors", ".h5", ".msgpack", ".onnx", ".gguf", ".npz", ".npy", ".tflite", ".ot")
_CODE = (
    *(".py", ".pyc", ".pyd", ".ipynb", ".sh", ".bash", ".so", ".dylib", ".dll", ".exe", ".bat", ".cmd", ".ps1", ".vbs"),
    *(".js", ".mjs", ".ts", ".wasm", ".jar", ".pl", ".rb", ".lua", ".php"),
)
_CODE_BEGINS = (
    b"#!",
    b"\x7fELF",
    b"MZ\x90\x00",
    b"\x00asm",
    b"\x80\x02",
    b"\x80\x03",
    b"\x80\x04",
    b"\x80\x05",
    b"PK\x03\x04",
)
"""First bytes of scripts, programs, pickles and zip files, which PyTorch's pickles are."""
_TRAINING = ("trainer_state.json", "training_args.json", "all_results.json", "train_results.json", "eval_results.json")
_LEFT = (INDEX, *_TRAINING)
_OF_USE = re.compile(r"generation_config\.json|.*\.jinja|chat_template\.json|modules\.json|.*sentence_.*\.json")


def refuse_links(folder: Path, *, deep: bool = False) -> None:
    """Raises ``WsrError`` if a link in ``folder`` leads out of it; the hub's cache, which consists of links, may do so.

    A folder may come from a stranger: a link must not pass another file of this machine off as its content. Two levels
    of the folder are looked at, or with ``deep`` all.
    """
    inside = [folder.resolve()]
    if inside[0].parent.name == "snapshots":  # the cache keeps file contents in blobs/, beside snapshots/
        inside.append(inside[0].parent.parent / "blobs")
    entries = folder.rglob("*") if deep else [*folder.glob("*"), *folder.glob("*/*")]
    outside = sorted(
        str(entry.relative_to(folder))
        for entry in entries
        if entry.is_symlink() and not any(_target(entry).is_relative_to(place) for place in inside)
    )
    if outside:
        raise WsrError(
            f"{folder}: links out of the folder are not followed: {', '.join(outside)}; copy the files into it"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in the file ``path``; raises ``WsrError`` if there is none."""
    try:
        content = strict_json.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WsrError(f"{path}: no such file; expected a Hugging Face model folder") from error
    except (OSError, ValueError) as error:
        raise WsrError(f"{path}: not readable as JSON: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise WsrError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_config_file(path: Path) -> dict[str, Any]:
    """Returns the content of a config.json.

    Raises:
      WsrError: if it is no JSON object, or a value that transformers acts upon unchecked is of another kind.
    """
    config = read_json(path)
    classes, labels, count = (config.get(name) for name in ("architectures", "id2label", "num_labels"))
    wrong = []
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        wrong.append(f"architectures = {classes!r}, expected a list of names")
    if labels is not None and not (isinstance(labels, dict) and all(number.isdecimal() for number in labels)):
        wrong.append(f"id2label = {labels!r}, expected a table from whole numbers to names")
    if isinstance(count, int) and count > MOST_LABELS:  # each gets a name, which would fill the memory
        wrong.append(f"num_labels = {count}, expected at most {MOST_LABELS}")
    if wrong:
        raise WsrError(f"{path}: not a valid config: {'; '.join(wrong)}")
    return config


def transformer_folder(folder: Path) -> Path:
    """Returns where config, tokenizer and weights lie: in ``folder``, or in a SentenceTransformer's ``0_Transformer``.

    Args:
      folder: a Hugging Face folder.

    Raises:
      WsrError: if modules.json does not list modules, or names a folder outside ``folder``.
    """
    if (folder / CONFIG).exists() or not (folder / MODULES).exists():
        return folder
    inside = [folder / name for name in _paths_of_modules(folder) if name and (folder / name / CONFIG).exists()]
    return next((place for place in inside if any((place / name).exists() for name in _OF_TRANSFORMER)), folder)


def sentencepiece_file(folder: Path) -> Path | None:
    """Returns the SentencePiece model of a folder that has no other vocabulary; None if there is another, or none."""
    if any((folder / name).exists() for name in _OTHER_VOCABULARIES):
        return None
    return next((folder / name for name in SENTENCEPIECE_FILES if (folder / name).exists()), None)


def module_folders(folder: Path) -> list[str]:
    """Returns the subfolders of a SentenceTransformer's modules after its Transformer, such as ``1_Pooling``.

    Raises:
      WsrError: if ``modules.json`` does not list modules, or names a folder outside ``folder``.
    """
    if not (folder / MODULES).exists():
        return []
    transformer = transformer_folder(folder)
    names = _paths_of_modules(folder)
    return [name for name in names if name and (folder / name).is_dir() and folder / name != transformer]


def companions(folder: Path) -> dict[str, Path]:
    """Returns the files that belong to a model beside its weights, by the relative path that they have in an export.

    These are the config, the tokenizer with its chat templates, the generation settings and the modules of a
    SentenceTransformer without their weights. Code, pickles, results of a training, the model card and hidden files
    are left out. The files of a ``0_Transformer`` have the paths that they have in a folder without one.

    Args:
      folder: a Hugging Face folder.
    """
    if not folder.is_dir():
        return {}
    transformer = transformer_folder(folder)
    places = {"": folder} if transformer == folder else {"": folder, transformer.name: transformer}
    places |= {name: folder / name for name in (_TEMPLATES, *module_folders(folder), "1_Pooling")}
    found: dict[str, Path] = {}
    for place, files in places.items():
        prefix = Path("" if folder / place == transformer else place)
        found |= {str(prefix / file.name): file for file in files.glob("*") if file.is_file() and _is_companion(file)}
    return dict(sorted(found.items()))


def module_weights(folder: Path) -> dict[str, Path]:
    """Returns the weights of a SentenceTransformer's modules after its Transformer, by relative path.

    Args:
      folder: a Hugging Face folder.
    """
    found = {f"{name}/{SINGLE}": folder / name / SINGLE for name in module_folders(folder)}
    return {name: path for name, path in found.items() if path.is_file()}


def copy_companions(files: Mapping[str, Path], folder: Path) -> None:
    """Copies files into a folder; ``modules.json`` then names the folder itself as that of the Transformer.

    Args:
      files: the files, by the relative path to write each to.
      folder: an existing folder.
    """
    for file, source in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if file == MODULES:
            content = source.read_text(encoding="utf-8")
            (folder / file).write_text(_at_the_root(content), encoding="utf-8")
        else:
            shutil.copyfile(source, folder / file)


def settings_of_use(folder: Path) -> dict[str, Path]:
    """Returns the companions that say how a model is used, by relative path; not its config and its tokenizer.

    These are chat templates, generation settings and the modules of a SentenceTransformer: fine-tuning may change them,
    whereas members of a population share the vocabulary of their base.

    Args:
      folder: a Hugging Face folder.
    """
    return {file: path for file, path in companions(folder).items() if "/" in file or _OF_USE.fullmatch(file)}


def shared_files(members: Sequence[Mapping[str, Path]]) -> dict[str, Path]:
    """Returns the files that all members have under one name and with equal content.

    Args:
      members: files of each member, by relative path.
    """
    if not members:
        return {}
    first, *others = members
    return {
        file: path
        for file, path in first.items()
        if all(file in own and own[file].read_bytes() == path.read_bytes() for own in others)
    }


def with_dtype(config: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Returns a config that names ``dtype`` as the type of the weights, in itself and in the configs inside it.

    Args:
      config: content of a config.json.
      dtype: the type, such as ``"bfloat16"``.
    """
    names = [name for name in ("dtype", "torch_dtype") if name in config]
    inner = {
        name: with_dtype(value, dtype)
        for name, value in config.items()
        if isinstance(value, dict) and {"dtype", "torch_dtype"} & value.keys()
    }
    return {**config, **inner, **dict.fromkeys(names or ["dtype"], dtype)}


def _target(link: Path) -> Path:
    return Path(os.path.realpath(link))  # unlike resolve(), it takes links that go round in a circle


def _paths_of_modules(folder: Path) -> list[str]:
    """Returns the path of each module that ``modules.json`` lists."""
    try:
        listed = strict_json.parse((folder / MODULES).read_text(encoding="utf-8"))
        names = [str(module["path"]) for module in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WsrError(f"{folder / MODULES}: expected a list of modules with a path each ({error})") from error
    outside = [name for name in names if name in (".", "..") or set(name) & set("/\\")]
    if outside:
        raise WsrError(f"{folder / MODULES}: expected folders beside it, found {', '.join(outside)}")
    return names


def _at_the_root(content: str) -> str:
    """Returns a modules.json with its Transformer in the folder itself; unchanged if it is there already."""
    modules = strict_json.parse(content)
    inside = [module for module in modules if str(module.get("type", "")).endswith(".Transformer") and module["path"]]
    if not inside:
        return content
    for module in inside:
        module["path"] = ""
    return json.dumps(modules, indent=2) + "\n"


def _is_companion(file: Path) -> bool:
    name = file.name
    if name.startswith((".", "events.out.")) or name in _LEFT or name.lower() in ("readme.md", "readme"):
        return False
    endings = {ending.lower() for ending in file.suffixes}  # of x.pkl.gz both
    if endings & {*_WEIGHTS, *_CODE, ".log"} or name.endswith(".index.json") or SINGLE in name:
        return False
    with file.open("rb") as content:
        return not content.read(8).startswith(_CODE_BEGINS)
