"""BERT (and MiniLM, which is a small BERT) in Flax NNX."""

from collections.abc import Iterator, Mapping
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Counterpart, Module
from wsr.models.encoder_config import TAKEN, EncoderConfig
from wsr.models.layers.attention import same_text
from wsr.models.layers.block import Block
from wsr.models.layers.embeddings import Embeddings
from wsr.models.layers.pooling import pool
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 24,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pooling": "mean",
}
"""A config small enough for a test."""


def bert(config: Mapping[str, Any]) -> Model:
    """Returns the BERT encoder of ``config`` (see ``EncoderConfig``)."""
    typed = EncoderConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: Bert(typed, rngs),
        name="bert",
        config=typed.to_mapping(),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings,
    )


class Bert(nnx.Module):
    """Embeddings, layers, pooling. No pooler and no head: those belong to a task."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.config = config
        self.embeddings = Embeddings(config, rngs)
        self.layers = nnx.List([Block(config, rngs) for _ in range(config.num_hidden_layers)])

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        return pool(self.config.pooling, self.hidden_states(batch, rngs), batch)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the output of the last layer for every token."""
        embedded = self.embed(batch, rngs)
        mask = same_text(batch["text_ids"])
        # One axis of tokens: the gradient of a product with [rows, length, hidden] makes XLA write transposed copies of
        # the activations on a CPU.
        hidden = embedded.reshape(-1, embedded.shape[-1])
        for layer in self.layers:
            hidden = layer(hidden, mask, rngs)
        return hidden.reshape(embedded.shape)

    def embed(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None) -> Float[Array, "rows length hidden"]:
        """Returns the input of the first layer."""
        return self.embeddings(batch["token_ids"], batch["positions"], batch["token_types"], rngs)


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields where BERT's modules are in ``transformers`` and here, and their kinds."""
    yield "embeddings.word_embeddings", "embeddings/token", "embedding"
    yield "embeddings.position_embeddings", "embeddings/position", "embedding"
    yield "embeddings.token_type_embeddings", "embeddings/token_type", "embedding"
    yield "embeddings.LayerNorm", "embeddings/norm", "norm"
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"encoder.layer.{layer}", f"layers/{layer}"
        for part in ("query", "key", "value"):
            yield f"{theirs}.attention.self.{part}", f"{ours}/attention/{part}", "dense"
        yield f"{theirs}.attention.output.dense", f"{ours}/attention/output", "dense"
        yield f"{theirs}.attention.output.LayerNorm", f"{ours}/attention/norm", "norm"
        yield f"{theirs}.intermediate.dense", f"{ours}/feed_forward/intermediate", "dense"
        yield f"{theirs}.output.dense", f"{ours}/feed_forward/output", "dense"
        yield f"{theirs}.output.LayerNorm", f"{ours}/feed_forward/norm", "norm"


COUNTERPART = Counterpart(
    model_type="bert",
    model_class="BertModel",
    prefix="bert.",
    taken=TAKEN,
    modules=modules,
    dropped=r"pooler\.dense\.(weight|bias)|embeddings\.(position_ids|token_type_ids)|(cls|lm_head|classifier)\..+",
    # Attributes of older files that newer config classes lost.
    only={"position_embedding_type": "absolute", "directionality": "bidi"},
    harmless=frozenset(
        (
            *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head"),
            *("pooler_type", "tie_word_embeddings"),
        )
    ),
)
"""BERT in ``transformers``."""
