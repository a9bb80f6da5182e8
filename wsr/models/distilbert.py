"""DistilBERT: half of BERT's layers and no token types (Sanh et al. 2019, arXiv 1910.01108)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import nnx

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.bert import Bert, blocks
from wsr.models.counterpart import Counterpart, Module
from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.embeddings import Embeddings
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "dim": 16,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_dim": 32,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
    "activation": "gelu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "initializer_range": 0.02,
    "pooling": "cls",
}
"""A config small enough for a test."""


def distilbert(config: Mapping[str, Any]) -> Model:
    """Returns the DistilBERT encoder that ``config`` describes (see ``DistilBertConfig``)."""
    typed = configs.read(DistilBertConfig, config, "encoder")
    encoder = typed.encoder()
    return from_nnx(
        lambda rngs: DistilBert(encoder, rngs),
        name="distilbert",
        config=configs.write(typed),
        hidden=encoder.hidden_size,
        max_length=encoder.max_position_embeddings,
    )


@dataclass(frozen=True)
class DistilBertConfig:
    """The hyperparameters of DistilBERT, under its own Hugging Face names, which differ from BERT's."""

    vocab_size: int
    dim: int
    n_layers: int
    n_heads: int
    hidden_dim: int
    max_position_embeddings: int
    pad_token_id: int
    activation: str
    dropout: float
    attention_dropout: float
    initializer_range: float
    pooling: str

    def encoder(self) -> EncoderConfig:
        """Returns the same hyperparameters under BERT's names; raises ``WsrError`` if one is invalid."""
        return EncoderConfig.from_mapping(
            {
                "vocab_size": self.vocab_size,
                "hidden_size": self.dim,
                "num_hidden_layers": self.n_layers,
                "num_attention_heads": self.n_heads,
                "intermediate_size": self.hidden_dim,
                "max_position_embeddings": self.max_position_embeddings,
                "pad_token_id": self.pad_token_id,
                "hidden_act": self.activation,
                "layer_norm_eps": 1e-12,
                "hidden_dropout_prob": self.dropout,
                "attention_probs_dropout_prob": self.attention_dropout,
                "initializer_range": self.initializer_range,
                "pooling": self.pooling,
            }
        )


class DistilBert(Bert):
    """BERT without token types."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.pooling = config.pooling
        self.embeddings = Embeddings(config, rngs, token_types=0)
        self.layers = nnx.List(blocks(config, rngs))
        for layer in self.layers:
            layer.attention.output_dropout = nnx.Dropout(0.0)  # the original has no dropout on the attention output


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of DistilBERT's modules."""
    yield "embeddings.word_embeddings", "embeddings/token", "embedding"
    yield "embeddings.position_embeddings", "embeddings/position", "embedding"
    yield "embeddings.LayerNorm", "embeddings/norm", "norm"
    for layer in range(config["n_layers"]):
        theirs, ours = f"transformer.layer.{layer}", f"layers/{layer}"
        for part, name in (("q_lin", "query"), ("k_lin", "key"), ("v_lin", "value"), ("out_lin", "output")):
            yield f"{theirs}.attention.{part}", f"{ours}/attention/{name}", "dense"
        yield f"{theirs}.sa_layer_norm", f"{ours}/attention/norm", "norm"
        yield f"{theirs}.ffn.lin1", f"{ours}/feed_forward/intermediate", "dense"
        yield f"{theirs}.ffn.lin2", f"{ours}/feed_forward/output", "dense"
        yield f"{theirs}.output_layer_norm", f"{ours}/feed_forward/norm", "norm"


COUNTERPART = Counterpart(
    model_type="distilbert",
    model_class="DistilBertModel",
    prefix="distilbert.",
    taken=tuple(name for name in DistilBertConfig.__dataclass_fields__ if name != "pooling"),
    modules=modules,
    dropped=r"(vocab_transform|vocab_layer_norm|vocab_projector|pre_classifier|classifier|qa_outputs)\..+",
    tied={"embeddings.word_embeddings.weight": ("vocab_projector.weight",)},
    # How the table of positions is initialised does not matter: it is read from a file.
    harmless=frozenset(("sinusoidal_pos_embds",)),
)
"""DistilBERT in ``transformers``."""
