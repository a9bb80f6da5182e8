"""Pools the hidden states of packed tokens to one row of features for each text."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wsr.geometry.linear_head import matmul


def pool(
    pooling: str, hidden: Float[Array, "rows length hidden"], batch: Mapping[str, Array]
) -> Float[Array, "batch hidden"]:
    """Returns the features of each text of a batch, in float32 or wider.

    Args:
      pooling: "mean", "cls" (first token), "last" (last token), "max", "mean_sqrt" (the sum divided by the square root
        of the number of tokens) or "weighted_mean" (token i of the text has the weight i, from 1).
      hidden: hidden states of the packed tokens.
      batch: see ``wsr.types.Batch``. The features of an absent text are arbitrary.
    """
    return POOLINGS[pooling](
        hidden.astype(jnp.promote_types(hidden.dtype, jnp.float32)), batch["text_ids"], batch["starts"]
    )


def _first_token(
    hidden: Float[Array, "rows length hidden"],
    text_ids: Int[Array, "rows length"],
    starts: Int[Array, " batch"],
) -> Float[Array, "batch hidden"]:
    return hidden.reshape(-1, hidden.shape[-1])[starts]


def _mean_of_tokens(
    hidden: Float[Array, "rows length hidden"],
    text_ids: Int[Array, "rows length"],
    starts: Int[Array, " batch"],
) -> Float[Array, "batch hidden"]:
    # A product with a 0/1 matrix, not a scatter: under vmap over models it stays one product.
    members = _members(hidden, text_ids, starts)
    return _weighted_tokens(members / jnp.maximum(members.sum(axis=1, keepdims=True), 1.0), hidden)


def _weighted_tokens(
    weights: Float[Array, "batch tokens"], hidden: Float[Array, "rows length hidden"]
) -> Float[Array, "batch hidden"]:
    return _product(weights, hidden.reshape(-1, hidden.shape[-1]))


@jax.custom_vjp
def _product(
    weights: Float[Array, "batch tokens"], tokens: Float[Array, "tokens hidden"]
) -> Float[Array, "batch hidden"]:
    return matmul(weights, tokens)


def _forwards(weights: Array, tokens: Array) -> tuple[Array, Array]:
    return matmul(weights, tokens), weights


def _backwards(weights: Array, slope: Array) -> tuple[Array, Array]:
    """Returns the gradient by the tokens in their own layout; the weights are constants.

    JAX would compute it transposed, and XLA's CPU compiler multiplies in float32 where an operand in bfloat16 was made
    by a transpose: the gradients of all layers below would be.
    """
    return jnp.zeros_like(weights), matmul(weights.T, slope)


_product.defvjp(_forwards, _backwards)


def _sum_by_root(
    hidden: Float[Array, "rows length hidden"],
    text_ids: Int[Array, "rows length"],
    starts: Int[Array, " batch"],
) -> Float[Array, "batch hidden"]:
    members = _members(hidden, text_ids, starts)
    return _weighted_tokens(members / jnp.sqrt(jnp.maximum(members.sum(axis=1, keepdims=True), 1.0)), hidden)


def _mean_by_position(
    hidden: Float[Array, "rows length hidden"],
    text_ids: Int[Array, "rows length"],
    starts: Int[Array, " batch"],
) -> Float[Array, "batch hidden"]:
    members = _members(hidden, text_ids, starts)
    weights = members * (jnp.arange(members.shape[1])[None] - starts[:, None] + 1)
    return _weighted_tokens(weights / jnp.maximum(weights.sum(axis=1, keepdims=True), 1.0), hidden)


def _largest_of_tokens(
    hidden: Float[Array, "rows length hidden"],
    text_ids: Int[Array, "rows length"],
    starts: Int[Array, " batch"],
) -> Float[Array, "batch hidden"]:
    texts, ids = starts.shape[0], text_ids.reshape(-1)
    # Padding goes to a text of its own, which is cut off; absent texts get 0 in place of -infinity.
    largest = jax.ops.segment_max(
        hidden.reshape(-1, hidden.shape[-1]), jnp.where(ids < 0, texts, ids), num_segments=texts + 1
    )[:texts]
    return jnp.where(jnp.isfinite(largest), largest, 0.0)


def _members(
    hidden: Float[Array, "rows length hidden"], text_ids: Int[Array, "rows length"], starts: Int[Array, " batch"]
) -> Float[Array, "batch tokens"]:
    """Returns 1 where a token belongs to a text, else 0."""
    texts = jnp.arange(starts.shape[0], dtype=text_ids.dtype)
    return (texts[:, None] == text_ids.reshape(1, -1)).astype(hidden.dtype)


def _last_token(
    hidden: Float[Array, "rows length hidden"],
    text_ids: Int[Array, "rows length"],
    starts: Int[Array, " batch"],
) -> Float[Array, "batch hidden"]:
    texts = jnp.arange(starts.shape[0], dtype=text_ids.dtype)
    tokens = (texts[:, None] == text_ids.reshape(1, -1)).sum(axis=1)
    return hidden.reshape(-1, hidden.shape[-1])[starts + jnp.maximum(tokens - 1, 0)]


POOLINGS: Mapping[str, Callable[..., Float[Array, "batch hidden"]]] = {
    "mean": _mean_of_tokens,
    "cls": _first_token,
    "last": _last_token,
    "max": _largest_of_tokens,
    "mean_sqrt": _sum_by_root,
    "weighted_mean": _mean_by_position,
}
