"""A convolution along each text of a packed row."""

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal
from jaxtyping import Array, Float, Int

from wsr.models.layers.dense import product


class Convolution(nnx.Module):
    """Mixes each token with its neighbours in the same text; beyond the ends of a text it reads zeros."""

    def __init__(self, features: int, width: int, rngs: nnx.Rngs, *, spread: float):
        """``width``, an odd number, counts the token and an equal number of neighbours on either side."""
        self.width = width
        self.kernel = nnx.Param(normal(spread)(rngs.params(), (width, features, features)))
        self.bias = nnx.Param(jnp.zeros(features))

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        text_ids: Int[Array, "rows length"],
        positions: Int[Array, "rows length"],
    ) -> Float[Array, "tokens hidden"]:
        text_ids, positions = text_ids.reshape(-1), positions.reshape(-1)
        mixed = self.bias[...]
        for place in range(self.width):
            offset = place - self.width // 2
            # A roll joins the ends of rows, so compare positions to recognise true neighbours.
            same = (jnp.roll(text_ids, -offset) == text_ids) & (jnp.roll(positions, -offset) == positions + offset)
            neighbour = jnp.where(same[:, None], jnp.roll(hidden, -offset, axis=0), 0)
            mixed = mixed + product(neighbour, self.kernel[place])
        return mixed
