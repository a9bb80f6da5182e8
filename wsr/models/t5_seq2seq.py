"""T5 and Flan-T5 with their decoder in Flax NNX: answers are predicted token by token after an encoded question.

The features are those of the encoder, as in ``t5``. The decoder adds ``token_losses``, the cross-entropy of an answer
under teacher forcing. Question and answer lie in one packed row: the tokens of the answer are hidden from the encoder,
and the decoder attends to those before them and, across, to the encoded question.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Counterpart, Module
from wsr.models.layers.attention import attend
from wsr.models.layers.dense import dense, rms_norm, table
from wsr.models.layers.language_model import next_token_losses
from wsr.models.layers.mask import HIDDEN, Mask
from wsr.models.layers.relative_positions import distances, of_distance, t5_buckets
from wsr.models.model import Model
from wsr.models.t5 import EXAMPLE as ENCODER_EXAMPLE
from wsr.models.t5 import (
    PRETRAINED_LENGTH,
    T5,
    T5Config,
    feed_forward,
    modules_of_encoder,
    modules_of_feed_forward,
)

EXAMPLE: Mapping[str, Any] = {
    **ENCODER_EXAMPLE,
    "num_decoder_layers": 2,
    "scale_decoder_outputs": False,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "language_model_head": True,
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class T5Seq2SeqConfig(T5Config):
    """The hyperparameters of T5, under their Hugging Face names."""

    num_decoder_layers: int
    scale_decoder_outputs: bool
    """Whether the decoder's output is divided by the square root of its width before the head, as in the first T5."""
    pad_token_id: int
    decoder_start_token_id: int | None
    """The token before an answer; None: ``pad_token_id``."""
    language_model_head: bool = False
    """Whether the parameters include a language-modelling head; otherwise it is tied to the token embedding."""

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "T5Seq2SeqConfig":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "t5_seq2seq")
        typed.check()
        configs.require("t5_seq2seq", typed, num_decoder_layers=1)
        return typed

    @property
    def start(self) -> int:
        """The token before an answer."""
        return self.pad_token_id if self.decoder_start_token_id is None else self.decoder_start_token_id


def t5_seq2seq(config: Mapping[str, Any]) -> Model:
    """Returns the T5 with decoder that ``config`` describes (see ``T5Seq2SeqConfig``)."""
    typed = T5Seq2SeqConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: T5Seq2Seq(typed, rngs),
        name="t5_seq2seq",
        config=configs.write(typed),
        hidden=typed.d_model,
        max_length=PRETRAINED_LENGTH,
        language_model=True,
        encoder_decoder=True,
    )


class T5Seq2Seq(T5):
    """T5: the encoder, whose pooled hidden states are the features, and a decoder with a language-modelling head."""

    def __init__(self, config: T5Seq2SeqConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.start = config.start
        self.scale = config.d_model**-0.5 if config.scale_decoder_outputs else 1.0
        self.decoder = Decoder(config, rngs)
        spread = config.initializer_factor
        self.head = (
            dense(config.d_model, config.vocab_size, rngs, spread=spread, bias=False)
            if config.language_model_head
            else None
        )

    def token_losses(self, batch: Mapping[str, Array]) -> Float[Array, "rows length"]:
        """Returns at each token that is followed by a token of an answer that token's cross-entropy, else 0."""
        head = self.token.embedding[...].T if self.head is None else self.head.kernel[...]
        losses = next_token_losses(self.decoded(batch), head, batch)
        return jnp.where(batch["token_types"] == 1, losses, 0.0)

    def decoded(self, batch: Mapping[str, Array]) -> Float[Array, "rows length hidden"]:
        """Returns the decoder's output, scaled for the head, where the next token is one of an answer.

        Its input there is the token itself if it belongs to the answer, and else the token that starts answers. Other
        positions hold arbitrary numbers.
        """
        text_ids, before_answer = batch["text_ids"], batch["token_types"] == 1
        within = jnp.roll(before_answer, 1, axis=1) & (jnp.roll(text_ids, 1, axis=1) == text_ids) & (text_ids >= 0)
        in_answer = within.at[:, 0].set(False)
        encoded = self.hidden_states({**batch, "text_ids": jnp.where(in_answer, -1, text_ids)})
        inputs = jnp.where(in_answer, batch["token_ids"], self.start)
        positions = batch["positions"]
        causal = Mask(text_ids, jnp.where(before_answer, text_ids, HIDDEN), positions, causal=True)
        across = Mask(text_ids, jnp.where(in_answer, HIDDEN, text_ids), positions)
        return self.decoder(self.token(inputs), encoded, causal, across, positions) * self.scale


class Decoder(nnx.Module):
    """T5's decoder: layers that share one causal attention bias by distance, and a final norm."""

    def __init__(self, config: T5Seq2SeqConfig, rngs: nnx.Rngs):
        self.buckets, self.furthest = config.relative_attention_num_buckets, config.relative_attention_max_distance
        spread = config.initializer_factor * config.d_model**-0.5
        self.distance = table(self.buckets, config.num_heads, rngs, spread=spread)
        self.layers = nnx.List([DecoderLayer(config, rngs) for _ in range(config.num_decoder_layers)])
        self.norm = rms_norm(config.d_model, rngs, epsilon=config.layer_norm_epsilon)

    def __call__(
        self,
        embedded: Float[Array, "rows length hidden"],
        encoded: Float[Array, "rows length hidden"],
        causal: Mask,
        across: Mask,
        positions: Array,
    ) -> Float[Array, "rows length hidden"]:
        apart = t5_buckets(distances(causal.length), self.buckets, self.furthest, causal=True)
        bias = of_distance(self.distance(apart), positions).transpose(0, 3, 1, 2)
        hidden, source = (states.reshape(-1, states.shape[-1]) for states in (embedded, encoded))
        for layer in self.layers:
            hidden = layer(hidden, source, causal, across, bias)
        return self.norm(hidden).reshape(embedded.shape)


class Attention(nnx.Module):
    """The four matrices of an attention."""

    def __init__(self, config: T5Seq2SeqConfig, rngs: nnx.Rngs):
        factor, hidden, inner = config.initializer_factor, config.d_model, config.num_heads * config.d_kv
        self.heads = config.num_heads
        self.query = dense(hidden, inner, rngs, spread=factor * (hidden * config.d_kv) ** -0.5, bias=False)
        self.key = dense(hidden, inner, rngs, spread=factor * hidden**-0.5, bias=False)
        self.value = dense(hidden, inner, rngs, spread=factor * hidden**-0.5, bias=False)
        self.output = dense(inner, hidden, rngs, spread=factor * inner**-0.5, bias=False)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        source: Float[Array, "tokens hidden"],
        mask: Mask,
        bias: Float[Array, "rows heads length length"] | None = None,
    ) -> Float[Array, "tokens hidden"]:
        query, key, value = self.query(hidden), self.key(source), self.value(source)
        return self.output(attend(query, key, value, mask, heads=self.heads, scale=1.0, bias=bias))


