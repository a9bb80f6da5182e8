"""Attention among the tokens of each text in a packed row."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.activations import soft_capped
from wsr.models.layers.blockwise_attention import NOWHERE, attend_in_blocks
from wsr.models.layers.dense import dense, layer_norm
from wsr.models.layers.mask import Mask

WHOLE_SCORES = 512
"""Longest row, in tokens, whose scores are held whole. Longer rows are attended to in blocks.

At 512 tokens both ways take equally long within noise, on a CPU (``python -m benchmarks --only=attention``) and as the
compiler of v5e expects (``python -m benchmarks.ahead_of_time --only="long rows"``). Rows up to it keep their bits."""


def attend(
    query: Float[Array, "tokens query_features"],
    key: Float[Array, "tokens key_features"],
    value: Float[Array, "tokens key_features"],
    mask: Mask,
    *,
    heads: int,
    key_heads: int | None = None,
    scale: float | None = None,
    cap: float | None = None,
    bias: Float[Array, "#rows heads length length"] | None = None,
    dropout: nnx.Dropout | None = None,
    rngs: nnx.Rngs | None = None,
) -> Float[Array, "tokens query_features"]:
    """Returns ``softmax(query key^T scale + bias) value`` for each head, over the positions that the mask allows.

    The scores of long rows never exist together (``wsr.models.layers.blockwise_attention``), unless there is a bias.

    Args:
      query: the heads of a token side by side.
      key: likewise.
      value: likewise.
      mask: which tokens attend to which.
      heads: number of query heads.
      key_heads: number of key and value heads, each shared by ``heads / key_heads`` query heads; None: ``heads``.
      scale: factor of the scores; None: one over the square root of a head's width.
      cap: scaled scores approach this value and never pass it; None: no cap.
      bias: added to the scores; None: no bias.
      dropout: applied to the attention weights if there are ``rngs``.
      rngs: the random keys of dropout; None: no dropout.
    """
    key_heads = key_heads or heads
    width = query.shape[-1] // heads
    # Queries are smaller than the scores, so scale them instead.
    query = query / width**0.5 if scale is None else query * scale
    if bias is None and mask.length > WHOLE_SCORES:
        rate, dropout_key = _active(dropout, rngs)
        return attend_in_blocks(
            query,
            key,
            value,
            mask,
            heads=heads,
            key_heads=key_heads,
            cap=cap,
            dropout_rate=rate,
            dropout_key=dropout_key,
        )
    return _attend_whole(query, key, value, mask, heads, key_heads, cap, bias, dropout, rngs)


def _attend_whole(
    query: Float[Array, "tokens query_features"],
    key: Float[Array, "tokens key_features"],
    value: Float[Array, "tokens key_features"],
    mask: Mask,
    heads: int,
    key_heads: int,
    cap: float | None,
    bias: Float[Array, "#rows heads length length"] | None,
    dropout: nnx.Dropout | None,
    rngs: nnx.Rngs | None,
) -> Float[Array, "tokens query_features"]:
    rows, length = mask.keys.shape
    query = _by_head(query, rows, length, heads)
    key, value = (_by_head(part, rows, length, key_heads) for part in (key, value))
    if key_heads < heads:
        key, value = (jnp.repeat(part, heads // key_heads, axis=1) for part in (key, value))
    # Not jax.nn.dot_product_attention, which has no dropout of the weights.
    at_least_float32 = jnp.promote_types(query.dtype, jnp.float32)  # even if the layers compute in less
    scores = jnp.einsum("rhqd,rhkd->rhqk", query, key, preferred_element_type=at_least_float32)
    scores = soft_capped(scores, cap)
    allowed = jnp.where(mask.as_array(), jnp.zeros((), scores.dtype), jnp.asarray(NOWHERE, scores.dtype))
    scores = scores + (allowed if bias is None else allowed + bias)
    weights = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = weights.sum(axis=-1, keepdims=True)
    weights = weights.astype(value.dtype)
    if dropout is not None and rngs is not None:
        weights = dropout(weights, rngs=rngs)
    # Outputs are smaller than the weights, so divide them instead.
    mixed = jnp.einsum("rhqk,rhkd->rhqd", weights, value) / total.astype(value.dtype)
    return mixed.transpose(0, 2, 1, 3).reshape(rows * length, -1)


class SelfAttention(nnx.Module):
    """Multi-head self-attention with a residual connection, normalised after it (post-norm)."""

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
        mask: Mask,
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
        """Passes ``mixed`` through the output layer, adds it to ``hidden`` and returns the normalised sum."""
        return self.norm(hidden + self.output_dropout(self.output(mixed), rngs=rngs))


def _active(dropout: nnx.Dropout | None, rngs: nnx.Rngs | None) -> tuple[float, Array | None]:
    """Returns the rate of dropout and a key for it; no key if nothing is dropped."""
    if dropout is None or rngs is None or dropout.deterministic or dropout.rate == 0:
        return 0.0, None
    return dropout.rate, rngs[dropout.rng_collection]()


def _by_head(
    features: Float[Array, "tokens features"], rows: int, length: int, heads: int
) -> Float[Array, "rows heads length per_head"]:
    return features.reshape(rows, length, heads, -1).transpose(0, 2, 1, 3)
