"""DeBERTa-v2 and v3: disentangled attention (He et al. 2021, arXiv 2006.03654 and 2111.09543)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from wsr.errors import WsrError
from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.bert import EXAMPLE as BERT_EXAMPLE
from wsr.models.bert import Bert
from wsr.models.counterpart import Counterpart, Module
from wsr.models.encoder_config import EncoderConfig, taken
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.block import FeedForward
from wsr.models.layers.convolution import Convolution
from wsr.models.layers.dense import layer_norm, table
from wsr.models.layers.disentangled_attention import DisentangledAttention, Nearness, nearness
from wsr.models.layers.embeddings import Embeddings
from wsr.models.layers.mask import within_texts
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    **BERT_EXAMPLE,
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "position_buckets": 4,
    "position_biased_input": False,
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "conv_kernel_size": 0,
    "conv_act": "tanh",
    "pooling": "cls",
}
"""A config small enough for a test, in the manner of v3."""


def deberta_v2(config: Mapping[str, Any]) -> Model:
    """Returns the DeBERTa encoder that ``config`` describes (version 2 or 3; see ``DebertaV2Config``)."""
    typed = DebertaV2Config.from_mapping(config)
    return from_nnx(
        lambda rngs: DebertaV2(typed, rngs),
        name="deberta_v2",
        config=typed.to_mapping(),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings,
    )


@dataclass(frozen=True)
class DebertaV2Config(EncoderConfig):
    """``EncoderConfig``, plus the settings of disentangled attention."""

    type_vocab_size: int
    """0 if the encoder does not tell the two texts of a pair apart."""
    pos_att_type: tuple[str, ...] | None
    """Attention scores besides content to content: "c2p" (content to position), "p2c" (position to content)."""
    max_relative_positions: int
    """Largest relative position; below 1: ``max_position_embeddings``."""
    position_buckets: int
    """Number of distance buckets; below 1: one bucket for each distance."""
    position_biased_input: bool
    """Whether the embeddings include absolute positions."""
    share_att_key: bool
    """Whether distances share the query and key projections of the content."""
    norm_rel_ebd: str
    """Normalisation of the table of distances: "layer_norm" or "none"."""
    conv_kernel_size: int
    """Width of the convolution parallel to the first layer; 0: none."""
    conv_act: str

    def check(self) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another."""
        super().check()
        configs.require("encoder", self, type_vocab_size=0, norm_rel_ebd=("none", "layer_norm"), conv_act=ACTIVATIONS)
        unknown = set(self.pos_att_type or ()) - {"c2p", "p2c"}
        if unknown:
            raise WsrError(f"encoder config: pos_att_type has {', '.join(sorted(unknown))}; known: c2p, p2c")
        if self.position_buckets > 0 and not 1 <= self.position_buckets // 2 < self.furthest - 1:
            raise WsrError(
                f"encoder config: position_buckets = {self.position_buckets}; expected at least 2, and half of it "
                f"below the furthest distance, {self.furthest - 1}"
            )
        if self.conv_kernel_size > 0 and self.conv_kernel_size % 2 == 0:
            raise WsrError(f"encoder config: conv_kernel_size = {self.conv_kernel_size}; expected an odd number, or 0")

    @property
    def furthest(self) -> int:
        """Distance, in tokens, at which the buckets end."""
        return self.max_position_embeddings if self.max_relative_positions < 1 else self.max_relative_positions

    @property
    def span(self) -> int:
        """Half the number of rows in the table of distances."""
        return self.furthest if self.position_buckets < 1 else self.position_buckets


class DebertaV2(Bert):
    """BERT with disentangled attention: separate scores for content and for distance."""

    def __init__(self, config: DebertaV2Config, rngs: nnx.Rngs):
        hidden, epsilon = config.hidden_size, config.layer_norm_eps
        self.config = config
        self.pooling = config.pooling
        self.embeddings = Embeddings(
            config, rngs, token_types=config.type_vocab_size, positions=config.position_biased_input
        )
        self.distance = table(2 * config.span, hidden, rngs, spread=config.initializer_range)
        normalised = config.norm_rel_ebd == "layer_norm"
        self.distance_norm = layer_norm(hidden, rngs, epsilon=epsilon) if normalised else None
        self.convolution = ConvolutionBeside(config, rngs) if config.conv_kernel_size > 0 else None
        self.layers = nnx.List([Layer(config, rngs) for _ in range(config.num_hidden_layers)])

    def transform(
        self, embedded: Float[Array, "tokens features"], batch: Mapping[str, Array], rngs: nnx.Rngs | None
    ) -> Float[Array, "tokens hidden"]:
        """Applies the layers to the embeddings and returns the hidden states of the last one."""
        near = nearness(
            within_texts(batch["text_ids"], batch["positions"]),
            batch["positions"],
            buckets=self.config.position_buckets,
            furthest=self.config.furthest,
            span=self.config.span,
        )
        distance = self.distance.embedding[near.rows]
        if self.distance_norm is not None:
            distance = self.distance_norm(distance)
        hidden = embedded
        for index, layer in enumerate(self.layers):
            hidden = layer(hidden, distance, near, rngs)
            if index == 0 and self.convolution is not None:
                hidden = self.convolution(embedded, hidden, batch, rngs)
        return hidden


