"""Reads another part of the model that contains an encoder, such as CLIP's text tower."""

from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.files import read_file, read_tensors
from wsr.models.huggingface.folder import read_processor
from wsr.models.huggingface.weights import from_huggingface, head_settings, is_dropped
from wsr.models.model import Checkpoint
from wsr.models.registry import architectures, build
from wsr.runtime.model_folder import BASE_HEAD, transformer_folder


def read_part(folder: Path, architecture: str, *, pooling: str) -> tuple[Checkpoint, dict[str, np.ndarray]]:
    """Returns one part of a whole model, and the tensors beside it by name.

    Args:
      folder: a Hugging Face folder, or the folder where a store keeps the files of its base.
      architecture: the part, such as ``clip_text``.
      pooling: the part's pooling.

    Raises:
      WsrError: the folder is not of a whole model, lacks the part, or is damaged.
    """
    inner = transformer_folder(folder)
    name, config = read_config(inner, architecture)
    counterpart = architectures()[name].counterpart
    assert counterpart is not None
    kept = inner / BASE_HEAD
    tensors = read_file(kept) if kept.is_file() else read_tensors(inner)
    if all(is_dropped(counterpart, own) for own in tensors):
        raise WsrError(f"{folder}: no tensors of {architecture}; expected a folder of a whole model, with both towers")
    model = build(name, {**config, **head_settings(counterpart, config, tensors), "pooling": pooling})
    params, beside = from_huggingface(model, tensors)
    processor = read_processor(inner, model)
    return Checkpoint(model, params, processor, folder=folder), {own: tensors[own] for own in beside}
