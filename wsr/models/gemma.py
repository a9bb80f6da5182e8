"""Gemma in Flax NNX, with the switches that make it Gemma 2 or the text model of Gemma 3.

Source: Gemma Team 2024, arXiv 2403.08295, and the modules of ``transformers``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Module
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.dense import dense, table
from wsr.models.layers.feed_forward import BareFeedForward
from wsr.models.layers.language_model import next_token_losses
from wsr.models.layers.mask import Mask, within_texts
from wsr.models.layers.pooling import POOLINGS, pool
from wsr.models.layers.rotary import angles, frequencies
from wsr.models.llama import COUNTERPART as LLAMA_COUNTERPART
from wsr.models.llama import Attention as LlamaAttention
from wsr.models.llama import taken
from wsr.models.model import Model

COMMON_EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "attention_bias": False,
    "attention_dropout": 0.1,
    "tie_word_embeddings": True,
    "pooling": "last",
    "language_model_head": False,
}
"""The values that the small test configs of all versions share."""

EXAMPLE: Mapping[str, Any] = {**COMMON_EXAMPLE, "hidden_act": "gelu_pytorch_tanh"}
"""A config small enough for a test."""


def gemma(config: Mapping[str, Any]) -> Model:
    """Returns the Gemma decoder that ``config`` describes (see ``GemmaConfig``)."""
    return decoder("gemma", GemmaConfig.from_mapping("gemma", config))


@dataclass(frozen=True)
class Switches:
    """The points in which versions of Gemma differ."""

    activation: str
    scale: float
    """Factor of the attention scores."""
    windows: tuple[int | None, ...]
    """For each layer, how many tokens a token sees in one direction, itself included; None: all."""
    frequencies: tuple[tuple[float, ...], ...]
    """For each layer, the angle steps of its rotary positions, in radians."""
    output_norms: bool = False
    """Whether the outputs of attention and of the feed-forward network are normalised before they are added."""
    query_key_norm: bool = False
    both_directions: bool = False
    """Whether a token sees later tokens too."""
    score_cap: float | None = None
    logit_cap: float | None = None


Config = TypeVar("Config", bound="CommonConfig")


@dataclass(frozen=True)
class CommonConfig:
    """The hyperparameters that all versions have, under their Hugging Face names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    initializer_range: float
    rms_norm_eps: float
    rope_parameters: Mapping[str, Any]
    attention_bias: bool
    attention_dropout: float
    tie_word_embeddings: bool
    pooling: str
    language_model_head: bool
    """Whether the parameters include an untied language-modelling head; a tied head is the token embedding."""

    @classmethod
    def from_mapping(cls: type[Config], what: str, config: Mapping[str, Any]) -> Config:
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, what)
        sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        positive = (*sizes, "num_key_value_heads", "head_dim", "max_position_embeddings")
        configs.require(what, typed, **dict.fromkeys(positive, 1), pooling=POOLINGS)
        configs.require_share(what, typed, "attention_dropout")
        configs.require_multiple(what, typed, "num_attention_heads", "num_key_value_heads")
        typed.check(what)
        return typed

    def check(self, what: str) -> None:
        """Raises ``WsrError`` if a value of this version is out of range; ``what`` names the config."""
        raise NotImplementedError

    @property
    def switches(self) -> Switches:
        """The points in which this version differs from the others."""
        raise NotImplementedError

    @property
    def has_head(self) -> bool:
        """Whether there is a language-modelling head apart from the token embedding."""
        return self.language_model_head and not self.tie_word_embeddings


