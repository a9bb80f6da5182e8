"""Attention among the tokens of one text."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.dense import dense, layer_norm


def same_text(text_ids: Int[Array, "rows length"]) -> Bool[Array, "rows 1 length length"]:
    """Returns which tokens may look at which: those of their own text.

    Places without a text (-1) look at each other only. No text sees them and nothing reads them, while a row
    that may look nowhere would be a softmax over nothing.
    """
    return text_ids[:, None, :, None] == text_ids[:, None, None, :]


def not_later(positions: Int[Array, "rows length"]) -> Bool[Array, "rows 1 length length"]:
    """Returns which tokens come no later in their text than which: with ``same_text``, the mask of a decoder."""
    return positions[:, None, :, None] >= positions[:, None, None, :]


def near(positions: Int[Array, "rows length"], furthest: int) -> Bool[Array, "rows 1 length length"]:
    """Returns which tokens are at most ``furthest`` places apart: with ``same_text``, the mask of local attention."""
    return jnp.abs(positions[:, None, :, None] - positions[:, None, None, :]) <= furthest


def attend(
    query: Float[Array, "tokens query_features"],
    key: Float[Array, "tokens key_features"],
    value: Float[Array, "tokens key_features"],
    mask: Bool[Array, "rows 1 length length"],
    *,
    heads: int,
    key_heads: int | None = None,
    scale: float | None = None,
    bias: Float[Array, "#rows heads length length"] | None = None,
    dropout: nnx.Dropout | None = None,
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "tokens query_features"]:
    """Returns ``softmax(query key^T scale + bias) value`` for each head, over the places that the mask allows.

    Args:
      query, key, value: each token's heads side by side.
      mask: from ``same_text``.
      heads: of the queries.
      key_heads: of keys and values, each shared by as many heads of the queries; None: ``heads``.
      scale: None: one over the square root of a head's width.
      bias: added to the scores.
      dropout: of the weights; applied where there are ``rngs``.
      rngs: where dropout draws from.
    """
    rows, _, length, _ = mask.shape
    key_heads = key_heads or heads
    query = _by_head(query, rows, length, heads)
    key, value = (_by_head(part, rows, length, key_heads) for part in (key, value))
    if key_heads < heads:
        key, value = (jnp.repeat(part, heads // key_heads, axis=1) for part in (key, value))
    # Written out rather than jax.nn.dot_product_attention, which cannot drop weights.
    at_least_float32 = jnp.promote_types(query.dtype, jnp.float32)  # also where the layers are less
    scores = jnp.einsum("rhqd,rhkd->rhqk", query, key, preferred_element_type=at_least_float32)
    scores = scores / query.shape[-1] ** 0.5 if scale is None else scores * scale
    if bias is not None:
        scores = scores + bias
    scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    if dropout is not None and rngs is not None:
        weights = dropout(weights, rngs=rngs)
    mixed = jnp.einsum("rhqk,rhkd->rhqd", weights, value)
    return mixed.transpose(0, 2, 1, 3).reshape(rows * length, -1)


class SelfAttention(nnx.Module):
    """Multi-head self-attention with its residual connection and normalisation."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        hidden, spread = config.hidden_size, config.initializer_range
        self.heads = config.num_attention_heads
        self.query = dense(hidden, hidden, rngs, spread=spread)
        self.key = dense(hidden, hidden, rngs, spread=spread)
        self.value = dense(hidden, hidden, rngs, spread=spread)
        self.output = dense(hidden, hidden, rngs, spread=spread)
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.weights_dropout = nnx.Dropout(config.attention_probs_dropout_prob)
        self.output_dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Bool[Array, "rows 1 length length"],
        rngs: nnx.Rngs | None = None,
        bias: Float[Array, "#rows heads length length"] | None = None,
    ) -> Float[Array, "tokens hidden"]:
        mixed = attend(
            self.query(hidden),
            self.key(hidden),
            self.value(hidden),
            mask,
            heads=self.heads,
            bias=bias,
            dropout=self.weights_dropout,
            rngs=rngs,
        )
        return self.beside(hidden, mixed, rngs)

    def beside(
        self,
        hidden: Float[Array, "tokens hidden"],
        mixed: Float[Array, "tokens hidden"],
        rngs: nnx.Rngs | None,
    ) -> Float[Array, "tokens hidden"]:
        """Returns what was mixed through the output layer, added to ``hidden`` and normalised."""
        return self.norm(hidden + self.output_dropout(self.output(mixed), rngs=rngs))


def _by_head(
    features: Float[Array, "tokens features"], rows: int, length: int, heads: int
) -> Float[Array, "rows heads length per_head"]:
    return features.reshape(rows, length, heads, -1).transpose(0, 2, 1, 3)
