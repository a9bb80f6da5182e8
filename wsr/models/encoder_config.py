"""The hyperparameters of a BERT-like encoder, under their Hugging Face names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from wsr.models import config as configs
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.pooling import POOLINGS

Own = TypeVar("Own", bound="EncoderConfig")


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes, activation, dropout and pooling of a BERT-like encoder; subclasses add an architecture's own fields."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    pad_token_id: int
    hidden_act: str
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    initializer_range: float
    pooling: str

    @classmethod
    def from_mapping(cls: type[Own], config: Mapping[str, Any]) -> Own:
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "encoder")
        typed.check()
        return typed

    def check(self) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another."""
        more = ("vocab_size", "max_position_embeddings")
        configs.require_layers("encoder", self, *more, hidden_act=ACTIVATIONS, pooling=POOLINGS)
        configs.require_share("encoder", self, "hidden_dropout_prob", "attention_probs_dropout_prob")

    def to_mapping(self) -> dict[str, Any]:
        """Returns the config as a dict that JSON can hold."""
        return configs.write(self)


def taken(kind: type[EncoderConfig]) -> tuple[str, ...]:
    """Returns the Hugging Face config attributes that determine an encoder's computation, all but ``pooling``."""
    return tuple(name for name in kind.__dataclass_fields__ if name != "pooling")
