"""The vision tower of CLIP (Radford et al. 2021) in Flax NNX; see ``wsr/models/clip.py``."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.clip import PROJECTION, ClipBlock, ClipConfig, counterpart, modules_of_layers
from wsr.models.counterpart import Module
from wsr.models.layers.dense import dense, layer_norm, table
from wsr.models.layers.mask import whole_rows
from wsr.models.layers.patches import Patches
from wsr.models.model import Model

POOLINGS = ("cls", "mean", PROJECTION)
"""``cls`` is the normalised class token (``pooler_output``), ``mean`` the mean of the patches before that norm, as in
``CLIPForImageClassification``, and ``projection`` the projected class token (``image_embeds``)."""

EXAMPLE: Mapping[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "projection_dim": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_channels": 1,
    "image_size": 8,
    "patch_size": 2,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.1,
    "initializer_range": 0.02,
    "initializer_factor": 1.0,
    "pooling": "cls",
    "projection": True,
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class ClipVisionConfig(ClipConfig):
    """The hyperparameters of the vision tower, under their Hugging Face names."""

    num_channels: int
    image_size: int
    """Height and width, in pixels."""
    patch_size: int
    pooling: str
    projection: bool = False
    """Whether the parameters include the projection of image embeddings."""

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "ClipVisionConfig":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "clip_vision")
        typed.check("clip_vision")
        known = POOLINGS if typed.projection else POOLINGS[:-1]
        configs.require("clip_vision", typed, num_channels=1, image_size=1, patch_size=1, pooling=known)
        configs.require_multiple("clip_vision", typed, "image_size", "patch_size")
        return typed

    @property
    def tokens(self) -> int:
        """Number of patches of an image, plus one for the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


def clip_vision(config: Mapping[str, Any]) -> Model:
    """Returns the vision tower that ``config`` describes (see ``ClipVisionConfig``)."""
    typed = ClipVisionConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: ClipVision(typed, rngs),
        name="clip_vision",
        config=configs.write(typed),
        hidden=typed.projection_dim if typed.pooling == PROJECTION else typed.hidden_size,
        max_length=typed.tokens,
        reads="images",
    )


class ClipVision(nnx.Module):
    """CLIP's vision tower: patches, a class token, a norm, pre-norm layers, a last norm and a projection."""

    def __init__(self, config: ClipVisionConfig, rngs: nnx.Rngs):
        self.config = config
        hidden, spread = config.hidden_size, config.initializer_range * config.initializer_factor
        self.patches = Patches(config.patch_size, config.num_channels, hidden, rngs, spread=spread, bias=False)
        self.class_token = table(1, hidden, rngs, spread=config.head_spread)
        self.position = table(config.tokens, hidden, rngs, spread=spread)
        self.embedding_norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.layers = nnx.List([ClipBlock(config, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        width, spread = config.projection_dim, config.head_spread
        self.head = dense(hidden, width, rngs, spread=spread, bias=False) if config.projection else None

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        hidden = self.hidden_states(batch, rngs)
        hidden = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
        if self.config.pooling == "mean":
            return hidden[:, 1:].mean(axis=1)
        pooled = self.norm(hidden[:, 0])
        return pooled if self.config.pooling == "cls" or self.head is None else self.head(pooled)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch tokens hidden"]:
        """Returns the output of the last layer for the class token and every patch."""
        patches = self.patches(batch["pixel_values"], self.position.embedding.dtype)
        images, tokens = len(patches), self.config.tokens
        first = jnp.broadcast_to(self.class_token.embedding[...], (images, 1, patches.shape[-1]))
        hidden = jnp.concatenate([first, patches], axis=1) + self.position.embedding[...][None]
        hidden = self.embedding_norm(hidden).reshape(images * tokens, -1)
        everywhere = whole_rows(images, tokens)
        for layer in self.layers:
            hidden = layer(hidden, everywhere, rngs)
        return hidden.reshape(images, tokens, -1)


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in files of ``transformers``, the path here and the kind of each module of the vision tower."""
    yield "vision_model.embeddings.class_embedding", "class_token", "row"
    yield "vision_model.embeddings.patch_embedding", "patches", "bare_conv"
    yield "vision_model.embeddings.position_embedding", "position", "embedding"
    yield "vision_model.pre_layrnorm", "embedding_norm", "norm"
    yield from modules_of_layers("vision_model", config["num_hidden_layers"])
    yield "vision_model.post_layernorm", "norm", "norm"
    if config.get("projection"):
        yield "visual_projection", "head", "matrix"


COUNTERPART = counterpart(
    "vision", ClipVisionConfig, modules, in_memory=("embeddings", "pre_layrnorm", "encoder", "post_layernorm")
)
"""CLIP's vision tower in ``transformers``, alone or as a part of CLIPModel."""
