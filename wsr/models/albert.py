"""ALBERT: layers that share their parameters, over narrow embeddings (Lan et al. 2020, arXiv 1909.11942)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.bert import EXAMPLE as BERT_EXAMPLE
from wsr.models.bert import Bert, BertConfig, embedding_modules
from wsr.models.counterpart import Counterpart, Module
from wsr.models.encoder_config import taken
from wsr.models.layers.block import Block
from wsr.models.layers.dense import dense
from wsr.models.layers.embeddings import Embeddings
from wsr.models.layers.mask import within_texts
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    **BERT_EXAMPLE,
    "hidden_act": "gelu_new",
    "embedding_size": 8,
    "num_hidden_groups": 1,
    "inner_group_num": 1,
    "pooling": "cls",
}
"""A config small enough for a test."""


def albert(config: Mapping[str, Any]) -> Model:
    """Returns the ALBERT encoder that ``config`` describes (see ``AlbertConfig``)."""
    typed = AlbertConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: Albert(typed, rngs),
        name="albert",
        config=typed.to_mapping(),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings,
    )


@dataclass(frozen=True)
class AlbertConfig(BertConfig):
    """``BertConfig``, plus the width of an embedding and how layers share their parameters."""

    embedding_size: int
    num_hidden_groups: int
    inner_group_num: int

    def check(self) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another."""
        super().check()
        configs.require("encoder", self, embedding_size=1, num_hidden_groups=1, inner_group_num=1)

    def group(self, layer: int) -> int:
        """Returns the group whose parameters layer number ``layer`` uses."""
        # Divides as transformers does: rounding matters if the number of layers is not a multiple of the groups.
        return int(layer / (self.num_hidden_layers / self.num_hidden_groups))


class Albert(Bert):
    """Groups of layers, each applied several times."""

    def __init__(self, config: AlbertConfig, rngs: nnx.Rngs):
        self.pooling = config.pooling
        features, hidden, spread = config.embedding_size, config.hidden_size, config.initializer_range
        self.embeddings = Embeddings(config, rngs, token_types=config.type_vocab_size, features=features)
        self.projection = dense(features, hidden, rngs, spread=spread)
        self.groups = nnx.List(
            [
                nnx.List([Block(config, rngs) for _ in range(config.inner_group_num)])
                for _ in range(config.num_hidden_groups)
            ]
        )
        self.order = tuple(config.group(layer) for layer in range(config.num_hidden_layers))

    def transform(
        self, embedded: Float[Array, "tokens features"], batch: Mapping[str, Array], rngs: nnx.Rngs | None
    ) -> Float[Array, "tokens hidden"]:
        """Applies the layers to the embeddings and returns the hidden states of the last one."""
        mask = within_texts(batch["text_ids"], batch["positions"])
        hidden = self.projection(embedded)
        for group in self.order:
            for layer in self.groups[group]:
                hidden = layer(hidden, mask, rngs)
        return hidden


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of ALBERT's modules."""
    yield from embedding_modules()
    yield "encoder.embedding_hidden_mapping_in", "projection", "dense"
    for group in range(config["num_hidden_groups"]):
        for layer in range(config["inner_group_num"]):
            theirs, ours = f"encoder.albert_layer_groups.{group}.albert_layers.{layer}", f"groups/{group}/{layer}"
            for part in ("query", "key", "value"):
                yield f"{theirs}.attention.{part}", f"{ours}/attention/{part}", "dense"
            yield f"{theirs}.attention.dense", f"{ours}/attention/output", "dense"
            yield f"{theirs}.attention.LayerNorm", f"{ours}/attention/norm", "norm"
            yield f"{theirs}.ffn", f"{ours}/feed_forward/intermediate", "dense"
            yield f"{theirs}.ffn_output", f"{ours}/feed_forward/output", "dense"
            yield f"{theirs}.full_layer_layer_norm", f"{ours}/feed_forward/norm", "norm"


COUNTERPART = Counterpart(
    model_type="albert",
    model_class="AlbertModel",
    prefix="albert.",
    taken=taken(AlbertConfig),
    modules=modules,
    dropped=r"(pooler|predictions|sop_classifier|classifier|qa_outputs)\..+",
    tied={"embeddings.word_embeddings.weight": ("predictions.decoder.weight",)},
    only={"position_embedding_type": "absolute"},
)
"""ALBERT in ``transformers``."""
