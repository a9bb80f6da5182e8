"""MPNet: BERT's layers with one attention bias by distance for all layers (Song et al. 2020, arXiv 2004.09297)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.bert import EXAMPLE as BERT_EXAMPLE
from wsr.models.bert import Bert, blocks
from wsr.models.counterpart import Counterpart, Module
from wsr.models.encoder_config import EncoderConfig, taken
from wsr.models.layers.dense import table
from wsr.models.layers.embeddings import Embeddings
from wsr.models.layers.mask import within_texts
from wsr.models.layers.relative_positions import distances, of_distance, t5_buckets
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    **{name: value for name, value in BERT_EXAMPLE.items() if name != "type_vocab_size"},
    "pad_token_id": 1,
    "relative_attention_num_buckets": 32,
}
"""A config small enough for a test."""

# Constants of the original code, which ignores the config here.
FIRST_POSITION = 2
BUCKETS = 32
FURTHEST = 128


def mpnet(config: Mapping[str, Any]) -> Model:
    """Returns the MPNet encoder that ``config`` describes (see ``MPNetConfig``)."""
    typed = MPNetConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: MPNet(typed, rngs),
        name="mpnet",
        config=typed.to_mapping(),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings - FIRST_POSITION,
    )


@dataclass(frozen=True)
class MPNetConfig(EncoderConfig):
    """``EncoderConfig``, plus the number of rows in the table of distances."""

    relative_attention_num_buckets: int

    def check(self) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another."""
        super().check()
        configs.require("encoder", self, relative_attention_num_buckets=BUCKETS)


class MPNet(Bert):
    """BERT without token types; positions count from 2."""

    def __init__(self, config: MPNetConfig, rngs: nnx.Rngs):
        self.pooling = config.pooling
        rows, heads = config.relative_attention_num_buckets, config.num_attention_heads
        self.embeddings = Embeddings(config, rngs, token_types=0)
        self.layers = nnx.List(blocks(config, rngs))
        self.distance = table(rows, heads, rngs, spread=config.initializer_range)

    def embed(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None) -> Float[Array, "rows length features"]:
        """Returns the embeddings of the tokens, whose positions count from 2."""
        return self.embeddings(batch["token_ids"], batch["positions"] + FIRST_POSITION, batch["token_types"], rngs)

    def transform(
        self, hidden: Float[Array, "tokens features"], batch: Mapping[str, Array], rngs: nnx.Rngs | None
    ) -> Float[Array, "tokens hidden"]:
        """Applies the layers to the embeddings and returns the hidden states of the last one."""
        mask = within_texts(batch["text_ids"], batch["positions"])
        by_distance = self.distance(t5_buckets(distances(mask.length), BUCKETS, FURTHEST))
        bias = of_distance(by_distance, batch["positions"]).transpose(0, 3, 1, 2)
        for layer in self.layers:
            hidden = layer(hidden, mask, rngs, bias)
        return hidden


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of MPNet's modules."""
    yield "embeddings.word_embeddings", "embeddings/token", "embedding"
    yield "embeddings.position_embeddings", "embeddings/position", "embedding"
    yield "embeddings.LayerNorm", "embeddings/norm", "norm"
    yield "encoder.relative_attention_bias", "distance", "embedding"
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"encoder.layer.{layer}", f"layers/{layer}"
        for part, name in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
            yield f"{theirs}.attention.attn.{part}", f"{ours}/attention/{name}", "dense"
        yield f"{theirs}.attention.LayerNorm", f"{ours}/attention/norm", "norm"
        yield f"{theirs}.intermediate.dense", f"{ours}/feed_forward/intermediate", "dense"
        yield f"{theirs}.output.dense", f"{ours}/feed_forward/output", "dense"
        yield f"{theirs}.output.LayerNorm", f"{ours}/feed_forward/norm", "norm"


COUNTERPART = Counterpart(
    model_type="mpnet",
    model_class="MPNetModel",
    prefix="mpnet.",
    taken=taken(MPNetConfig),
    modules=modules,
    dropped=r"(pooler\.dense|lm_head|classifier|qa_outputs)\..+",
    tied={"embeddings.word_embeddings.weight": ("lm_head.decoder.weight",)},
)
"""MPNet in ``transformers``."""
