"""BERT (and MiniLM, which is a small BERT) in Flax NNX."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Counterpart, Module
from wsr.models.encoder_config import EncoderConfig, taken
from wsr.models.layers.block import Block
from wsr.models.layers.embeddings import Embeddings
from wsr.models.layers.mask import within_texts
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
    """Returns the BERT encoder that ``config`` describes (see ``BertConfig``)."""
    typed = BertConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: Bert(typed, rngs),
        name="bert",
        config=typed.to_mapping(),
        hidden=typed.hidden_size,
        max_length=typed.max_position_embeddings,
    )


@dataclass(frozen=True)
class BertConfig(EncoderConfig):
    """``EncoderConfig``, plus the number of token types, which tell the two texts of a pair apart."""

    type_vocab_size: int

    def check(self) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another."""
        super().check()
        configs.require("encoder", self, type_vocab_size=1)


class Bert(nnx.Module):
    """BERT: embeddings, layers and pooling, without a pooler or a head, which belong to a task."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        self.pooling = config.pooling
        self.embeddings = Embeddings(config, rngs, token_types=config.type_vocab_size)
        self.layers = nnx.List(blocks(config, rngs))

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        return pool(self.pooling, self.hidden_states(batch, rngs), batch)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the hidden states of the last layer."""
        embedded = self.embed(batch, rngs)
        # One axis of tokens: with [rows, length, hidden] XLA writes transposed copies of the activations in the
        # backward pass on a CPU.
        hidden = self.transform(embedded.reshape(-1, embedded.shape[-1]), batch, rngs)
        return hidden.reshape(*embedded.shape[:2], -1)

    def embed(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None) -> Float[Array, "rows length features"]:
        """Returns the embeddings of the tokens."""
        return self.embeddings(batch["token_ids"], batch["positions"], batch["token_types"], rngs)

    def transform(
        self, hidden: Float[Array, "tokens features"], batch: Mapping[str, Array], rngs: nnx.Rngs | None
    ) -> Float[Array, "tokens hidden"]:
        """Applies the layers to the embeddings and returns the hidden states of the last one."""
        mask = within_texts(batch["text_ids"], batch["positions"])
        for layer in self.layers:
            hidden = layer(hidden, mask, rngs)
        return hidden


def blocks(config: EncoderConfig, rngs: nnx.Rngs) -> list[Block]:
    """Returns the encoder's ``num_hidden_layers`` layers."""
    return [Block(config, rngs) for _ in range(config.num_hidden_layers)]


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of BERT's modules."""
    yield from embedding_modules()
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"encoder.layer.{layer}", f"layers/{layer}"
        for part in ("query", "key", "value"):
            yield f"{theirs}.attention.self.{part}", f"{ours}/attention/{part}", "dense"
        yield f"{theirs}.attention.output.dense", f"{ours}/attention/output", "dense"
        yield f"{theirs}.attention.output.LayerNorm", f"{ours}/attention/norm", "norm"
        yield f"{theirs}.intermediate.dense", f"{ours}/feed_forward/intermediate", "dense"
        yield f"{theirs}.output.dense", f"{ours}/feed_forward/output", "dense"
        yield f"{theirs}.output.LayerNorm", f"{ours}/feed_forward/norm", "norm"


def embedding_modules() -> Iterator[Module]:
    """Yields the same for BERT's embeddings, whose names other architectures share."""
    yield "embeddings.word_embeddings", "embeddings/token", "embedding"
    yield "embeddings.position_embeddings", "embeddings/position", "embedding"
    yield "embeddings.token_type_embeddings", "embeddings/token_type", "embedding"
    yield "embeddings.LayerNorm", "embeddings/norm", "norm"


COUNTERPART = Counterpart(
    model_type="bert",
    model_class="BertModel",
    prefix="bert.",
    taken=taken(BertConfig),
    modules=modules,
    dropped=r"(pooler\.dense|cls|lm_head|classifier|qa_outputs)\..+",
    tied={"embeddings.word_embeddings.weight": ("cls.predictions.decoder.weight", "lm_head.decoder.weight")},
    # Older versions of transformers had other kinds of positions.
    only={"position_embedding_type": "absolute"},
)
"""BERT in ``transformers``."""
