"""Converts Hugging Face configs, and refuses unsupported attributes by name.

An attribute is unsupported if the code of transformers that computes hidden states reads it and ``wsr`` does not
understand its value. A table made from that code decides: ``read_attributes.py``.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.counterpart import Counterpart
from wsr.models.model import Model
from wsr.models.registry import architectures
from wsr.runtime.model_folder import read_config_file, read_json

HARMLESS = frozenset(
    (
        # how the model is run, with the same result
        *("_attn_implementation", "chunk_size_feed_forward", "dtype", "gradient_checkpointing"),
        *("output_attentions", "output_hidden_states", "return_dict", "use_cache"),
    )
)
"""Attributes that the code of transformers reads and that do not affect the hidden states of any architecture."""

ATTRIBUTES_READ = Path(__file__).with_name("attributes_read.json")
"""Table of the attributes that the code of transformers reads, which ``read_attributes.py`` writes."""

_OF_THE_FILE = ("_name_or_path", "dtype", "model_type", "torch_dtype", "transformers_version")
"""Attributes about a file, which an export writes for its own."""


def counterpart_of(model: Model) -> Counterpart:
    """Returns the counterpart of the model's architecture; raises ``WsrError`` if it has none."""
    known = architectures()
    counterpart = known[model.name].counterpart if model.name in known else None
    if counterpart is None:
        having = ", ".join(name for name, own in known.items() if own.counterpart)
        raise WsrError(f"{model.name} has no Hugging Face counterpart; known: {having}")
    return counterpart


def read_config(folder: Path, architecture: str | None = None) -> tuple[str, dict[str, Any]]:
    """Returns the architecture's name and its config, which lacks only the pooling.

    Args:
      folder: a Hugging Face model folder, with a config.json.
      architecture: the part to read of a model that has several, such as ``clip_text``; None: the one that is
        registered first.

    Raises:
      WsrError: the config is missing or unreadable, the architecture is unknown, or an attribute is unsupported.
    """
    path = folder / "config.json"
    raw = read_config_file(path)
    _refuse_by_name(path, raw)
    name, counterpart, config = _parsed(path, raw, architecture)
    taken = {attribute: config[attribute] for attribute in counterpart.taken}
    # Attributes that the config class derives from others have the values that it derives from ``taken`` alone.
    _refuse_unknown(path, counterpart, config, _defaults(counterpart, taken))
    return name, taken


def other_attributes(folder: Path, architecture: str | None = None) -> dict[str, Any]:
    """Returns the attributes that do not determine the hidden states, as JSON: an export of the model passes them on.

    Args:
      folder: a Hugging Face model folder that ``read_config`` accepts.
      architecture: see ``read_config``.
    """
    path = folder / "config.json"
    raw = read_json(path)
    _, counterpart, config = _parsed(path, raw, architecture)
    if is_whole(counterpart, raw):
        return {name: value for name, value in raw.items() if name not in _OF_THE_FILE}
    defaults = _defaults(counterpart, {})
    kept = {
        name: raw.get(name, value)
        for name, value in config.items()
        if name not in counterpart.taken and name not in _OF_THE_FILE
        # An attribute with one supported value in the encoder may have others with a head.
        if name in raw or name in counterpart.only or value != defaults.get(name)
    }
    found: dict[str, Any] = json.loads(json.dumps(kept, default=str))
    return found


def to_config(model: Model, **more: Any) -> Any:
    """Returns the Hugging Face config object of ``model``, with further attributes ``more``, for example of a head."""
    from transformers import AutoConfig

    counterpart = counterpart_of(model)
    values = {name: model.config[name] for name in counterpart.taken} | dict(counterpart.only)
    # A copy: config classes write into the dicts they are given.
    config = AutoConfig.for_model(counterpart.model_type, **deepcopy(values))
    language_model = counterpart.language_model_class if model.token_losses else None
    projected = counterpart.projected_class if model.config.get("projection") else None
    config.architectures = [language_model or projected or counterpart.model_class]
    if any(model.config.get(attribute) for attribute in counterpart.untied):
        more["tie_word_embeddings"] = False
    for name, value in more.items():
        setattr(config, name, value)
    return config


def is_whole(counterpart: Counterpart, raw: Mapping[str, Any]) -> bool:
    """Returns whether a config.json describes the model that contains the encoder, such as a CLIP."""
    return counterpart.whole is not None and raw.get("model_type") == counterpart.whole.model_type


