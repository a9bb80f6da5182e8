"""The vision tower of SigLIP (Zhai et al. 2023) in Flax NNX.

A population of SigLIP models is one of vision towers. The text tower, ``logit_scale`` and ``logit_bias`` are kept apart
from the encoder, like a head, and an export of a SigLIP base writes them back, so that transformers loads the whole
model. ``siglip_text`` is the text tower: it makes zero-shot heads (``wsr.engine.zero_shot``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.clip import ClipBlock, modules_of_layers
from wsr.models.counterpart import Counterpart, Module, Whole
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.dense import dense, layer_norm, table
from wsr.models.layers.mask import whole_rows
from wsr.models.layers.patches import Patches
from wsr.models.model import Model

ATTENTION = "attention"
POOLINGS = (ATTENTION, "mean")
"""``attention`` lets one learned query attend to the patches (``pooler_output``), and ``mean`` is the mean of the
patches, as in ``SiglipForImageClassification``."""

EXAMPLE: Mapping[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_channels": 1,
    "image_size": 8,
    "patch_size": 2,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.1,
    "vision_use_head": True,
    "pooling": "attention",
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class SiglipVisionConfig:
    """Sizes, activation, dropout and pooling of the vision tower, under their Hugging Face names."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_channels: int
    image_size: int
    """Height and width, in pixels."""
    patch_size: int
    hidden_act: str
    layer_norm_eps: float
    attention_dropout: float
    vision_use_head: bool
    """Whether the parameters include the pooling by attention."""
    pooling: str

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "SiglipVisionConfig":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "siglip_vision")
        known = POOLINGS if typed.vision_use_head else POOLINGS[1:]
        more = ("num_channels", "image_size", "patch_size")
        configs.require_layers("siglip_vision", typed, *more, hidden_act=ACTIVATIONS, pooling=known)
        configs.require_share("siglip_vision", typed, "attention_dropout")
        configs.require_multiple("siglip_vision", typed, "image_size", "patch_size")
        return typed

    @property
    def tokens(self) -> int:
        """Number of patches of an image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def initializer_factor(self) -> float:
        """Factor of the layers' initial weights, which are those of CLIP."""
        return 1.0


def siglip_vision(config: Mapping[str, Any]) -> Model:
    """Returns the vision tower that ``config`` describes (see ``SiglipVisionConfig``)."""
    typed = SiglipVisionConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: SiglipVision(typed, rngs),
        name="siglip_vision",
        config=configs.write(typed),
        hidden=typed.hidden_size,
        max_length=typed.tokens,
        reads="images",
    )


class SiglipVision(nnx.Module):
    """SigLIP's vision tower: patches, pre-norm layers, a last norm and pooling by attention."""

    def __init__(self, config: SiglipVisionConfig, rngs: nnx.Rngs):
        self.config = config
        hidden, spread = config.hidden_size, config.hidden_size**-0.5
        self.patches = Patches(config.patch_size, config.num_channels, hidden, rngs, spread=spread)
        self.position = table(config.tokens, hidden, rngs, spread=spread)
        self.layers = nnx.List([ClipBlock(config, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.pool = AttentionPooling(config, rngs) if config.vision_use_head else None

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        hidden = self.hidden_states(batch, rngs)
        at_least_float32 = jnp.promote_types(hidden.dtype, jnp.float32)
        if self.config.pooling == "mean" or self.pool is None:
            return hidden.astype(at_least_float32).mean(axis=1)
        return self.pool(hidden).astype(at_least_float32)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch tokens hidden"]:
        """Returns the normalised output of the last layer for every patch."""
        hidden = self.patches(batch["pixel_values"], self.position.embedding.dtype) + self.position.embedding[...][None]
        images, tokens, width = hidden.shape
        hidden = hidden.reshape(images * tokens, width)
        everywhere = whole_rows(images, tokens)
        for layer in self.layers:
            hidden = layer(hidden, everywhere, rngs)
        return self.norm(hidden).reshape(images, tokens, width)


class AttentionPooling(nnx.Module):
    """One learned query attends to all patches of an image; a feed-forward network follows (Lee et al. 2019)."""

    def __init__(self, config: SiglipVisionConfig, rngs: nnx.Rngs):
        hidden, spread = config.hidden_size, config.hidden_size**-0.5
        self.heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.probe = table(1, hidden, rngs, spread=spread)
        self.query_key_value = dense(hidden, 3 * hidden, rngs, spread=spread)
        self.attention_output = dense(hidden, hidden, rngs, spread=spread)
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.intermediate = dense(hidden, config.intermediate_size, rngs, spread=spread)
        self.output = dense(config.intermediate_size, hidden, rngs, spread=spread)

    def __call__(self, hidden: Float[Array, "batch tokens hidden"]) -> Float[Array, "batch hidden"]:
        images, tokens, width = hidden.shape
        query = self.query_key_value(self.probe.embedding[...])[:, :width].reshape(self.heads, -1)
        key, value = jnp.split(self.query_key_value(hidden)[..., width:], 2, axis=-1)
        key, value = (part.reshape(images, tokens, self.heads, -1) for part in (key, value))
        query = query * query.shape[-1] ** -0.5
        at_least_float32 = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.einsum("hd,nthd->nht", query.astype(key.dtype), key, preferred_element_type=at_least_float32)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        mixed = jnp.einsum("nht,nthd->nhd", weights, value)
        pooled = self.attention_output(mixed.reshape(images, width))
        return pooled + self.output(self.activation(self.intermediate(self.norm(pooled))))


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in files of ``transformers``, the path here and the kind of each module of the vision tower."""
    yield "vision_model.embeddings.patch_embedding", "patches", "conv"
    yield "vision_model.embeddings.position_embedding", "position", "embedding"
    yield from modules_of_layers("vision_model", config["num_hidden_layers"])
    yield "vision_model.post_layernorm", "norm", "norm"
    if config["vision_use_head"]:
        yield "vision_model.head.probe", "pool/probe", "table"
        yield "vision_model.head.attention.in_proj_weight", "pool/query_key_value", "kernel"
        yield "vision_model.head.attention.in_proj_bias", "pool/query_key_value", "bias"
        yield "vision_model.head.attention.out_proj", "pool/attention_output", "dense"
        yield "vision_model.head.layernorm", "pool/norm", "norm"
        yield "vision_model.head.mlp.fc1", "pool/intermediate", "dense"
        yield "vision_model.head.mlp.fc2", "pool/output", "dense"


COUNTERPART = Counterpart(
    model_type="siglip_vision_model",
    model_class="SiglipVisionModel",
    whole=Whole(model_type="siglip", model_class="SiglipModel", part="vision_config"),
    prefix="",
    taken=tuple(name for name in SiglipVisionConfig.__dataclass_fields__ if name != "pooling"),
    modules=modules,
    dropped=r"text_model\..+|logit_scale|logit_bias|classifier\..+",
    constants=r"(vision_model\.)?embeddings\.position_ids",
    # The names of tensors in memory, in transformers 5.
    aliases=((r"^(embeddings|encoder|post_layernorm|head)\.", r"vision_model.\1."),),
    pooling=ATTENTION,
)
"""SigLIP's vision tower in ``transformers``, alone or as a part of SiglipModel."""
