"""GPT-2 in Flax NNX: learned positions, pre-norm layers, a head that is mostly tied to the token embedding."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
from wsr.models.layers.feed_forward import BareFeedForward
from wsr.models.layers.language_model import next_token_losses
from wsr.models.layers.mask import Mask, within_texts
from wsr.models.layers.pooling import POOLINGS, pool
from wsr.models.model import Model

EXAMPLE: Mapping[str, Any] = {
    "vocab_size": 40,
    "n_positions": 24,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_inner": None,
    "activation_function": "gelu_new",
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "pooling": "last",
}
"""A config small enough for a test."""


@dataclass(frozen=True)
class Gpt2Config:
    """The hyperparameters of GPT-2, under their Hugging Face names."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int | None
    activation_function: str
    resid_pdrop: float
    embd_pdrop: float
    attn_pdrop: float
    layer_norm_epsilon: float
    initializer_range: float
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool
    pooling: str
    language_model_head: bool = False
    """Whether the parameters include a language-modelling head; otherwise it is tied to the token embedding."""

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "Gpt2Config":
        """Returns ``config`` as this dataclass; raises ``WsrError`` naming each missing, unknown or invalid key."""
        typed = configs.read(cls, config, "gpt2")
        positive = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        configs.require("gpt2", typed, **dict.fromkeys(positive, 1), activation_function=ACTIVATIONS, pooling=POOLINGS)
        configs.require_share("gpt2", typed, "resid_pdrop", "embd_pdrop", "attn_pdrop")
        configs.require_multiple("gpt2", typed, "n_embd", "n_head")
        return typed

    def scale(self, layer: int) -> float:
        """Returns the factor that layer number ``layer`` multiplies its attention scores by."""
        scale = (self.n_embd // self.n_head) ** -0.5 if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale


def gpt2(config: Mapping[str, Any]) -> Model:
    """Returns the GPT-2 decoder that ``config`` describes (see ``Gpt2Config``)."""
    typed = Gpt2Config.from_mapping(config)
    return from_nnx(
        lambda rngs: Gpt2(typed, rngs),
        name="gpt2",
        # Stores made before there were untied heads lack the attribute.
        config={name: value for name, value in configs.write(typed).items() if name != "language_model_head" or value},
        hidden=typed.n_embd,
        max_length=typed.n_positions,
        language_model=True,
    )


class Gpt2(nnx.Module):
    """GPT-2: token and position embeddings, pre-norm layers, a final norm and pooling."""

    def __init__(self, config: Gpt2Config, rngs: nnx.Rngs):
        hidden, spread = config.n_embd, config.initializer_range
        self.pooling = config.pooling
        self.token = table(config.vocab_size, hidden, rngs, spread=spread)
        self.position = table(config.n_positions, hidden, rngs, spread=spread)
        self.dropout = nnx.Dropout(config.embd_pdrop)
        self.layers = nnx.List([Layer(config, number, rngs) for number in range(config.n_layer)])
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_epsilon)
        self.head = (
            dense(hidden, config.vocab_size, rngs, spread=spread, bias=False) if config.language_model_head else None
        )

    def __call__(self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None) -> Float[Array, "batch hidden"]:
        return pool(self.pooling, self.hidden_states(batch, rngs), batch)

    def hidden_states(
        self, batch: Mapping[str, Array], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "rows length hidden"]:
        """Returns the hidden states after the final normalisation."""
        embedded = self.token(batch["token_ids"]) + self.position(batch["positions"])
        mask = within_texts(batch["text_ids"], batch["positions"], causal=True)
        hidden = self.dropout(embedded.reshape(-1, embedded.shape[-1]), rngs=rngs)
        for layer in self.layers:
            hidden = layer(hidden, mask, rngs)
        return self.norm(hidden).reshape(embedded.shape)

    def token_losses(self, batch: Mapping[str, Array]) -> Float[Array, "rows length"]:
        """Returns at each token the cross-entropy of the next token, in nats; see ``next_token_losses``."""
        head = self.token.embedding[...].T if self.head is None else self.head.kernel[...]
        return next_token_losses(self.hidden_states(batch), head, batch)


class Layer(nnx.Module):
    """Self-attention and a feed-forward network, each normalised before (pre-norm) and added to its input."""

    def __init__(self, config: Gpt2Config, number: int, rngs: nnx.Rngs):
        hidden, spread = config.n_embd, config.initializer_range
        self.heads, self.scale = config.n_head, config.scale(number)
        self.attention_norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_epsilon)
        self.query_key_value = dense(hidden, 3 * hidden, rngs, spread=spread)
        self.attention_output = dense(hidden, hidden, rngs, spread=spread)
        self.feed_forward_norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_epsilon)
        self.feed_forward = BareFeedForward(
            hidden,
            config.n_inner or 4 * hidden,
            rngs,
            activation=config.activation_function,
            gated=False,
            bias=True,
            spread=spread,
        )
        self.weights_dropout = nnx.Dropout(config.attn_pdrop)
        self.dropout = nnx.Dropout(config.resid_pdrop)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        query, key, value = jnp.split(self.query_key_value(self.attention_norm(hidden)), 3, axis=-1)
        mixed = attend(
            query, key, value, mask, heads=self.heads, scale=self.scale, dropout=self.weights_dropout, rngs=rngs
        )
        hidden = hidden + self.dropout(self.attention_output(mixed), rngs=rngs)
        return hidden + self.dropout(self.feed_forward(self.feed_forward_norm(hidden)), rngs=rngs)


def modules(config: Mapping[str, Any]) -> Iterator[Module]:
    """Yields the name in ``transformers``, the path here and the kind of each of GPT-2's modules."""
    yield "wte", "token", "embedding"
    yield "wpe", "position", "embedding"
    for layer in range(config["n_layer"]):
        theirs, ours = f"h.{layer}", f"layers/{layer}"
        yield f"{theirs}.ln_1", f"{ours}/attention_norm", "norm"
        yield f"{theirs}.attn.c_attn", f"{ours}/query_key_value", "conv1d"
        yield f"{theirs}.attn.c_proj", f"{ours}/attention_output", "conv1d"
        yield f"{theirs}.ln_2", f"{ours}/feed_forward_norm", "norm"
        yield f"{theirs}.mlp.c_fc", f"{ours}/feed_forward/up", "conv1d"
        yield f"{theirs}.mlp.c_proj", f"{ours}/feed_forward/down", "conv1d"
    yield "ln_f", "norm", "norm"
    if config.get("language_model_head"):
        yield "lm_head", "head", "matrix"


COUNTERPART = Counterpart(
    model_type="gpt2",
    model_class="GPT2Model",
    language_model_class="GPT2LMHeadModel",
    prefix="transformer.",
    taken=tuple(name for name in Gpt2Config.__dataclass_fields__ if name not in ("pooling", "language_model_head")),
    untied={"language_model_head": "lm_head.weight"},
    modules=modules,
    dropped=r"(lm_head|score|classifier|qa_outputs|multiple_choice_head)\..+",
    # Files older than safetensors hold the attention masks.
    constants=r"h\.\d+\.attn\.(masked_)?bias",
    tied={"wte.weight": ("lm_head.weight",)},
    harmless=frozenset(("reorder_and_upcast_attn",)),
    pooling="last",
)
"""GPT-2 in ``transformers``."""