class DecoderLayer(nnx.Module):
    """Attention to the answer so far, attention to the encoded question and a feed-forward network, each pre-norm."""

    def __init__(self, config: T5Seq2SeqConfig, rngs: nnx.Rngs):
        self.attention_norm = rms_norm(config.d_model, rngs, epsilon=config.layer_norm_epsilon)
        self.attention = Attention(config, rngs)
        self.cross_norm = rms_norm(config.d_model, rngs, epsilon=config.layer_norm_epsilon)
        self.cross = Attention(config, rngs)
        self.feed_forward_norm = rms_norm(config.d_model, rngs, epsilon=config.layer_norm_epsilon)
        self.feed_forward = feed_forward(config, rngs)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        source: Float[Array, "tokens hidden"],
        causal: Mask,
        across: Mask,
        bias: Float[Array, "rows heads length length"],
    ) -> Float[Array, "tokens hidden"]:
        normed = self.attention_norm(hidden)
        hidden = hidden + self.attention(normed, normed, causal, bias)
        hidden = hidden + self.cross(self.cross_norm(hidden), source, across)
        return hidden + self.feed_forward(self.feed_forward_norm(hidden))


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each module of T5."""
    typed = T5Seq2SeqConfig.from_mapping(config)
    yield from modules_of_encoder(typed.num_layers, gated=typed.gated)
    yield "decoder.block.0.layer.0.SelfAttention.relative_attention_bias", "decoder/distance", "embedding"
    for layer in range(typed.num_decoder_layers):
        theirs, ours = f"decoder.block.{layer}", f"decoder/layers/{layer}"
        for number, module, called in ((0, "SelfAttention", "attention"), (1, "EncDecAttention", "cross")):
            yield f"{theirs}.layer.{number}.layer_norm", f"{ours}/{called}_norm", "scale"
            for part, name in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
                yield f"{theirs}.layer.{number}.{module}.{part}", f"{ours}/{called}/{name}", "matrix"
        yield f"{theirs}.layer.2.layer_norm", f"{ours}/feed_forward_norm", "scale"
        yield from modules_of_feed_forward(f"{theirs}.layer.2", ours, gated=typed.gated)
    yield "decoder.final_layer_norm", "decoder/norm", "scale"
    if typed.language_model_head:
        yield "lm_head", "head", "matrix"


_TABLES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
COUNTERPART = Counterpart(
    model_type="t5",
    model_class="T5ForConditionalGeneration",
    language_model_class="T5ForConditionalGeneration",
    classes=("T5ForConditionalGeneration",),
    prefix="",
    taken=tuple(
        name for name in T5Seq2SeqConfig.__dataclass_fields__ if name not in ("pooling", "language_model_head")
    ),
    modules=modules,
    # The second table is a relic of the first T5, which transformers ignores too.
    dropped=r"(encoder|decoder)\.embed_tokens\.weight|lm_head\..+"
    r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    tied={"shared.weight": (*_TABLES, "lm_head.weight")},
    copies=dict.fromkeys(_TABLES, "shared.weight"),
    untied={"language_model_head": "lm_head.weight"},
    only={"is_encoder_decoder": True},
    optional={"decoder_start_token_id": None},
    harmless=frozenset(("tie_word_embeddings",)),
    pooling="mean",
)
"""T5 with its decoder in ``transformers``."""
