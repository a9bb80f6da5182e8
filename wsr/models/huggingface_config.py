"""Hugging Face configs: what is understood is taken over, what is not is refused by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.model import Model

MODEL_TYPES: Mapping[str, str] = {"bert": "bert", "tiny": "bert", "roberta": "roberta"}
"""Architecture -> ``model_type`` of its Hugging Face config."""

TAKEN = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "pad_token_id",
    "hidden_act",
    "layer_norm_eps",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
)
"""Attributes that shape the computation and that the encoder follows."""

HARMLESS = frozenset(
    (
        # about the file
        *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version", "model_type"),
        # about a head, which is dropped
        *("classifier_dropout", "finetuning_task", "id2label", "label2id", "num_labels", "problem_type"),
        *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
        *("pooler_type", "tie_word_embeddings"),
        # about the tokenizer, which knows them itself
        *("bos_token_id", "cls_token_id", "eos_token_id", "mask_token_id", "sep_token_id"),
        # about how it is run, with the same result
        *("gradient_checkpointing", "output_attentions", "output_hidden_states", "return_dict", "use_cache"),
    )
)
"""Attributes that change nothing in the hidden states."""

ONLY = {"position_embedding_type": "absolute", "directionality": "bidi"}
"""Attributes of older files that newer config classes lost, with the only value that is understood."""


def read_config(folder: Path) -> tuple[str, dict[str, Any]]:
    """Returns the architecture's name and its config, without the pooling.

    Raises:
        WsrError: no readable config, an unknown architecture, or attributes that are not understood.
    """
    from transformers import AutoConfig

    path = folder / "config.json"
    raw = read_json(path)
    model_type = str(raw.get("model_type"))
    if model_type not in MODEL_TYPES.values():
        known = ", ".join(sorted(set(MODEL_TYPES.values())))
        raise WsrError(f"{path}: model_type = {model_type!r} is not supported; known: {known}")
    try:
        config = AutoConfig.for_model(**raw).to_dict()
    except Exception as error:  # The config classes check types with exceptions of their own.
        raise WsrError(f"{path}: not a valid {model_type} config: {_one_line(error)}") from error
    _refuse_unknown(path, config, AutoConfig.for_model(model_type).to_dict())
    return model_type, {name: config[name] for name in TAKEN}


def to_config(model: Model) -> Any:
    """Returns the Hugging Face config object of ``model``."""
    from transformers import AutoConfig

    if model.name not in MODEL_TYPES:
        raise WsrError(f"{model.name} has no Hugging Face counterpart; known: {', '.join(MODEL_TYPES)}")
    config = AutoConfig.for_model(MODEL_TYPES[model.name], **{name: model.config[name] for name in TAKEN})
    config.architectures = [{"bert": "BertModel", "roberta": "RobertaModel"}[MODEL_TYPES[model.name]]]
    return config


def read_json(path: Path) -> dict[str, Any]:
    """Returns the JSON object in ``path``; raises ``WsrError`` when there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WsrError(f"{path}: no such file; expected a Hugging Face model folder") from error
    except (OSError, ValueError) as error:
        raise WsrError(f"{path}: not readable as JSON: {_one_line(error)}") from error
    if not isinstance(content, dict):
        raise WsrError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _refuse_unknown(path: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    refused = [
        f"{name} = {value!r}"
        for name, value in sorted(config.items())
        if name not in TAKEN
        and name not in HARMLESS
        # None is how a config says "not set".
        and value is not None
        and value != ONLY.get(name, defaults.get(name))
    ]
    if refused:
        raise WsrError(f"{path}: not understood: {', '.join(refused)}; the hidden states would not be the original's")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
