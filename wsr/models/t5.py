"""The encoder of T5 in Flax NNX: relative positions, pre-norm layers with root-mean-square norms, no biases."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Counterpart, Module
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.attention import attend
from wsr.models.layers.dense import dense, rms_norm, table
from wsr.models.layers.feed_forward import BareFeedForward
from wsr.models.layers.mask import Mask, within_texts
from wsr.models.layers.pooling import POOLINGS, pool
from wsr.models.layers.relative_positions import distances, of_distance, t5_buckets
from wsr.models.model import Model

PRETRAINED_LENGTH = 512
"""Length of the texts in T5's pretraining, in tokens; the architecture itself has no limit."""

EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "d_model": 16,
    "d_kv": 6,
    "d_ff": 24,
    "num_layers": 2,
    "num_heads": 2,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "dropout_rate": 0.1,
    "layer_norm_epsilon": 1e-6,
    "initializer_factor": 1.0,
    "feed_forward_proj": "gated-gelu",
    "pooling": "mean",
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class T5Config:
    """The hyperparameters of T5's encoder, under their Hugging Face names."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    relative_attention_num_buckets: int
    relative_attention_max_distance: int
    dropout_rate: float
    layer_norm_epsilon: float
    initializer_factor: float
    feed_forward_proj: str
    pooling: str

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "T5Config":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "t5")
        typed.check()
        return typed

    def check(self) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another."""
        positive = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")
        configs.require("t5", self, **dict.fromkeys(positive, 1), pooling=POOLINGS)
        # With fewer than 4, no bucket is left for exact distances.
        configs.require("t5", self, relative_attention_num_buckets=4)
        configs.require("t5", self, relative_attention_max_distance=self.relative_attention_num_buckets // 4 + 1)
        configs.require("t5", self, feed_forward_proj=(*ACTIVATIONS, *(f"gated-{name}" for name in ACTIVATIONS)))
        configs.require_share("t5", self, "dropout_rate")

    @property
    def gated(self) -> bool:
        """Whether the feed-forward network has a gate, as in T5 1.1 and Flan-T5."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """Name of the feed-forward network's activation; gated GELU is the tanh approximation."""
        name = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else name


def t5(config: Mapping[str, Any]) -> Model:
    """Returns the T5 encoder that ``config`` describes (see ``T5Config``)."""
    typed = T5Config.from_mapping(config)
    return from_nnx(
        lambda rngs: T5(typed, rngs),
        name="t5",
        config=configs.write(typed),
        hidden=typed.d_model,
        max_length=PRETRAINED_LENGTH,
    )


class T5(nnx.Module):
    """T5's encoder: token embeddings, layers that share one attention bias by distance, a final norm and pooling."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        factor, hidden = config.initializer_factor, config.d_model
        self.pooling = config.pooling
        self.token = table(config.vocab_size, hidden, rngs, spread=factor)
        self.buckets = config.relative_attention_num_buckets
        self.furthest = config.relative_attention_max_distance
        self.distance = table(self.buckets, config.num_heads, rngs, spread=factor * hidden**-0.5)
        self.layers = nnx.List([Layer(config, rngs) for _ in range(config.num_layers)])
        self.norm = rms_norm(hidden, rngs, epsilon=config.layer_norm_epsilon)
        self.dropout = nnx.Dropout(config.dropout_rate)

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        return pool(self.pooling, self.hidden_states(batch, rngs), batch)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the hidden states after the final normalisation."""
        embedded = self.token(batch["token_ids"])
        mask = within_texts(batch["text_ids"], batch["positions"])
        by_distance = self.distance(t5_buckets(distances(mask.length), self.buckets, self.furthest))
        bias = of_distance(by_distance, batch["positions"]).transpose(0, 3, 1, 2)
        hidden = self.dropout(embedded.reshape(-1, embedded.shape[-1]), rngs=rngs)
        for layer in self.layers:
            hidden = layer(hidden, mask, bias, rngs)
        return self.dropout(self.norm(hidden), rngs=rngs).reshape(embedded.shape)


class Layer(nnx.Module):
    """Self-attention and a feed-forward network, each normalised before (pre-norm) and added to its input."""

    def __init__(self, config: T5Config, rngs: nnx.Rngs):
        factor, hidden, inner = config.initializer_factor, config.d_model, config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.attention_norm = rms_norm(hidden, rngs, epsilon=config.layer_norm_epsilon)
        self.query = dense(hidden, inner, rngs, spread=factor * (hidden * config.d_kv) ** -0.5, bias=False)
        self.key = dense(hidden, inner, rngs, spread=factor * hidden**-0.5, bias=False)
        self.value = dense(hidden, inner, rngs, spread=factor * hidden**-0.5, bias=False)
        self.output = dense(inner, hidden, rngs, spread=factor * inner**-0.5, bias=False)
        self.feed_forward_norm = rms_norm(hidden, rngs, epsilon=config.layer_norm_epsilon)
        self.feed_forward = feed_forward(config, rngs)
        self.dropout = nnx.Dropout(config.dropout_rate)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        bias: Float[Array, "rows heads length length"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        normed = self.attention_norm(hidden)
        mixed = attend(
            self.query(normed),
            self.key(normed),
            self.value(normed),
            mask,
            heads=self.heads,
            scale=1.0,
            bias=bias,
            dropout=self.dropout,
            rngs=rngs,
        )
        hidden = hidden + self.dropout(self.output(mixed), rngs=rngs)
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden), rngs), rngs=rngs)


