"""The numbers that shape a BERT-like encoder, under their Hugging Face names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from wsr.errors import WsrError
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
        kinds = {field.name: field.type for field in fields(cls)}
        wrong = [f"missing {name}" for name in kinds if name not in config]
        wrong += [f"unknown {name}" for name in config if name not in kinds]
        if wrong:
            raise WsrError(f"encoder config: {', '.join(wrong)}; expected exactly {', '.join(kinds)}")
        for name, kind in kinds.items():
            accepted = (int, float) if kind is float else kind
            if not isinstance(config[name], accepted) or isinstance(config[name], bool):  # type: ignore[arg-type]
                wrong.append(f"{name} = {config[name]!r}")
        if wrong:
            raise WsrError(f"encoder config: wrong kind of value: {', '.join(wrong)}")
        values: dict[str, Any] = {name: float(config[name]) if kinds[name] is float else config[name] for name in kinds}
        typed = cls(**values)
        typed._check()
        return typed

    def to_mapping(self) -> dict[str, Any]:
        """Returns the config as a JSON-able dict."""
        return asdict(self)

    def _check(self) -> None:
        sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        for name in (*sizes, "max_position_embeddings", "type_vocab_size"):
            if getattr(self, name) < 1:
                raise WsrError(f"encoder config: {name} = {getattr(self, name)}; expected at least 1")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise WsrError(f"encoder config: {name} = {getattr(self, name)}; expected a number in [0, 1)")
        if self.hidden_size % self.num_attention_heads:
            raise WsrError(
                f"encoder config: hidden_size = {self.hidden_size} is not a multiple of "
                f"num_attention_heads = {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise WsrError(f"encoder config: hidden_act = {self.hidden_act!r}; known: {', '.join(ACTIVATIONS)}")
        if self.pooling not in POOLINGS:
            raise WsrError(f"encoder config: pooling = {self.pooling!r}; known: {', '.join(POOLINGS)}")
