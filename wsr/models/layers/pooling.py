"""Pools the hidden states of packed tokens to one row of features for each text."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wsr.geometry.linear_head import matmul


def pool(
    pooling: str, hidden: Float[Array, "rows length hidden"], batch: Mapping[str, Array]
) -> Float[Array, "batch hidden"]:
    """Returns the features of each text of a batch, in float32 or wider.

    Args:
      pooling: "mean", "cls" (first token) or "last" (last token).
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
    texts = jnp.arange(starts.shape[0], dtype=text_ids.dtype)
    members = (texts[:, None] == text_ids.reshape(1, -1)).astype(hidden.dtype)
    tokens = jnp.maximum(members.sum(axis=1, keepdims=True), 1.0)
    return matmul(members / tokens, hidden.reshape(-1, hidden.shape[-1]))


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
}