def feed_forward(config: T5Config, rngs: nnx.Rngs) -> BareFeedForward:
    """Returns the feed-forward network of a layer."""
    return BareFeedForward(
        config.d_model,
        config.d_ff,
        rngs,
        activation=config.activation,
        gated=config.gated,
        bias=False,
        spread=config.initializer_factor * config.d_model**-0.5,
        last_spread=config.initializer_factor * config.d_ff**-0.5,
        dropout=config.dropout_rate,
    )


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each module of T5's encoder."""
    return modules_of_encoder(config["num_layers"], gated=T5Config.from_mapping(config).gated)


def modules_of_encoder(layers: int, *, gated: bool) -> Iterator[Module]:
    """Yields the same for an encoder of ``layers`` layers, whose feed-forward networks are ``gated`` or not."""
    first = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"
    yield "shared", "token", "embedding"
    yield first, "distance", "embedding"
    for layer in range(layers):
        theirs, ours = f"encoder.block.{layer}", f"layers/{layer}"
        yield f"{theirs}.layer.0.layer_norm", f"{ours}/attention_norm", "scale"
        for part, name in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
            yield f"{theirs}.layer.0.SelfAttention.{part}", f"{ours}/{name}", "matrix"
        yield f"{theirs}.layer.1.layer_norm", f"{ours}/feed_forward_norm", "scale"
        yield from modules_of_feed_forward(f"{theirs}.layer.1", ours, gated=gated)
    yield "encoder.final_layer_norm", "norm", "scale"


def modules_of_feed_forward(theirs: str, ours: str, *, gated: bool) -> Iterator[Module]:
    """Yields the same for the feed-forward network of a layer."""
    for part, name in (("wi_0", "gate"), ("wi_1", "up")) if gated else (("wi", "up"),):
        yield f"{theirs}.DenseReluDense.{part}", f"{ours}/feed_forward/{name}", "matrix"
    yield f"{theirs}.DenseReluDense.wo", f"{ours}/feed_forward/down", "matrix"


COUNTERPART = Counterpart(
    model_type="t5",
    model_class="T5EncoderModel",
    prefix="transformer.",
    taken=tuple(name for name in T5Config.__dataclass_fields__ if name != "pooling"),
    modules=modules,
    dropped=r"encoder\.embed_tokens\.weight|(decoder|lm_head|classification_head|classifier|qa_outputs)\..+",
    tied={"shared.weight": ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")},
    copies={"encoder.embed_tokens.weight": "shared.weight"},
    only={"is_encoder_decoder": False},
    harmless=frozenset(("decoder_start_token_id", "is_encoder_decoder", "pad_token_id")),
    pooling="mean",
)
"""T5's encoder in ``transformers``. Load an export with ``T5EncoderModel`` or ``AutoModelForTextEncoding``:
``AutoModel`` would add a decoder with random parameters."""
