"""Llama in Flax NNX, with the switches that make it Qwen2 or Qwen3."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Counterpart, Module
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.attention import attend
from wsr.models.layers.dense import dense, rms_norm, table
from wsr.models.layers.feed_forward import BareFeedForward
from wsr.models.layers.language_model import next_token_losses
from wsr.models.layers.mask import Mask, within_texts
from wsr.models.layers.pooling import POOLINGS, pool
from wsr.models.layers.rotary import angles, frequencies, rotate
from wsr.models.model import Model

COMMON_EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "attention_dropout": 0.1,
    "tie_word_embeddings": False,
    "pooling": "last",
    "language_model_head": True,
}
"""The values that the small test configs of Llama, Qwen2 and Qwen3 share."""

EXAMPLE: Mapping[str, Any] = {**COMMON_EXAMPLE, "head_dim": 4, "attention_bias": False, "mlp_bias": False}
"""A config small enough for a test."""


def llama(config: Mapping[str, Any]) -> Model:
    """Returns the Llama decoder that ``config`` describes (see ``LlamaConfig``)."""
    return decoder("llama", LlamaConfig.from_mapping("llama", config))


@dataclass(frozen=True)
class Switches:
    """The points in which Llama-like decoders differ."""

    head_width: int
    query_key_value_bias: bool = False
    output_bias: bool = False
    feed_forward_bias: bool = False
    query_key_norm: bool = False


Config = TypeVar("Config", bound="DecoderConfig")


@dataclass(frozen=True)
class DecoderConfig:
    """The hyperparameters of a Llama-like decoder, under their Hugging Face names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    hidden_act: str
    max_position_embeddings: int
    initializer_range: float
    rms_norm_eps: float
    rope_parameters: Mapping[str, Any]
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
        positive = (*sizes, "num_key_value_heads", "max_position_embeddings")
        configs.require(what, typed, **dict.fromkeys(positive, 1), hidden_act=ACTIVATIONS, pooling=POOLINGS)
        configs.require_share(what, typed, "attention_dropout")
        configs.require_multiple(what, typed, "num_attention_heads", "num_key_value_heads")
        if hasattr(typed, "head_dim"):
            configs.require(what, typed, head_dim=1)
        else:
            configs.require_multiple(what, typed, "hidden_size", "num_attention_heads")
        frequencies(what, typed.rope_parameters, typed.switches.head_width)
        return typed

    @property
    def switches(self) -> Switches:
        """The points in which this architecture differs from the others."""
        raise NotImplementedError

    @property
    def has_head(self) -> bool:
        """Whether there is a language-modelling head apart from the token embedding."""
        return self.language_model_head and not self.tie_word_embeddings


@dataclass(frozen=True)
class LlamaConfig(DecoderConfig):
    """``DecoderConfig``, plus the width of a head and the switches for biases."""

    head_dim: int
    attention_bias: bool
    mlp_bias: bool

    @property
    def switches(self) -> Switches:
        """Biases as ``attention_bias`` and ``mlp_bias`` say."""
        return Switches(self.head_dim, self.attention_bias, self.attention_bias, self.mlp_bias)


def decoder(name: str, config: DecoderConfig) -> Model:
    """Returns the decoder that the config of any Llama-like architecture describes, as a model called ``name``."""
    return from_nnx(
        lambda rngs: Llama(name, config, rngs),
        name=name,
        config=configs.write(config),
        hidden=config.hidden_size,
        max_length=config.max_position_embeddings,
        language_model=config.tie_word_embeddings or config.language_model_head,
    )