def _parsed(path: Path, raw: Mapping[str, Any], architecture: str | None) -> tuple[str, Counterpart, dict[str, Any]]:
    """Returns the architecture and all attributes of its config, as the class in transformers completes them."""
    from transformers import AutoConfig

    model_type = str(raw.get("model_type"))
    name, counterpart = _architecture(path, raw, architecture)
    try:
        config = AutoConfig.for_model(**deepcopy(dict(raw))).to_dict()
    except Exception as error:  # The config classes check types with exceptions of their own.
        raise WsrError(f"{path}: not a valid {model_type} config: {_one_line(error)}") from error
    if counterpart.whole and is_whole(counterpart, raw):
        config = config[counterpart.whole.part] | {name: config[name] for name in counterpart.whole.decides}
    return name, counterpart, dict(counterpart.optional) | config


def _defaults(counterpart: Counterpart, taken: Mapping[str, Any]) -> dict[str, Any]:
    from transformers import AutoConfig

    # A copy: config classes write into the dicts they are given.
    found: dict[str, Any] = AutoConfig.for_model(counterpart.model_type, **deepcopy(dict(taken))).to_dict()
    return found


def _architecture(path: Path, raw: Mapping[str, Any], wanted: str | None) -> tuple[str, Counterpart]:
    model_type, named = str(raw.get("model_type")), raw.get("architectures")
    classes = [str(name) for name in named] if isinstance(named, list) else []
    known = {name: own.counterpart for name, own in architectures().items() if own.counterpart}
    reading = {name: own for name, own in known.items() if own.reads(model_type) and wanted in (None, name)}
    # The first registered architecture wins: "tiny" shares BERT's model type.
    for name, counterpart in reading.items():
        if set(counterpart.classes) & set(classes):
            return name, counterpart
    for name, counterpart in reading.items():
        if wanted or not counterpart.classes:
            return name, counterpart
    wholes = {own.whole.model_type for own in known.values() if own.whole}
    types = sorted({own.model_type for own in known.values()} | wholes)
    part = f" as {wanted}" if wanted else ""
    raise WsrError(f"{path}: model_type = {model_type!r} is not supported{part}; known: {', '.join(types)}")


def _refuse_by_name(path: Path, raw: Mapping[str, Any]) -> None:
    """Refuses what no code of an architecture reads, though it changes the model."""
    code = raw.get("auto_map")
    reasons = {
        "quantization_config": "its weights are quantised; load it with transformers, dequantise it and save it again",
        "auto_map": "it needs code from its own repository, and wsr runs no such code",
        "pruned_heads": "some of its attention heads are pruned",
        "per_layer_config": "its layers have configs of their own",
    }
    present = {name for name in reasons if raw.get(name)}
    if isinstance(code, Mapping) and not any(kind.startswith(("AutoConfig", "AutoModel")) for kind in code):
        present -= {"auto_map"}  # code for the tokenizer only
    if present:
        told = "; ".join(f"{reasons[name]} ({name})" for name in reasons if name in present)
        raise WsrError(f"{path}: unsupported: {told}")


def _refuse_unknown(
    path: Path, counterpart: Counterpart, config: Mapping[str, Any], defaults: Mapping[str, Any]
) -> None:
    refused = [
        f"{name} = {value!r}"
        for name, value in sorted(config.items())
        if name in _read_by_encoder(counterpart.model_type, counterpart.model_class) | set(counterpart.only)
        and name not in counterpart.taken
        and name not in HARMLESS | counterpart.harmless
        # None means "not set".
        and value is not None
        and value != counterpart.only.get(name, defaults.get(name))
        and not (name == "head_dim" and _is_usual_width(config))
    ]
    if refused:
        raise WsrError(f"{path}: unsupported: {', '.join(refused)}; the hidden states would differ from the original's")


def _is_usual_width(config: Mapping[str, Any]) -> bool:
    """Whether the heads share the hidden features evenly: a config may say so where the class needs no telling."""
    width, heads, hidden = (config.get(name) for name in ("head_dim", "num_attention_heads", "hidden_size"))
    return isinstance(width, int) and isinstance(heads, int) and width * heads == hidden


@cache
def _read_by_encoder(model_type: str, model_class: str) -> frozenset[str]:
    table = json.loads(ATTRIBUTES_READ.read_text(encoding="utf-8"))["read"]
    if (of_class := f"{model_type}/{model_class}") in table:
        return frozenset(table[of_class]["encoder"])
    if model_type not in table:  # an architecture that a user registered
        from wsr.models.huggingface.read_attributes import read_by

        table[model_type] = read_by(model_type, model_class)
    return frozenset(table[model_type]["encoder"])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
