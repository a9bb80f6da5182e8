"""The loss of a causal language model, token by token, in pieces, so that the logits never lie in memory together."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from wsr.models.layers.activations import soft_capped
from wsr.models.layers.dense import product

LOGITS_TOGETHER = 2**24
"""Number of logits in memory at the same time; in float32 they take 64 MiB."""


def next_token_losses(
    hidden: Float[Array, "rows length hidden"],
    head: Float[Array, "hidden vocabulary"],
    batch: Mapping[str, Array],
    cap: float | None = None,
) -> Float[Array, "rows length"]:
    """Returns at each token the cross-entropy, in nats, of the next token of its text, and 0 at a text's last token.

    Args:
      hidden: hidden states after the final norm.
      head: the matrix that maps hidden states to logits.
      batch: see ``wsr.types.Batch``.
      cap: logits approach this value and never pass it; None: no cap.
    """
    shape, vocabulary = batch["token_ids"].shape, head.shape[1]
    following = jnp.roll(batch["token_ids"], -1, axis=1).reshape(-1)
    tokens = len(following)
    together = min(tokens, max(1, LOGITS_TOGETHER // vocabulary))
    pieces = -(-tokens // together)
    missing = pieces * together - tokens

    @jax.checkpoint  # otherwise a gradient keeps the logits of every piece
    def losses_of(piece: tuple[Array, Array]) -> Array:
        states, targets = piece
        at_least_float32 = jnp.promote_types(states.dtype, jnp.float32)
        logits = soft_capped(product(states.astype(at_least_float32), head), cap)
        chosen = jnp.take_along_axis(logits, targets[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(logits, axis=1) - chosen

    states = jnp.pad(hidden.reshape(tokens, -1), ((0, missing), (0, 0))).reshape(pieces, together, -1)
    targets = jnp.pad(following, (0, missing)).reshape(pieces, together)
    losses = jax.lax.map(losses_of, (states, targets)).reshape(-1)[:tokens].reshape(shape)
    return jnp.where(_has_next(batch["text_ids"]), losses, 0.0)


def _has_next(text_ids: Array) -> Array:
    """Returns where the next position of the row holds a token of the same text."""
    same = (text_ids[:, :-1] == text_ids[:, 1:]) & (text_ids[:, :-1] >= 0)
    return jnp.pad(same, ((0, 0), (0, 1)))