@dataclass(frozen=True)
class GemmaConfig(CommonConfig):
    """``CommonConfig``, plus the activation, which version 1 calls ``hidden_act``."""

    hidden_act: str

    def check(self, what: str) -> None:
        """Raises ``WsrError`` for an unknown activation or unknown rotary positions."""
        # transformers takes "gelu" in a config of Gemma for its tanh approximation.
        configs.require(what, self, hidden_act=[name for name in ACTIVATIONS if name != "gelu"])
        frequencies(what, self.rope_parameters, self.head_dim)

    @property
    def switches(self) -> Switches:
        """All layers alike."""
        each = frequencies("gemma", self.rope_parameters, self.head_dim)
        layers = self.num_hidden_layers
        return Switches(self.hidden_act, self.head_dim**-0.5, (None,) * layers, (each,) * layers)


def decoder(name: str, config: CommonConfig) -> Model:
    """Returns the decoder that the config of any version describes, as a model called ``name``."""
    head = config.tie_word_embeddings or config.language_model_head
    return from_nnx(
        lambda rngs: Gemma(config, rngs),
        name=name,
        config=configs.write(config),
        hidden=config.hidden_size,
        max_length=config.max_position_embeddings,
        language_model=head and not config.switches.both_directions,
    )


class Gemma(nnx.Module):
    """A Gemma: scaled token embeddings, layers of one or several kinds, a final norm and pooling."""

    def __init__(self, config: CommonConfig, rngs: nnx.Rngs):
        hidden, spread = config.hidden_size, config.initializer_range
        self.pooling, self.switches = config.pooling, config.switches
        self.token = table(config.vocab_size, hidden, rngs, spread=spread)
        self.layers = nnx.List([Layer(config, self.switches, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = Norm(hidden, epsilon=config.rms_norm_eps)
        self.head = dense(hidden, config.vocab_size, rngs, spread=spread, bias=False) if config.has_head else None

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        return pool(self.pooling, self.hidden_states(batch, rngs), batch)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the hidden states after the final normalisation."""
        embedded = self.token(batch["token_ids"])
        width, positions, windows = embedded.shape[-1], batch["positions"], self.switches.windows
        seen = partial(within_texts, batch["text_ids"], positions, causal=not self.switches.both_directions)
        masks = {own: seen(furthest=None if own is None else own - 1) for own in set(windows)}
        hidden = embedded.reshape(-1, width) * jnp.asarray(width**0.5, embedded.dtype)
        for layer, window, each in zip(self.layers, windows, self.switches.frequencies, strict=True):
            hidden = layer(hidden, masks[window], angles(positions, each), rngs)
        return self.norm(hidden).reshape(embedded.shape)

    def token_losses(self, batch: Mapping[str, Array]) -> Float[Array, "rows length"]:
        """Returns at each token the cross-entropy of the next token, in nats; see ``next_token_losses``."""
        head = self.token.embedding[...].T if self.head is None else self.head.kernel[...]
        return next_token_losses(self.hidden_states(batch), head, batch, self.switches.logit_cap)


class Norm(nnx.Module):
    """Divides by the root mean square over the features and multiplies by ``1 + scale``."""

    def __init__(self, features: int, *, epsilon: float):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.zeros(features))

    def __call__(self, inputs: Float[Array, "*rows features"]) -> Float[Array, "*rows features"]:
        wide = inputs.astype(jnp.promote_types(inputs.dtype, jnp.float32))
        normed = wide * jax.lax.rsqrt(jnp.square(wide).mean(axis=-1, keepdims=True) + self.epsilon)
        factor = 1 + self.scale[...].astype(wide.dtype)
        return (normed * jnp.expand_dims(factor, range(wide.ndim - 1))).astype(inputs.dtype)


class Layer(nnx.Module):
    """Self-attention and a gated feed-forward network, each between norms and added to its input."""

    def __init__(self, config: CommonConfig, switches: Switches, rngs: nnx.Rngs):
        hidden, epsilon = config.hidden_size, config.rms_norm_eps
        self.attention_norm = Norm(hidden, epsilon=epsilon)
        self.attention = Attention(config, switches, rngs)
        self.feed_forward_norm = Norm(hidden, epsilon=epsilon)
        self.feed_forward = BareFeedForward(
            hidden,
            config.intermediate_size,
            rngs,
            activation=switches.activation,
            gated=True,
            bias=False,
            spread=config.initializer_range,
        )
        self.output_norms = switches.output_norms
        if self.output_norms:
            self.attention_output_norm = Norm(hidden, epsilon=epsilon)
            self.feed_forward_output_norm = Norm(hidden, epsilon=epsilon)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        turns: Float[Array, "tokens half_width"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        mixed = self.attention(self.attention_norm(hidden), mask, turns, rngs)
        hidden = hidden + (self.attention_output_norm(mixed) if self.output_norms else mixed)
        wide = self.feed_forward(self.feed_forward_norm(hidden), rngs)
        return hidden + (self.feed_forward_output_norm(wide) if self.output_norms else wide)


class Attention(LlamaAttention):
    """The attention of a Llama, with the sizes, norms and scores of a Gemma."""

    def __init__(self, config: CommonConfig, switches: Switches, rngs: nnx.Rngs):
        hidden, spread, bias = config.hidden_size, config.initializer_range, config.attention_bias
        self.scale, self.cap = switches.scale, switches.score_cap
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        wide, narrow = self.heads * config.head_dim, self.key_heads * config.head_dim
        self.query = dense(hidden, wide, rngs, spread=spread, bias=bias)
        self.key = dense(hidden, narrow, rngs, spread=spread, bias=bias)
        self.value = dense(hidden, narrow, rngs, spread=spread, bias=bias)
        self.output = dense(wide, hidden, rngs, spread=spread, bias=bias)
        self.query_key_norm = switches.query_key_norm
        if self.query_key_norm:
            self.query_norm = Norm(config.head_dim, epsilon=config.rms_norm_eps)
            self.key_norm = Norm(config.head_dim, epsilon=config.rms_norm_eps)
        self.weights_dropout = nnx.Dropout(config.attention_dropout)


def modules(config: CommonConfig) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each module of a Gemma."""
    kind, switches = "dense" if config.attention_bias else "matrix", config.switches
    yield "embed_tokens", "token", "embedding"
    for layer in range(config.num_hidden_layers):
        theirs, ours = f"layers.{layer}", f"layers/{layer}"
        for part, name in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
            yield f"{theirs}.self_attn.{part}_proj", f"{ours}/attention/{name}", kind
        if switches.query_key_norm:
            yield f"{theirs}.self_attn.q_norm", f"{ours}/attention/query_norm", "scale"
            yield f"{theirs}.self_attn.k_norm", f"{ours}/attention/key_norm", "scale"
        for part in ("gate", "up", "down"):
            yield f"{theirs}.mlp.{part}_proj", f"{ours}/feed_forward/{part}", "matrix"
        yield f"{theirs}.input_layernorm", f"{ours}/attention_norm", "scale"
        if switches.output_norms:
            yield f"{theirs}.post_attention_layernorm", f"{ours}/attention_output_norm", "scale"
            yield f"{theirs}.pre_feedforward_layernorm", f"{ours}/feed_forward_norm", "scale"
            yield f"{theirs}.post_feedforward_layernorm", f"{ours}/feed_forward_output_norm", "scale"
        else:
            yield f"{theirs}.post_attention_layernorm", f"{ours}/feed_forward_norm", "scale"
    yield "norm", "norm", "scale"
    if config.has_head:
        yield "lm_head", "head", "matrix"


COUNTERPART = replace(
    LLAMA_COUNTERPART,
    model_type="gemma",
    model_class="GemmaModel",
    language_model_class="GemmaForCausalLM",
    other_prefixes=(),
    taken=taken(GemmaConfig),
    modules=lambda config: modules(GemmaConfig.from_mapping("gemma", config)),
    # Import refuses attention in both directions, since use_bidirectional_attention is not in ``taken``.
)
"""Gemma in ``transformers``."""