class Layer(nnx.Module):
    """Disentangled attention, then BERT's feed-forward network."""

    def __init__(self, config: DebertaV2Config, rngs: nnx.Rngs):
        self.attention = DisentangledAttention(
            config, rngs, scores=config.pos_att_type or (), shared=config.share_att_key
        )
        self.feed_forward = FeedForward(config, rngs)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        distance: Float[Array, "distances hidden"],
        near: Nearness,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        return self.feed_forward(self.attention.disentangled(hidden, distance, near, rngs), rngs)


class ConvolutionBeside(nnx.Module):
    """A convolution of the embeddings, added to the output of the first layer (xlarge models of version 2)."""

    def __init__(self, config: DebertaV2Config, rngs: nnx.Rngs):
        hidden, spread = config.hidden_size, config.initializer_range
        self.activation = ACTIVATIONS[config.conv_act]
        self.convolution = Convolution(hidden, config.conv_kernel_size, rngs, spread=spread)
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        embedded: Float[Array, "tokens hidden"],
        hidden: Float[Array, "tokens hidden"],
        batch: Mapping[str, Array],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        convolved = self.convolution(embedded, batch["text_ids"], batch["positions"])
        return self.norm(hidden + self.activation(self.dropout(convolved, rngs=rngs)))


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of DeBERTa's modules."""
    typed = DebertaV2Config.from_mapping(config)
    yield "embeddings.word_embeddings", "embeddings/token", "embedding"
    if typed.position_biased_input:
        yield "embeddings.position_embeddings", "embeddings/position", "embedding"
    if typed.type_vocab_size:
        yield "embeddings.token_type_embeddings", "embeddings/token_type", "embedding"
    yield "embeddings.LayerNorm", "embeddings/norm", "norm"
    yield "encoder.rel_embeddings", "distance", "embedding"
    if typed.norm_rel_ebd == "layer_norm":
        yield "encoder.LayerNorm", "distance_norm", "norm"
    if typed.conv_kernel_size > 0:
        yield "encoder.conv.conv", "convolution/convolution", "dense"
        yield "encoder.conv.LayerNorm", "convolution/norm", "norm"
    for layer in range(typed.num_hidden_layers):
        theirs, ours = f"encoder.layer.{layer}", f"layers/{layer}"
        for part in ("query", "key", "value"):
            yield f"{theirs}.attention.self.{part}_proj", f"{ours}/attention/{part}", "dense"
        if not typed.share_att_key:
            for score, theirs_of, ours_of in (
                ("c2p", "pos_key", "distance_key"),
                ("p2c", "pos_query", "distance_query"),
            ):
                if score in (typed.pos_att_type or ()):
                    yield f"{theirs}.attention.self.{theirs_of}_proj", f"{ours}/attention/{ours_of}", "dense"
        yield f"{theirs}.attention.output.dense", f"{ours}/attention/output", "dense"
        yield f"{theirs}.attention.output.LayerNorm", f"{ours}/attention/norm", "norm"
        yield f"{theirs}.intermediate.dense", f"{ours}/feed_forward/intermediate", "dense"
        yield f"{theirs}.output.dense", f"{ours}/feed_forward/output", "dense"
        yield f"{theirs}.output.LayerNorm", f"{ours}/feed_forward/norm", "norm"


COUNTERPART = Counterpart(
    model_type="deberta-v2",
    model_class="DebertaV2Model",
    prefix="deberta.",
    taken=taken(DebertaV2Config),
    modules=modules,
    # A table of positions is dropped if the config does not use it.
    dropped=r"embeddings\.position_embeddings\.weight|"
    r"(pooler\.dense|cls|lm_predictions|mask_predictions|classifier|qa_outputs)\..+",
    tied={"embeddings.word_embeddings.weight": ("cls.predictions.decoder.weight",)},
    only={"relative_attention": True, "conv_groups": 1},
    optional={
        "position_buckets": -1,
        "share_att_key": False,
        "norm_rel_ebd": "none",
        "conv_kernel_size": 0,
        "conv_act": "tanh",
    },
    # If it is not the hidden size over the heads, the shapes of the weights do not fit and import refuses them.
    harmless=frozenset(("attention_head_size",)),
)
"""DeBERTa-v2 and v3 in ``transformers``."""