class Llama(nnx.Module):
    """A Llama-like decoder: token embeddings, pre-norm layers, a final norm and pooling."""

    def __init__(self, name: str, config: DecoderConfig, rngs: nnx.Rngs):
        hidden, spread = config.hidden_size, config.initializer_range
        self.pooling = config.pooling
        self.frequencies = frequencies(name, config.rope_parameters, config.switches.head_width)
        self.token = table(config.vocab_size, hidden, rngs, spread=spread)
        self.layers = nnx.List([Layer(config, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = rms_norm(hidden, rngs, epsilon=config.rms_norm_eps)
        self.head = dense(hidden, config.vocab_size, rngs, spread=spread, bias=False) if config.has_head else None

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        return pool(self.pooling, self.hidden_states(batch, rngs), batch)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the hidden states after the final normalisation."""
        embedded = self.token(batch["token_ids"])
        mask = within_texts(batch["text_ids"], batch["positions"], causal=True)
        turns = angles(batch["positions"], self.frequencies)
        hidden = embedded.reshape(-1, embedded.shape[-1])
        for layer in self.layers:
            hidden = layer(hidden, mask, turns, rngs)
        return self.norm(hidden).reshape(embedded.shape)

    def token_losses(self, batch: Mapping[str, Array]) -> Float[Array, "rows length"]:
        """Returns at each token the cross-entropy of the next token, in nats; see ``next_token_losses``."""
        head = self.token.embedding[...].T if self.head is None else self.head.kernel[...]
        return next_token_losses(self.hidden_states(batch), head, batch)


class Layer(nnx.Module):
    """Self-attention and a gated feed-forward network, each normalised before (pre-norm) and added to its input."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        hidden = config.hidden_size
        self.attention_norm = rms_norm(hidden, rngs, epsilon=config.rms_norm_eps)
        self.attention = Attention(config, rngs)
        self.feed_forward_norm = rms_norm(hidden, rngs, epsilon=config.rms_norm_eps)
        self.feed_forward = BareFeedForward(
            hidden,
            config.intermediate_size,
            rngs,
            activation=config.hidden_act,
            gated=True,
            bias=config.switches.feed_forward_bias,
            spread=config.initializer_range,
        )

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        turns: Float[Array, "tokens half_width"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        hidden = hidden + self.attention(self.attention_norm(hidden), mask, turns, rngs)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden), rngs)


class Attention(nnx.Module):
    """Grouped-query attention with rotary positions: groups of query heads share one key and value head."""

    scale: float | None = None
    """Factor of the scores; None: one over the root of a head's width."""
    cap: float | None = None
    """Bound of the size of the scores (Gemma 2); None: there is none."""

    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        switches, hidden, spread = config.switches, config.hidden_size, config.initializer_range
        self.heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        wide, narrow = self.heads * switches.head_width, self.key_heads * switches.head_width
        bias = switches.query_key_value_bias
        self.query = dense(hidden, wide, rngs, spread=spread, bias=bias)
        self.key = dense(hidden, narrow, rngs, spread=spread, bias=bias)
        self.value = dense(hidden, narrow, rngs, spread=spread, bias=bias)
        self.output = dense(wide, hidden, rngs, spread=spread, bias=switches.output_bias)
        if switches.query_key_norm:
            self.query_norm = rms_norm(switches.head_width, rngs, epsilon=config.rms_norm_eps)
            self.key_norm = rms_norm(switches.head_width, rngs, epsilon=config.rms_norm_eps)
        self.query_key_norm = switches.query_key_norm
        self.weights_dropout = nnx.Dropout(config.attention_dropout)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        turns: Float[Array, "tokens half_width"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        query, key = self.query(hidden), self.key(hidden)
        if self.query_key_norm:
            query, key = _by_head(self.query_norm, query, self.heads), _by_head(self.key_norm, key, self.key_heads)
        mixed = attend(
            rotate(query, turns, self.heads),
            rotate(key, turns, self.key_heads),
            self.value(hidden),
            mask,
            heads=self.heads,
            key_heads=self.key_heads,
            scale=self.scale,
            cap=self.cap,
            dropout=self.weights_dropout,
            rngs=rngs,
        )
        return self.output(mixed)


def _by_head(norm: Callable[[Array], Array], features: Float[Array, "tokens features"], heads: int) -> Array:
    return norm(features.reshape(len(features), heads, -1)).reshape(features.shape)


def modules(config: DecoderConfig) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each module of a Llama-like decoder."""
    switches = config.switches
    yield "embed_tokens", "token", "embedding"
    for layer in range(config.num_hidden_layers):
        theirs, ours = f"layers.{layer}", f"layers/{layer}"
        for part, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value")):
            yield f"{theirs}.self_attn.{part}", f"{ours}/attention/{name}", _dense(switches.query_key_value_bias)
        yield f"{theirs}.self_attn.o_proj", f"{ours}/attention/output", _dense(switches.output_bias)
        if switches.query_key_norm:
            yield f"{theirs}.self_attn.q_norm", f"{ours}/attention/query_norm", "scale"
            yield f"{theirs}.self_attn.k_norm", f"{ours}/attention/key_norm", "scale"
        for part in ("gate", "up", "down"):
            yield f"{theirs}.mlp.{part}_proj", f"{ours}/feed_forward/{part}", _dense(switches.feed_forward_bias)
        yield f"{theirs}.input_layernorm", f"{ours}/attention_norm", "scale"
        yield f"{theirs}.post_attention_layernorm", f"{ours}/feed_forward_norm", "scale"
    yield "norm", "norm", "scale"
    if config.has_head:
        yield "lm_head", "head", "matrix"


def _dense(bias: bool) -> str:
    return "dense" if bias else "matrix"


def taken(kind: type[Any]) -> tuple[str, ...]:
    """Returns the Hugging Face config attributes that determine a decoder's computation."""
    return tuple(name for name in kind.__dataclass_fields__ if name not in ("pooling", "language_model_head"))


COUNTERPART = Counterpart(
    model_type="llama",
    model_class="LlamaModel",
    language_model_class="LlamaForCausalLM",
    prefix="model.",
    other_prefixes=("transformer.",),  # question answering
    taken=taken(LlamaConfig),
    present={"language_model_head": "lm_head.weight"},
    modules=lambda config: modules(LlamaConfig.from_mapping("llama", config)),
    dropped=r"(lm_head|score|qa_outputs|classifier)\..+",
    constants=r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq",
    tied={"embed_tokens.weight": ("lm_head.weight",)},
    harmless=frozenset(("pad_token_id",)),
    pooling="last",
)
"""Llama in ``transformers``."""
