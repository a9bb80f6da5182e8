"""Dense layers, embedding tables and normalisations, initialised as in transformers."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal
from jaxtyping import Array, Float

_BLOCK = 32
"""Rows of a block of ``_transposed``: 64 bytes of bfloat16, which a processor reads at once."""


def dense(inputs: int, outputs: int, rngs: nnx.Rngs, *, spread: float, bias: bool = True) -> nnx.Linear:
    """Returns a dense layer: ``kernel [inputs, outputs]`` from N(0, spread) and ``bias [outputs]``."""
    return nnx.Linear(
        inputs,
        outputs,
        use_bias=bias,
        kernel_init=normal(spread),
        dot_general=_dot_general,
        promote_dtype=_as_they_are,
        rngs=rngs,
    )


def table(entries: int, features: int, rngs: nnx.Rngs, *, spread: float) -> nnx.Embed:
    """Returns an embedding table: ``embedding [entries, features]`` from N(0, spread)."""
    return nnx.Embed(entries, features, embedding_init=normal(spread), promote_dtype=_as_they_are, rngs=rngs)


def layer_norm(features: int, rngs: nnx.Rngs, *, epsilon: float, bias: bool = True) -> nnx.LayerNorm:
    """Returns a layer normalisation over ``features``."""
    # The fast variance, E[x^2] - E[x]^2, loses digits if the mean is large.
    return _LayerNorm(features, epsilon=epsilon, use_bias=bias, use_fast_variance=False, rngs=rngs)


class _LayerNorm(nnx.LayerNorm):
    """Reads inputs in bfloat16 once, for mean and variance together: they have fewer digits than that loses."""

    def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
        if x.dtype != jnp.bfloat16:
            return super().__call__(x, mask=mask)
        values = x.astype(jnp.float32)
        mean, mean_square = (own.mean(axis=-1, keepdims=True) for own in (values, jnp.square(values)))
        spread = jax.lax.rsqrt(jnp.maximum(mean_square - jnp.square(mean), 0.0) + self.epsilon)
        normed = (values - mean) * (spread * self.scale[...])
        return (normed if self.bias is None else normed + self.bias[...]).astype(x.dtype)


def rms_norm(features: int, rngs: nnx.Rngs, *, epsilon: float) -> nnx.RMSNorm:
    """Returns a normalisation by the root mean square over ``features``, without a bias (Zhang and Sennrich 2019)."""
    return nnx.RMSNorm(features, epsilon=epsilon, rngs=rngs)


def product(
    inputs: Float[Array, "*rows inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "*rows outputs"]:
    """Returns ``inputs @ kernel``, multiplied in the kernel's precision, in the precision of the inputs.

    A kernel in bfloat16 meets inputs that are rounded to bfloat16. The sums are float32 (accelerators round them where
    they multiply, so that no float32 leaves the unit). Its gradients are products of the same kind.

    Args:
      inputs: hidden states.
      kernel: the matrix, in float32 or bfloat16.
    """
    if kernel.dtype == jnp.bfloat16:
        return _bfloat16_product(inputs, kernel)
    return jnp.matmul(inputs, kernel)


@jax.custom_vjp
def _bfloat16_product(inputs: Array, kernel: Array) -> Array:
    return _rounded_product(inputs, kernel, (inputs.ndim - 1, 0), inputs.dtype)


def _forwards(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _bfloat16_product(inputs, kernel), (inputs, kernel)


def _backwards(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    inputs, kernel = kept
    of_inputs = _rounded_product(slope, kernel, (slope.ndim - 1, 1), inputs.dtype)
    rows, slopes = inputs.reshape(-1, inputs.shape[-1]), slope.reshape(-1, slope.shape[-1])
    if inputs.dtype == jnp.float32 and len(rows) % _BLOCK == 0:  # hidden states in float32: on a CPU
        of_kernel = _rounded_product(_transposed(rows.astype(jnp.bfloat16)), slopes, (1, 0), inputs.dtype)
    else:
        of_kernel = _rounded_product(rows, slopes, (0, 0), inputs.dtype)
    return of_inputs, of_kernel.astype(kernel.dtype)


_bfloat16_product.defvjp(_forwards, _backwards)


def _rounded_product(left: Array, right: Array, axes: tuple[int, int], dtype: Any) -> Array:
    """Returns the product over an axis of ``left`` and one of ``right``, both rounded to bfloat16, as ``dtype``."""
    over = (((axes[0],), (axes[1],)), ((), ()))
    left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jax.lax.dot_general(left, right, over, preferred_element_type=dtype)


def _transposed(rows: Array) -> Array:
    """Returns a matrix transposed in memory, block by block.

    XLA multiplies bfloat16 on a CPU at twice the rate of float32, but not over the first axis of the left operand. It
    would transpose the operand with one jump in memory for each entry, which takes as long as the product.
    """
    count, width = rows.shape
    blocks = rows.reshape(count // _BLOCK, _BLOCK, width).transpose(0, 2, 1)
    # The barriers keep XLA from making one transposition of two, or of it and the product.
    blocks = jax.lax.optimization_barrier(blocks).transpose(1, 0, 2)
    return jax.lax.optimization_barrier(blocks.reshape(width, count))


def _dot_general(inputs: Array, kernel: Array, *_: Any, **options: Any) -> Array:
    """The product of a dense layer, in the form in which flax asks for it."""
    return product(inputs, kernel)


def _as_they_are(arrays: tuple, **_: Any) -> tuple:
    """Promotes nothing: the precision of the parameters decides."""
    return arrays
