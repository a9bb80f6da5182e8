"""The text tower of SigLIP (Zhai et al. 2023) in Flax NNX; see ``wsr/models/siglip_vision.py``.

As in its training, each text is padded to the full length of the tower, and its tokens attend to the padding. So a row
holds one text, and the last place, mostly padding, stands for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.adapters import from_nnx
from wsr.models.clip import PROJECTION, ClipBlock, modules_of_layers
from wsr.models.counterpart import Counterpart, Module, Whole
from wsr.models.layers import pooling
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.dense import dense, layer_norm, table
from wsr.models.layers.mask import whole_rows
from wsr.models.model import Model

POOLINGS = (*pooling.POOLINGS, PROJECTION)
"""``projection`` is the last place, projected (``pooler_output``)."""

EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "attention_dropout": 0.1,
    "pad_token_id": 1,
    "projection_size": 12,
    "pooling": "mean",
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class SiglipTextConfig:
    """Sizes, activation, dropout, padding and pooling of the text tower, under their Hugging Face names."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    hidden_act: str
    layer_norm_eps: float
    attention_dropout: float
    pad_token_id: int
    """The token to which texts are padded."""
    projection_size: int
    pooling: str

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "SiglipTextConfig":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "siglip_text")
        more = ("vocab_size", "max_position_embeddings", "projection_size")
        configs.require_layers("siglip_text", typed, *more, hidden_act=ACTIVATIONS, pooling=POOLINGS)
        configs.require("siglip_text", typed, pad_token_id=range(typed.vocab_size))
        configs.require_share("siglip_text", typed, "attention_dropout")
        return typed

    @property
    def initializer_factor(self) -> float:
        """Factor of the layers' initial weights, which are those of CLIP."""
        return 1.0


def siglip_text(config: Mapping[str, Any]) -> Model:
    """Returns the text tower that ``config`` describes (see ``SiglipTextConfig``)."""
    typed = SiglipTextConfig.from_mapping(config)
    return from_nnx(
        lambda rngs: SiglipText(typed, rngs),
        name="siglip_text",
        config=configs.write(typed),
        hidden=typed.projection_size if typed.pooling == PROJECTION else typed.hidden_size,
        max_length=typed.max_position_embeddings,
        packed=False,
    )


class SiglipText(nnx.Module):
    """SigLIP's text tower: token and position embeddings, pre-norm layers, a last norm, a projection."""

    def __init__(self, config: SiglipTextConfig, rngs: nnx.Rngs):
        self.pooling, self.padding, self.places = config.pooling, config.pad_token_id, config.max_position_embeddings
        hidden, spread = config.hidden_size, config.hidden_size**-0.5
        self.token = table(config.vocab_size, hidden, rngs, spread=spread)
        self.position = table(self.places, hidden, rngs, spread=spread)
        self.layers = nnx.List([ClipBlock(config, rngs) for _ in range(config.num_hidden_layers)])
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.head = dense(hidden, config.projection_size, rngs, spread=spread)

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        batch = self._padded(batch)
        hidden = self.hidden_states(batch, rngs)
        if self.pooling != PROJECTION:
            return pooling.pool(self.pooling, hidden, batch)
        hidden = hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32))
        return self.head(hidden[:, -1])[batch["starts"] // self.places]

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows places hidden"]:
        """Returns the normalised output of the last layer for every place of padded texts."""
        embedded = self.token(batch["token_ids"]) + self.position.embedding[...][None]
        rows, places, width = embedded.shape
        hidden, everywhere = embedded.reshape(rows * places, width), whole_rows(rows, places)
        for layer in self.layers:
            hidden = layer(hidden, everywhere, rngs)
        return self.norm(hidden).reshape(rows, places, width)

    def _padded(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Returns a batch of one text a row with rows of the tower's full length."""
        length = batch["token_ids"].shape[1]
        beyond = ((0, 0), (0, max(0, self.places - length)))
        text_ids = jnp.pad(batch["text_ids"], beyond, constant_values=-1)[:, : self.places]
        tokens = jnp.pad(batch["token_ids"], beyond)[:, : self.places]
        starts = batch["starts"] // length * self.places + batch["starts"] % length
        return {"token_ids": jnp.where(text_ids < 0, self.padding, tokens), "text_ids": text_ids, "starts": starts}


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in files of ``transformers``, the path here and the kind of each module of the text tower."""
    yield "text_model.embeddings.token_embedding", "token", "embedding"
    yield "text_model.embeddings.position_embedding", "position", "embedding"
    yield from modules_of_layers("text_model", config["num_hidden_layers"])
    yield "text_model.final_layer_norm", "norm", "norm"
    yield "text_model.head", "head", "dense"


COUNTERPART = Counterpart(
    model_type="siglip_text_model",
    model_class="SiglipTextModel",
    whole=Whole(model_type="siglip", model_class="SiglipModel", part="text_config"),
    prefix="",
    taken=tuple(name for name in SiglipTextConfig.__dataclass_fields__ if name != "pooling"),
    modules=modules,
    dropped=r"vision_model\..+|logit_scale|logit_bias|classifier\..+",
    constants=r"(text_model\.)?embeddings\.position_ids",
    # The names of tensors in memory, in transformers 5.
    aliases=((r"^(embeddings|encoder|final_layer_norm|head)\.", r"text_model.\1."),),
    pooling=PROJECTION,
)
"""SigLIP's text tower in ``transformers``, alone or as a part of SiglipModel."""
