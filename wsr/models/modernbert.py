"""ModernBERT in Flax NNX: rotary positions, most layers with local attention, gated feed-forward networks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.errors import WsrError
from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Counterpart, Module
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.attention import attend
from wsr.models.layers.dense import dense, layer_norm, table
from wsr.models.layers.mask import Mask, within_texts
from wsr.models.layers.pooling import POOLINGS, pool
from wsr.models.layers.rotary import angles, frequencies, rotate
from wsr.models.model import Model

GLOBAL, LOCAL = "full_attention", "sliding_attention"

EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "hidden_activation": "gelu",
    "max_position_embeddings": 64,
    "initializer_range": 0.02,
    "norm_eps": 1e-5,
    "norm_bias": False,
    "pad_token_id": 0,
    "attention_bias": False,
    "attention_dropout": 0.1,
    "layer_types": [GLOBAL, LOCAL, LOCAL],
    "rope_parameters": {
        GLOBAL: {"rope_type": "default", "rope_theta": 160000.0},
        LOCAL: {"rope_type": "default", "rope_theta": 10000.0},
    },
    "local_attention": 6,
    "embedding_dropout": 0.1,
    "mlp_bias": False,
    "mlp_dropout": 0.1,
    "pooling": "mean",
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class ModernBertConfig:
    """The hyperparameters of ModernBERT, under their Hugging Face names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    hidden_activation: str
    max_position_embeddings: int
    initializer_range: float
    norm_eps: float
    norm_bias: bool
    pad_token_id: int | None
    attention_bias: bool
    attention_dropout: float
    layer_types: tuple[str, ...]
    rope_parameters: Mapping[str, Any]
    local_attention: int
    """Width of a local layer's attention window, in tokens: half before and half after a token."""
    embedding_dropout: float
    mlp_bias: bool
    mlp_dropout: float
    pooling: str

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "ModernBertConfig":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "modernbert")
        more = ("vocab_size", "max_position_embeddings", "local_attention")
        configs.require_layers("modernbert", typed, *more, hidden_activation=ACTIVATIONS, pooling=POOLINGS)
        configs.require_share("modernbert", typed, "attention_dropout", "embedding_dropout", "mlp_dropout")
        strange = sorted(set(map(str, typed.layer_types)) - {GLOBAL, LOCAL})
        if strange or len(typed.layer_types) != typed.num_hidden_layers:
            raise WsrError(
                f"modernbert config: layer_types = {list(typed.layer_types)}; expected {GLOBAL} or {LOCAL} for each of "
                f"{typed.num_hidden_layers} layers"
            )
        for kind in set(typed.layer_types):
            typed.frequencies(kind)
        return typed

    def frequencies(self, kind: str) -> tuple[float, ...]:
        """Returns the angle steps, in radians, of the rotary positions in ``kind`` layers (``GLOBAL`` or ``LOCAL``)."""
        parameters = self.rope_parameters.get(kind)
        width = self.hidden_size // self.num_attention_heads
        return frequencies(f"modernbert {kind}", parameters if isinstance(parameters, Mapping) else {}, width)


def modernbert(config: Mapping[str, Any]) -> Model:
    """Returns the ModernBERT encoder that ``config`` describes (see ``ModernBertConfig``)."""
    typed = ModernBertConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: ModernBert(typed, rngs),
        name="modernbert",
        config=configs.write(typed),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings,
    )


