"""Converts Hugging Face configs, and refuses unsupported attributes by name."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.counterpart import Counterpart
from wsr.models.model import Model
from wsr.models.registry import architectures
from wsr.runtime.model_folder import read_json

HARMLESS = frozenset(
    (
        # about the file
        *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "model_type"),
        # about a head, which is dropped
        *("classifier_dropout", "finetuning_task", "id2label", "label2id", "num_labels", "problem_type"),
        # about the tokenizer, which has its own copy
        *("bos_token_id", "cls_token_id", "eos_token_id", "mask_token_id", "sep_token_id"),
        # about how it is run, with the same result
        *("gradient_checkpointing", "output_attentions", "output_hidden_states", "return_dict", "use_cache"),
    )
)
"""Attributes that do not affect the hidden states of any architecture."""


def counterpart_of(model: Model) -> Counterpart:
    """Returns the counterpart of the model's architecture; raises ``WsrError`` if it has none."""
    known = architectures()
    counterpart = known[model.name].counterpart if model.name in known else None
    if counterpart is None:
        having = ", ".join(name for name, own in known.items() if own.counterpart)
        raise WsrError(f"{model.name} has no Hugging Face counterpart; known: {having}")
    return counterpart


def read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """Returns the architecture's name and its config, which lacks only the pooling.

    Args:
      folder: a Hugging Face model folder, with a config.json.

    Raises:
      WsrError: the config is missing or unreadable, the architecture is unknown, or an attribute is unsupported.
    """
    from transformers import AutoConfig

    path = folder / "config.json"
    raw = read_json(path)
    model_type = str(raw.get("model_type"))
    name, counterpart = _architecture(path, model_type)
    try:
        config = dict(counterpart.optional) | AutoConfig.for_model(**raw).to_dict()
    except Exception as error:  # The config classes check types with exceptions of their own.
        raise WsrError(f"{path}: not a valid {model_type} config: {_one_line(error)}") from error
    taken = {attribute: config[attribute] for attribute in counterpart.taken}
    # Attributes that the config class derives from others have the values that it derives from ``taken`` alone.
    _refuse_unknown(path, counterpart, config, AutoConfig.for_model(model_type, **deepcopy(taken)).to_dict())
    return name, taken


def to_config(model: Model, **more: Any) -> Any:
    """Returns the Hugging Face config object of ``model``, with further attributes ``more``, for example of a head."""
    from transformers import AutoConfig

    counterpart = counterpart_of(model)
    values = {name: model.config[name] for name in counterpart.taken} | dict(counterpart.only)
    # A copy: config classes write into the dicts they are given.
    config = AutoConfig.for_model(counterpart.model_type, **deepcopy(values))
    language_model = counterpart.language_model_class if model.token_losses else None
    config.architectures = [language_model or counterpart.model_class]
    for name, value in more.items():
        setattr(config, name, value)
    return config


def _architecture(path: Path, model_type: str) -> tuple[str, Counterpart]:
    # The first registered architecture wins: "tiny" shares BERT's model type.
    found: dict[str, tuple[str, Counterpart]] = {}
    for name, architecture in architectures().items():
        if architecture.counterpart:
            found.setdefault(architecture.counterpart.model_type, (name, architecture.counterpart))
    if model_type not in found:
        raise WsrError(f"{path}: model_type = {model_type!r} is not supported; known: {', '.join(sorted(found))}")
    return found[model_type]


def _refuse_unknown(
    path: Path, counterpart: Counterpart, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    refused = [
        f"{name} = {value!r}"
        for name, value in sorted(config.items())
        if name not in counterpart.taken
        and name not in HARMLESS | counterpart.harmless
        # None means "not set".
        and value is not None
        and value != counterpart.only.get(name, defaults.get(name))
    ]
    if refused:
        raise WsrError(f"{path}: unsupported: {', '.join(refused)}; the hidden states would differ from the original's")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
