"""RoBERTa: BERT's layers without token types; positions count from ``pad_token_id + 1``."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models.adapters import from_nnx
from wsr.models.bert import COUNTERPART as BERT_COUNTERPART
from wsr.models.bert import EXAMPLE as BERT_EXAMPLE
from wsr.models.bert import Bert, BertConfig
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    **BERT_EXAMPLE,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
    "pooling": "cls",
}
"""A config small enough for a test."""


def roberta(config: Mapping[str, Any]) -> Model:
    """Returns the RoBERTa encoder that ``config`` describes (see ``BertConfig``)."""
    typed = BertConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: Roberta(typed, rngs),
        name="roberta",
        config=typed.to_mapping(),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings - _first_position(typed),
    )


class Roberta(Bert):
    """BERT with positions that count from ``pad_token_id + 1`` and with type 0 for every token."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.first_position = _first_position(config)

    def embed(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None) -> Float[Array, "rows length features"]:
        """Returns the embeddings of the tokens, with RoBERTa's positions and token types."""
        positions = batch["positions"] + self.first_position
        return self.embeddings(batch["token_ids"], positions, jnp.zeros_like(batch["token_types"]), rngs)


def _first_position(config: BertConfig) -> int:
    # Like the original, the table of positions keeps the padding token's row.
    return config.pad_token_id + 1


COUNTERPART = replace(BERT_COUNTERPART, model_type="roberta", model_class="RobertaModel", prefix="roberta.")
"""RoBERTa in ``transformers``, with BERT's tensor names."""