class ModernBert(nnx.Module):
    """ModernBERT: normalised token embeddings, pre-norm layers, a final norm and pooling."""

    def __init__(self, config: ModernBertConfig, rngs: nnx.Rngs):
        hidden = config.hidden_size
        self.pooling, self.furthest = config.pooling, config.local_attention // 2
        self.kinds = config.layer_types
        self.frequencies = tuple(config.frequencies(kind) for kind in config.layer_types)
        self.token = table(config.vocab_size, hidden, rngs, spread=config.initializer_range)
        self.norm = layer_norm(hidden, rngs, epsilon=config.norm_eps, bias=config.norm_bias)
        self.dropout = nnx.Dropout(config.embedding_dropout)
        self.layers = nnx.List([Layer(config, number, rngs) for number in range(config.num_hidden_layers)])
        self.last_norm = layer_norm(hidden, rngs, epsilon=config.norm_eps, bias=config.norm_bias)

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        return pool(self.pooling, self.hidden_states(batch, rngs), batch)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the hidden states after the final normalisation."""
        embedded = self.token(batch["token_ids"])
        reaches = {GLOBAL: None, LOCAL: self.furthest}
        masks = {
            kind: within_texts(batch["text_ids"], batch["positions"], furthest=own) for kind, own in reaches.items()
        }
        hidden = self.dropout(self.norm(embedded.reshape(-1, embedded.shape[-1])), rngs=rngs)
        for layer, kind, each in zip(self.layers, self.kinds, self.frequencies, strict=True):
            hidden = layer(hidden, masks[kind], angles(batch["positions"], each), rngs)
        return self.last_norm(hidden).reshape(embedded.shape)


class Layer(nnx.Module):
    """Self-attention and a gated feed-forward network, each normalised before (pre-norm) and added to its input."""

    def __init__(self, config: ModernBertConfig, number: int, rngs: nnx.Rngs):
        hidden, wide, spread = config.hidden_size, config.intermediate_size, config.initializer_range
        self.heads, self.normalised = config.num_attention_heads, number > 0
        if self.normalised:  # the first attention follows the embeddings' norm and has none
            self.attention_norm = layer_norm(hidden, rngs, epsilon=config.norm_eps, bias=config.norm_bias)
        self.query_key_value = dense(hidden, 3 * hidden, rngs, spread=spread, bias=config.attention_bias)
        self.attention_output = dense(hidden, hidden, rngs, spread=spread, bias=config.attention_bias)
        self.feed_forward_norm = layer_norm(hidden, rngs, epsilon=config.norm_eps, bias=config.norm_bias)
        self.activation = ACTIVATIONS[config.hidden_activation]
        self.gate_and_up = dense(hidden, 2 * wide, rngs, spread=spread, bias=config.mlp_bias)
        self.down = dense(wide, hidden, rngs, spread=spread, bias=config.mlp_bias)
        self.attention_dropout = nnx.Dropout(config.attention_dropout)
        self.feed_forward_dropout = nnx.Dropout(config.mlp_dropout)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        turns: Float[Array, "tokens half_width"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        normed = self.attention_norm(hidden) if self.normalised else hidden
        query, key, value = jnp.split(self.query_key_value(normed), 3, axis=-1)
        mixed = attend(
            rotate(query, turns, self.heads),
            rotate(key, turns, self.heads),
            value,
            mask,
            heads=self.heads,
            dropout=self.attention_dropout,
            rngs=rngs,
        )
        hidden = hidden + self.attention_dropout(self.attention_output(mixed), rngs=rngs)
        gate, up = jnp.split(self.gate_and_up(self.feed_forward_norm(hidden)), 2, axis=-1)
        return hidden + self.down(self.feed_forward_dropout(self.activation(gate) * up, rngs=rngs))


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of ModernBERT's modules."""
    norm = "norm" if config["norm_bias"] else "scale"
    attention = "dense" if config["attention_bias"] else "matrix"
    feed_forward = "dense" if config["mlp_bias"] else "matrix"
    yield "embeddings.tok_embeddings", "token", "embedding"
    yield "embeddings.norm", "norm", norm
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"layers.{layer}", f"layers/{layer}"
        if layer > 0:
            yield f"{theirs}.attn_norm", f"{ours}/attention_norm", norm
        yield f"{theirs}.attn.Wqkv", f"{ours}/query_key_value", attention
        yield f"{theirs}.attn.Wo", f"{ours}/attention_output", attention
        yield f"{theirs}.mlp_norm", f"{ours}/feed_forward_norm", norm
        yield f"{theirs}.mlp.Wi", f"{ours}/gate_and_up", feed_forward
        yield f"{theirs}.mlp.Wo", f"{ours}/down", feed_forward
    yield "final_norm", "last_norm", norm


COUNTERPART = Counterpart(
    model_type="modernbert",
    model_class="ModernBertModel",
    prefix="model.",
    taken=tuple(name for name in ModernBertConfig.__dataclass_fields__ if name != "pooling"),
    modules=modules,
    dropped=r"(head|decoder|classifier)\..+",
    tied={"embeddings.tok_embeddings.weight": ("decoder.weight",)},
    only={"position_embedding_type": "absolute"},
    harmless=frozenset(("deterministic_flash_attn",)),
    # The classifier_pooling of the published checkpoints.
    pooling="mean",
)
"""ModernBERT in ``transformers``."""
