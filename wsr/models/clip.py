"""What the two towers of CLIP (Radford et al. 2021) share: their layers, and the model that transformers makes of both.

The towers are two architectures. ``clip_vision`` reads images: a population of CLIP models is one of vision towers,
with the projection of the image embeddings, as in the literature on merging. The text tower, its projection and
``logit_scale`` are kept apart from the encoder, like a head, and an export of a CLIP base writes them back, so that
transformers loads the whole model. ``clip_text`` reads texts: it makes zero-shot heads (``wsr.engine.zero_shot``) and
may have a population of its own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

from flax import nnx
from jaxtyping import Array, Float

from wsr.models import config as configs
from wsr.models.counterpart import Counterpart, Module, Whole
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.attention import attend
from wsr.models.layers.dense import dense, layer_norm
from wsr.models.layers.mask import Mask

Own = TypeVar("Own", bound="ClipConfig")

PROJECTION = "projection"
"""The pooling that gives the embeddings by which CLIP compares images and texts."""


def counterpart(
    tower: Literal["text", "vision"],
    config: "type[ClipConfig]",
    modules: Callable[[Mapping[str, Any]], Iterable[Module]],
    *,
    in_memory: Sequence[str],
    pooling: str = "cls",
) -> Counterpart:
    """Returns a tower in ``transformers``, alone or as a part of CLIPModel.

    Args:
      tower: which one.
      config: the dataclass of its config.
      modules: lists its modules, see ``Counterpart``.
      in_memory: modules whose names in memory lack the tower's name in transformers 5.
      pooling: pooling of the tower's ``pooler_output``.
    """
    other, embeddings = ("vision", "text") if tower == "text" else ("text", "visual")
    model_class = f"CLIP{tower.capitalize()}Model"
    return Counterpart(
        model_type=f"clip_{tower}_model",
        model_class=model_class,
        projected_class=f"{model_class}WithProjection",
        whole=Whole(model_type="clip", model_class="CLIPModel", part=f"{tower}_config", decides=("projection_dim",)),
        prefix="",
        taken=tuple(own.name for own in fields(config) if own.name not in ("pooling", "projection")),
        modules=modules,
        present={"projection": f"{embeddings}_projection.weight"},
        dropped=rf"{other}_model\..+|(text|visual)_projection\.weight|logit_scale|classifier\..+",
        # Old files hold the positions.
        constants=r"((text|vision)_model\.)?embeddings\.position_ids",
        aliases=((rf"^({'|'.join(in_memory)})\.", rf"{tower}_model.\1."),),
        pooling=pooling,
    )


@dataclass(frozen=True)
class ClipConfig:
    """Sizes, activation and dropout of a tower, under their Hugging Face names; subclasses add a tower's own fields."""

    hidden_size: int
    intermediate_size: int
    projection_dim: int
    """Number of features of an embedding that is compared with those of the other tower."""
    num_hidden_layers: int
    num_attention_heads: int
    hidden_act: str
    layer_norm_eps: float
    attention_dropout: float
    initializer_range: float
    initializer_factor: float

    def check(self, what: str) -> None:
        """Raises ``WsrError`` if a value is out of range or contradicts another; ``what`` names the architecture."""
        configs.require_layers(what, self, "projection_dim", hidden_act=ACTIVATIONS)
        configs.require_share(what, self, "attention_dropout")

    @property
    def head_spread(self) -> float:
        """Standard deviation of the initial weights of the projection."""
        return self.hidden_size**-0.5 * self.initializer_factor


@runtime_checkable
class BlockConfig(Protocol):
    """What a layer takes from its tower's config."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def num_hidden_layers(self) -> int: ...
    @property
    def num_attention_heads(self) -> int: ...
    @property
    def hidden_act(self) -> str: ...
    @property
    def layer_norm_eps(self) -> float: ...
    @property
    def attention_dropout(self) -> float: ...
    @property
    def initializer_factor(self) -> float: ...


class ClipBlock(nnx.Module):
    """Self-attention and a feed-forward network, each normalised before (pre-norm) and added to its input."""

    def __init__(self, config: BlockConfig, rngs: nnx.Rngs):
        hidden, wide, factor = config.hidden_size, config.intermediate_size, config.initializer_factor
        deep = hidden**-0.5 * (2 * config.num_hidden_layers) ** -0.5 * factor
        self.heads = config.num_attention_heads
        self.activation = ACTIVATIONS[config.hidden_act]
        self.attention_norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.query = dense(hidden, hidden, rngs, spread=deep)
        self.key = dense(hidden, hidden, rngs, spread=deep)
        self.value = dense(hidden, hidden, rngs, spread=deep)
        self.mix = dense(hidden, hidden, rngs, spread=hidden**-0.5 * factor)
        self.feed_forward_norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.intermediate = dense(hidden, wide, rngs, spread=(2 * hidden) ** -0.5 * factor)
        self.output = dense(wide, hidden, rngs, spread=deep)
        self.weights_dropout = nnx.Dropout(config.attention_dropout)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        normed = self.attention_norm(hidden)
        query, key, value = self.query(normed), self.key(normed), self.value(normed)
        mixed = attend(query, key, value, mask, heads=self.heads, dropout=self.weights_dropout, rngs=rngs)
        hidden = hidden + self.mix(mixed)
        return hidden + self.output(self.activation(self.intermediate(self.feed_forward_norm(hidden))))


def modules_of_layers(tower: str, layers: Any) -> Iterator[Module]:
    """Yields the name in files of ``transformers``, the path here and the kind of each module of a tower's layers."""
    for layer in range(layers):
        theirs, ours = f"{tower}.encoder.layers.{layer}", f"layers/{layer}"
        yield f"{theirs}.layer_norm1", f"{ours}/attention_norm", "norm"
        for part, name in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "mix")):
            yield f"{theirs}.self_attn.{part}", f"{ours}/{name}", "dense"
        yield f"{theirs}.layer_norm2", f"{ours}/feed_forward_norm", "norm"
        yield f"{theirs}.mlp.fc1", f"{ours}/intermediate", "dense"
        yield f"{theirs}.mlp.fc2", f"{ours}/output", "dense"
