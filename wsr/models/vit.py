"""The vision transformer (Dosovitskiy et al. 2021) in Flax NNX."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.counterpart import Counterpart, Module
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.attention import attend
from wsr.models.layers.dense import dense, layer_norm, table
from wsr.models.layers.mask import Mask, whole_rows
from wsr.models.layers.patches import Patches
from wsr.models.model import Model

POOLINGS = ("cls", "mean")
"""``cls`` takes the class token, ``mean`` the mean of the patches (global pooling in MAE, He et al. 2022)."""

EXAMPLE: Mapping[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "image_size": 8,
    "patch_size": 2,
    "num_channels": 1,
    "qkv_bias": True,
    "pooling": "cls",
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class ViTConfig:
    """Sizes, activation, dropout and pooling of a vision transformer, under their Hugging Face names."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str
    layer_norm_eps: float
    hidden_dropout_prob: float
    attention_probs_dropout_prob: float
    initializer_range: float
    image_size: int
    """Height and width, in pixels."""
    patch_size: int
    num_channels: int
    qkv_bias: bool
    pooling: str

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "ViTConfig":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "vit")
        more = ("num_channels", "image_size", "patch_size")
        configs.require_layers("vit", typed, *more, hidden_act=ACTIVATIONS, pooling=POOLINGS)
        configs.require_share("vit", typed, "hidden_dropout_prob", "attention_probs_dropout_prob")
        configs.require_multiple("vit", typed, "image_size", "patch_size")
        return typed

    @property
    def tokens(self) -> int:
        """Number of patches of an image, plus one for the class token."""
        return (self.image_size // self.patch_size) ** 2 + 1


def vit(config: Mapping[str, Any]) -> Model:
    """Returns the vision transformer that ``config`` describes (see ``ViTConfig``)."""
    typed = ViTConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: ViT(typed, rngs),
        name="vit",
        config=asdict(typed),
        hidden=typed.hidden_size,
        max_length=typed.tokens,
        reads="images",
    )


class ViT(nnx.Module):
    """ViT: patches and a class token, pre-norm layers, a final norm and pooling, without a pooler or a head."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs):
        self.config = config
        hidden, spread = config.hidden_size, config.initializer_range
        self.patches = Patches(config.patch_size, config.num_channels, hidden, rngs, spread=spread)
        self.class_token = table(1, hidden, rngs, spread=spread)
        self.position = table(config.tokens, hidden, rngs, spread=spread)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)
        self.layers = nnx.List([Block(config, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        hidden = self.hidden_states(batch, rngs)
        hidden = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
        return hidden[:, 0] if self.config.pooling == "cls" else hidden[:, 1:].mean(axis=1)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "batch tokens hidden"]:
        """Returns the normalised output of the last layer for the class token and every patch."""
        patches = self.patches(batch["pixel_values"], self.position.embedding.dtype)
        images, tokens = len(patches), self.config.tokens
        first = jnp.broadcast_to(self.class_token.embedding[...], (images, 1, patches.shape[-1]))
        hidden = jnp.concatenate([first, patches], axis=1) + self.position.embedding[...][None]
        hidden = self.dropout(hidden, rngs=rngs).reshape(images * tokens, -1)
        everywhere = whole_rows(images, tokens)
        for layer in self.layers:
            hidden = layer(hidden, everywhere, rngs)
        return self.norm(hidden).reshape(images, tokens, -1)


class Block(nnx.Module):
    """Self-attention and a feed-forward network, each normalised before (pre-norm) and added to its input."""

    def __init__(self, config: ViTConfig, rngs: nnx.Rngs):
        hidden, wide, spread = config.hidden_size, config.intermediate_size, config.initializer_range
        self.heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.attention_norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.query = dense(hidden, hidden, rngs, spread=spread, bias=config.qkv_bias)
        self.key = dense(hidden, hidden, rngs, spread=spread, bias=config.qkv_bias)
        self.value = dense(hidden, hidden, rngs, spread=spread, bias=config.qkv_bias)
        self.mix = dense(hidden, hidden, rngs, spread=spread)
        self.feed_forward_norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.intermediate = dense(hidden, wide, rngs, spread=spread)
        self.output = dense(wide, hidden, rngs, spread=spread)
        self.weights_dropout = nnx.Dropout(config.attention_probs_dropout_prob)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        normed = self.attention_norm(hidden)
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        mixed = attend(query, key, value, mask, heads=self.heads, dropout=self.weights_dropout, rngs=rngs)
        hidden = hidden + self.dropout(self.mix(mixed), rngs=rngs)
        wide = self.activation(self.intermediate(self.feed_forward_norm(hidden)))
        return hidden + self.dropout(self.output(wide), rngs=rngs)


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in files of ``transformers``, the path here and the kind of each of ViT's modules."""
    yield "embeddings.cls_token", "class_token", "table"
    yield "embeddings.position_embeddings", "position", "table"
    yield "embeddings.patch_embeddings.projection", "patches", "conv"
    of_attention = "dense" if config["qkv_bias"] else "matrix"
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"encoder.layer.{layer}", f"layers/{layer}"
        yield f"{theirs}.layernorm_before", f"{ours}/attention_norm", "norm"
        for part in ("query", "key", "value"):
            yield f"{theirs}.attention.attention.{part}", f"{ours}/{part}", of_attention
        yield f"{theirs}.attention.output.dense", f"{ours}/mix", "dense"
        yield f"{theirs}.layernorm_after", f"{ours}/feed_forward_norm", "norm"
        yield f"{theirs}.intermediate.dense", f"{ours}/intermediate", "dense"
        yield f"{theirs}.output.dense", f"{ours}/output", "dense"
    yield "layernorm", "norm", "norm"


COUNTERPART = Counterpart(
    model_type="vit",
    model_class="ViTModel",
    prefix="vit.",
    taken=tuple(name for name in ViTConfig.__dataclass_fields__ if name != "pooling"),
    modules=modules,
    dropped=r"embeddings\.mask_token|(pooler\.dense|classifier|decoder)\..+",
    # These concern the pooler.
    harmless=frozenset(("pooler_act", "pooler_output_size")),
    # Tensor names in the modules of transformers 5, whose files keep the names of version 4.
    aliases=(
        (r"^layers\.", "encoder.layer."),
        (r"\.attention\.q_proj\.", ".attention.attention.query."),
        (r"\.attention\.k_proj\.", ".attention.attention.key."),
        (r"\.attention\.v_proj\.", ".attention.attention.value."),
        (r"\.attention\.o_proj\.", ".attention.output.dense."),
        (r"\.mlp\.fc1\.", ".intermediate.dense."),
        (r"\.mlp\.fc2\.", ".output.dense."),
    ),
)
"""ViT in ``transformers``."""
