"""ELECTRA: BERT's layers over embeddings that may be narrower (Clark et al. 2020, arXiv 2003.10555)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.bert import COUNTERPART as BERT_COUNTERPART
from wsr.models.bert import EXAMPLE as BERT_EXAMPLE
from wsr.models.bert import Bert, BertConfig, blocks
from wsr.models.bert import modules as bert_modules
from wsr.models.counterpart import Module
from wsr.models.encoder_config import taken
from wsr.models.layers.dense import dense
from wsr.models.layers.embeddings import Embeddings
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {**BERT_EXAMPLE, "embedding_size": 8, "pooling": "cls"}
"""A config small enough for a test."""


def electra(config: Mapping[str, Any]) -> Model:
    """Returns the ELECTRA encoder (discriminator or generator) that ``config`` describes (see ``ElectraConfig``)."""
    typed = ElectraConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: Electra(typed, rngs),
        name="electra",
        config=typed.to_mapping(),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings,
    )


@dataclass(frozen=True)
class ElectraConfig(BertConfig):
    """``BertConfig``, plus the width of an embedding."""

    embedding_size: int

    def check(self) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another."""
        super().check()
        configs.require("encoder", self, embedding_size=1)

    @property
    def projected(self) -> bool:
        """Whether embeddings are projected to the hidden size, because their width differs."""
        return self.embedding_size != self.hidden_size


class Electra(Bert):
    """BERT, with a projection of the embeddings if their width differs from the hidden size."""

    def __init__(self, config: ElectraConfig, rngs: nnx.Rngs):
        self.pooling = config.pooling
        features, hidden, spread = config.embedding_size, config.hidden_size, config.initializer_range
        self.embeddings = Embeddings(config, rngs, token_types=config.type_vocab_size, features=features)
        self.projection = dense(features, hidden, rngs, spread=spread) if config.projected else None
        self.layers = nnx.List(blocks(config, rngs))

    def transform(
        self, embedded: Float[Array, "tokens features"], batch: Mapping[str, Array], rngs: nnx.Rngs | None
    ) -> Float[Array, "tokens hidden"]:
        """Applies the layers to the embeddings and returns the hidden states of the last one."""
        return super().transform(embedded if self.projection is None else self.projection(embedded), batch, rngs)


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of ELECTRA's modules."""
    yield from bert_modules(config)
    if ElectraConfig.from_mapping(config).projected:
        yield "embeddings_project", "projection", "dense"


COUNTERPART = replace(
    BERT_COUNTERPART,
    model_type="electra",
    model_class="ElectraModel",
    prefix="electra.",
    taken=taken(ElectraConfig),
    modules=modules,
    dropped=r"((discriminator|generator)_predictions|generator_lm_head|sequence_summary|classifier|qa_outputs)\..+",
    tied={"embeddings.word_embeddings.weight": ("generator_lm_head.weight",)},
    only={"position_embedding_type": "absolute"},
)
"""ELECTRA in ``transformers``, with BERT's tensor names."""
