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
    return nnx.LayerNorm(features, epsilon=epsilon, use_bias=bias, use_fast_variance=False, rngs=rngs)


def rms_norm(features: int, rngs: nnx.Rngs, *, epsilon: float) -> nnx.RMSNorm:
    """Returns a normalisation by the root mean square over ``features``, without a bias (Zhang and Sennrich 2019)."""
    return nnx.RMSNorm(features, epsilon=epsilon, rngs=rngs)


def product(
    inputs: Float[Array, "*rows inputs"], kernel: Float[Array, "inputs outputs"]
) -> Float[Array, "*rows outputs"]:
    """Returns ``inputs @ kernel``, multiplied in the kernel's precision, in the precision of the inputs.

    A kernel in bfloat16 meets inputs that are rounded to bfloat16; the sums are float32. Its gradients are products of
    the same kind.

    Args:
      inputs: hidden states.
      kernel: the matrix, in float32 or bfloat16.
    """
    if kernel.dtype == jnp.bfloat16:
        return _bfloat16_product(inputs, kernel)
    return jnp.matmul(inputs, kernel)


@jax.custom_vjp
def _bfloat16_product(inputs: Array, kernel: Array) -> Array:
    return _summed_in_float32(inputs, kernel, (inputs.ndim - 1, 0)).astype(inputs.dtype)


def _forwards(inputs: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _bfloat16_product(inputs, kernel), (inputs, kernel)


def _backwards(kept: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    inputs, kernel = kept
    of_inputs = _summed_in_float32(slope, kernel, (slope.ndim - 1, 1))
    rows, slopes = inputs.reshape(-1, inputs.shape[-1]), slope.reshape(-1, slope.shape[-1])
    if inputs.dtype == jnp.float32 and len(rows) % _BLOCK == 0:  # hidden states in float32: on a CPU
        of_kernel = _summed_in_float32(_transposed(rows.astype(jnp.bfloat16)), slopes, (1, 0))
    else:
        of_kernel = _summed_in_float32(rows, slopes, (0, 0))
    return of_inputs.astype(inputs.dtype), of_kernel.astype(kernel.dtype)


_bfloat16_product.defvjp(_forwards, _backwards)


def _summed_in_float32(left: Array, right: Array, axes: tuple[int, int]) -> Array:
    """Returns the product over an axis of ``left`` and one of ``right``, both rounded to bfloat16."""
    over = (((axes[0],), (axes[1],)), ((), ()))
    left, right = left.astype(jnp.bfloat16), right.astype(jnp.bfloat16)
    return jax.lax.dot_general(left, right, over, preferred_element_type=jnp.float32)


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
