"""The text tower of CLIP (Radford et al. 2021) in Flax NNX; see ``wsr/models/clip.py``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.clip import PROJECTION, ClipBlock, ClipConfig, counterpart, modules_of_layers
from wsr.models.counterpart import Module
from wsr.models.layers import pooling
from wsr.models.layers.dense import dense, layer_norm, table
from wsr.models.layers.mask import within_texts
from wsr.models.model import Model

END = "eos"
POOLINGS = (END, *pooling.POOLINGS, PROJECTION)
"""``eos`` is the token that ends the text (``pooler_output``), and ``projection`` that token projected
(``text_embeds``)."""
WRONG_END = 2
"""``eos_token_id`` in configs older than transformers 4.31, where it is not the end's: the largest id marks the end."""
_SPREAD = 0.02  # of the initial embeddings, whatever initializer_range says

EXAMPLE: Mapping[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.1,
    "initializer_range": 0.02,
    "initializer_factor": 1.0,
    "vocab_size": 40,
    "max_position_embeddings": 32,
    "eos_token_id": 3,
    "pooling": "eos",
    "projection": True,
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class ClipTextConfig(ClipConfig):
    """The hyperparameters of the text tower, under their Hugging Face names."""

    vocab_size: int
    max_position_embeddings: int
    eos_token_id: int
    pooling: str
    projection: bool = False
    """Whether the parameters include the projection of text embeddings."""

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "ClipTextConfig":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "clip_text")
        typed.check("clip_text")
        known = POOLINGS if typed.projection else POOLINGS[:-1]
        configs.require("clip_text", typed, vocab_size=1, max_position_embeddings=1, pooling=known)
        return typed


def clip_text(config: Mapping[str, Any]) -> Model:
    """Returns the text tower that ``config`` describes (see ``ClipTextConfig``)."""
    typed = ClipTextConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: ClipText(typed, rngs),
        name="clip_text",
        config=configs.write(typed),
        hidden=typed.projection_dim if typed.pooling == PROJECTION else typed.hidden_size,
        max_length=typed.max_position_embeddings,
    )


class ClipText(nnx.Module):
    """CLIP's text tower: token and position embeddings, causal pre-norm layers, a final norm, a projection."""

    def __init__(self, config: ClipTextConfig, rngs: nnx.Rngs):
        self.pooling, self.end = config.pooling, config.eos_token_id
        hidden, spread = config.hidden_size, _SPREAD * config.initializer_factor
        self.token = table(config.vocab_size, hidden, rngs, spread=spread)
        self.position = table(config.max_position_embeddings, hidden, rngs, spread=spread)
        self.layers = nnx.List([ClipBlock(config, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        width, spread = config.projection_dim, config.head_spread
        self.head = dense(hidden, width, rngs, spread=spread, bias=False) if config.projection else None

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        hidden = self.hidden_states(batch, rngs)
        if self.pooling in pooling.POOLINGS:
            return pooling.pool(self.pooling, hidden, batch)
        hidden = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
        ends = ends_of_texts(batch["token_ids"], batch["text_ids"], batch["starts"], self.end)
        pooled = hidden.reshape(-1, hidden.shape[-1])[ends]
        return pooled if self.pooling == END or self.head is None else self.head(pooled)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the hidden states after the final normalisation."""
        embedded = self.token(batch["token_ids"]) + self.position(batch["positions"])
        mask = within_texts(batch["text_ids"], batch["positions"], causal=True)
        hidden = embedded.reshape(-1, embedded.shape[-1])
        for layer in self.layers:
            hidden = layer(hidden, mask, rngs)
        return self.norm(hidden).reshape(embedded.shape)


def ends_of_texts(
    token_ids: Int[Array, "rows length"], text_ids: Int[Array, "rows length"], starts: Int[Array, " batch"], end: int
) -> Int[Array, " batch"]:
    """Returns the index, in the flattened rows, of the token that stands for each text.

    It is the first token ``end`` of the text, or its first token if it has none. With ``WRONG_END`` it is the first of
    the largest id, as in transformers.
    """
    ids, texts = token_ids.reshape(1, -1), jnp.arange(starts.shape[0], dtype=text_ids.dtype)
    rank = ids if end == WRONG_END else (ids == end).astype(ids.dtype)
    return jnp.where(texts[:, None] == text_ids.reshape(1, -1), rank, -1).argmax(axis=1)


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in files of ``transformers``, the path here and the kind of each module of the text tower."""
    yield "text_model.embeddings.token_embedding", "token", "embedding"
    yield "text_model.embeddings.position_embedding", "position", "embedding"
    yield from modules_of_layers("text_model", config["num_hidden_layers"])
    yield "text_model.final_layer_norm", "norm", "norm"
    if config.get("projection"):
        yield "text_projection", "head", "matrix"


COUNTERPART = counterpart(
    "text", ClipTextConfig, modules, in_memory=("embeddings", "encoder", "final_layer_norm"), pooling=END
)
"""CLIP's text tower in ``transformers``, alone or as a part of CLIPModel."""
