"""The machine's measured rate of matrix products: the ceiling that an encoder is compared with."""

import time

import jax
import jax.numpy as jnp


def matmul_rate(dtype: str = "float32", *, size: int | None = None, repeats: int = 8) -> float:
    """Returns operations a second of the fastest of several square products, as XLA runs them."""
    accelerator = jax.default_backend() != "cpu"
    size = size or (8192 if accelerator else 2048)
    left = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)
    product(left, left).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(left, left).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
