"""A base whose language-modelling head is apart from its token embedding, for members whose heads are."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.models.counterpart import Counterpart
from wsr.models.huggingface.config import counterpart_of
from wsr.models.huggingface.files import read_tensors
from wsr.models.huggingface.weights import has_own_head, language_model_heads, their_tensors
from wsr.models.load import find_folder
from wsr.models.model import Checkpoint
from wsr.models.registry import build
from wsr.runtime.model_folder import transformer_folder


def untied(base: Checkpoint) -> Checkpoint:
    """Returns the base with a copy of the token embedding as its head, which then has a task vector of its own.

    A base whose head is apart already, or that is no language model, is returned as it is.
    """
    counterpart = counterpart_of(base.model)
    heads = language_model_heads(counterpart)
    leaves = flatten(base.params)
    places = {theirs: ours for theirs, ours, _ in their_tensors(base.model)}
    if base.model.token_losses is None or any(head in places for head in heads):
        return base
    apart = {"tie_word_embeddings": False} if "tie_word_embeddings" in base.model.config else {}
    apart |= dict.fromkeys((*counterpart.present, *counterpart.untied), True)
    model = build(base.model.name, {**base.model.config, **apart})
    for theirs, ours, layout in their_tensors(model):
        if theirs in heads:
            leaves[ours] = layout.into(np.asarray(leaves[places[heads[theirs]]]))
    return replace(base, model=model, params=nest(leaves))


def any_untied(base: Checkpoint, models: Iterable[str]) -> bool:
    """Returns whether one of the models has a language-modelling head that differs from its token embedding.

    Args:
      base: their base.
      models: Hugging Face folders or hub names; what cannot be read is passed over.
    """
    counterpart = counterpart_of(base.model)
    return any(_is_untied(counterpart, model) for model in models)


def _is_untied(counterpart: Counterpart, model: str) -> bool:
    heads = language_model_heads(counterpart)
    try:
        folder = transformer_folder(find_folder(model))
        # Most files hold no such head: their headers say so.
        return any(_names(file) & set(heads) for file in folder.glob("*.safetensors")) and has_own_head(
            counterpart, read_tensors(folder)
        )
    except (WsrError, OSError):
        return False


def _names(file: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as tensors:
            return set(tensors.keys())
    except (OSError, SafetensorError):
        return set()
