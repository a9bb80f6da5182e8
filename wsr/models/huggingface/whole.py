"""The model that contains an encoder, such as CLIP around its vision tower: its other parts, taken from the base."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wsr.models.huggingface.config import counterpart_of, is_whole, read_json
from wsr.models.huggingface.files import open_weights, read_file
from wsr.models.huggingface.heads import ClassifierHead
from wsr.models.huggingface.weights import is_constant, is_dropped, their_tensors, without_prefix
from wsr.models.model import Model
from wsr.runtime.model_folder import BASE_HEAD, CONFIG


def rest_of_whole(
    model: Model, companions: Mapping[str, Path], head: ClassifierHead | None
) -> tuple[Any, dict[str, np.ndarray]] | None:
    """Returns the config of the whole model and the float32 tensors of its other parts; None if there is no whole.

    Args:
      model: the encoder.
      companions: files of its base by relative path; the other parts lie beside the config.
      head: a member's own tensors, which take the place of the base's; a classifier has no other parts.
    """
    counterpart = counterpart_of(model)
    if counterpart.whole is None or CONFIG not in companions:
        return None
    raw = read_json(companions[CONFIG])
    if not is_whole(counterpart, raw):
        return None
    own = {name: np.asarray(tensor, np.float32) for name, tensor in head.tensors.items()} if head else {}
    classes = list(head.config.get("architectures") or ()) if head else []
    if classes and classes[0].endswith("ForImageClassification"):
        return _config({**raw, **head.config} if head else raw, classes[0]), own
    parts = {**other_parts(model, companions[CONFIG].parent), **own}
    # A classifier's folder has no other tower to pass on.
    other = any(name.partition(".")[0] in ("text_model", "vision_model") for name in parts)
    return (_config(raw, counterpart.whole.model_class), parts) if other else None


def other_parts(model: Model, folder: Path) -> dict[str, np.ndarray]:
    """Returns the learned float32 tensors beside the encoder, by name, of a model's folder or a store's copy of it.

    Args:
      model: the encoder.
      folder: a Hugging Face folder, or the folder where a store keeps the files of its base.
    """
    counterpart = counterpart_of(model)
    inside = {theirs for theirs, _, _ in their_tensors(model)}
    if (folder / BASE_HEAD).is_file():
        tensors = read_file(folder / BASE_HEAD)
    else:
        tensors = {name: own.whole() for name, own in open_weights(folder).items() if is_dropped(counterpart, name)}
    return {
        name: np.asarray(tensor, np.float32)
        for name, tensor in tensors.items()
        if without_prefix(counterpart, name) not in inside and not is_constant(counterpart, name)
    }


def _config(content: Mapping[str, Any], model_class: str) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.for_model(**{name: value for name, value in content.items() if name != "architectures"})
    config.architectures = [model_class]
    config.dtype = "float32"
    return config
