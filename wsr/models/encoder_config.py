"""The numbers that shape a BERT-like encoder, under their Hugging Face names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wsr.models import config as configs
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.pooling import POOLINGS


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes, activation, dropout and pooling of a BERT-like encoder."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    pad_token_id: int
    hidden_act: str
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    initializer_range: float
    pooling: str

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "EncoderConfig":
        """Checks ``config`` and returns it typed; raises ``WsrError`` naming every bad key."""
        typed = configs.read(cls, config, "encoder")
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        positive = (*sizes, "max_position_embeddings", "type_vocab_size")
        configs.require("encoder", typed, **dict.fromkeys(positive, 1), hidden_act=ACTIVATIONS, pooling=POOLINGS)
        configs.require_share("encoder", typed, "hidden_dropout_prob", "attention_probs_dropout_prob")
        configs.require_multiple("encoder", typed, "hidden_size", "num_attention_heads")
        return typed

    def to_mapping(self) -> dict[str, Any]:
        """Returns the config as a JSON-able dict."""
        return asdict(self)


TAKEN = tuple(name for name in EncoderConfig.__dataclass_fields__ if name != "pooling")
"""The attributes that an encoder follows, as its Hugging Face config calls them."""
