"""Which tokens of a packed row attend to which."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

HIDDEN = -2
"""Text of a key to which no token of a text attends."""


def whole_rows(rows: int, length: int) -> "Mask":
    """Returns the mask that lets each token attend to all tokens of its row."""
    together = jnp.zeros((rows, length), jnp.int32)
    return Mask(together, together, together)


def within_texts(
    text_ids: Int[Array, "rows length"],
    positions: Int[Array, "rows length"],
    *,
    causal: bool = False,
    furthest: int | None = None,
) -> "Mask":
    """Returns the mask that lets each token attend to the tokens of its text.

    Positions without a text (-1) attend to each other. Nothing reads their output, but a row that may attend to nothing
    would be a softmax over nothing.

    Args:
      text_ids: the text of each token, see ``wsr.types.Batch``.
      positions: of each token in its text.
      causal: whether later tokens are hidden, as in a decoder.
      furthest: distance, in tokens, beyond which tokens are hidden, as in local attention; None: no limit.
    """
    return Mask(text_ids, text_ids, positions, causal, furthest)


@dataclass(frozen=True)
class Mask:
    """A query attends to the keys of its text, as far as the other fields allow.

    It is a rule and not an array, so that the largest array, ``[rows, length, length]``, exists only where it is asked
    for. The tokens of a text lie side by side in their row, in order.
    """

    queries: Int[Array, "rows length"]
    """Text of each token as a query."""
    keys: Int[Array, "rows length"]
    """Text of each token as a key."""
    positions: Int[Array, "rows length"]
    """Position of each token in its text, from 0."""
    causal: bool = False
    """Whether a query attends only to keys that are not later."""
    furthest: int | None = None
    """Distance, in tokens, beyond which keys are hidden; None: no limit."""

    @property
    def length(self) -> int:
        """Number of tokens in a row."""
        return self.keys.shape[1]

    def as_array(self) -> Bool[Array, "rows 1 length length"]:
        """Returns whether each query attends to each key of its row."""
        own = (self.queries, self.keys, self.positions, self.positions)
        return allowed(*own, causal=self.causal, furthest=self.furthest)[:, None]


def allowed(
    queries: Int[Array, "rows some"],
    keys: Int[Array, "rows others"],
    query_positions: Int[Array, "rows some"],
    key_positions: Int[Array, "rows others"],
    *,
    causal: bool,
    furthest: int | None,
) -> Bool[Array, "rows some others"]:
    """Returns whether some queries attend to some keys, given their texts and positions; see ``Mask``."""
    seen = queries[:, :, None] == keys[:, None, :]
    if causal:
        seen = seen & (query_positions[:, :, None] >= key_positions[:, None, :])
    if furthest is not None:
        seen = seen & (jnp.abs(query_positions[:, :, None] - key_positions[:, None, :]) <= furthest)
    return seen
