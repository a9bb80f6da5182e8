"""The patches of an image, mapped to hidden states."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal
from jaxtyping import Array, Float

from wsr.models.layers.dense import product


class Patches(nnx.Module):
    """A linear map of each patch, with ``kernel [patch, patch, channels, hidden]`` and perhaps ``bias [hidden]``.

    It equals a convolution whose stride is its width, written as one matrix product.
    """

    def __init__(self, side: int, channels: int, hidden: int, rngs: nnx.Rngs, *, spread: float, bias: bool = True):
        """``side`` is the height and width of a patch in pixels."""
        self.kernel = nnx.Param(normal(spread)(rngs.params(), (side, side, channels, hidden)))
        self.bias = nnx.Param(jnp.zeros(hidden)) if bias else None

    def __call__(
        self, pixel_values: Float[Array, "batch height width channels"], dtype: Any
    ) -> Float[Array, "batch patches hidden"]:
        """Returns the patches as hidden states of type ``dtype``."""
        kernel = self.kernel[...]
        side, _, channels, hidden = kernel.shape
        images, height, width, _ = pixel_values.shape
        rows, columns = height // side, width // side
        cut = pixel_values.astype(dtype).reshape(images, rows, side, columns, side, channels)
        flat = cut.transpose(0, 1, 3, 2, 4, 5).reshape(images, rows * columns, -1)
        mapped = product(flat, kernel.reshape(-1, hidden))
        return mapped if self.bias is None else mapped + self.bias[...][None, None]
