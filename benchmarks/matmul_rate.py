"""The machine's measured rate of matrix products: the ceiling that an encoder is compared with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def matmul_work(dtype: str = "float32") -> tuple[Callable[[], object], float]:
    """Returns a call that multiplies large square matrices for about a second, and the operations it makes."""
    accelerator = jax.default_backend() != "cpu"
    size, products = (8192, 400) if accelerator else (2048, 12)
    left = jax.random.normal(jax.random.key(0), (size, size), jnp.dtype(dtype))
    product = jax.jit(jnp.matmul)

    def multiply() -> None:
        for _ in range(products):
            last = product(left, left)
        last.block_until_ready()

    return multiply, products * 2.0 * size**3


def matmul_rate(dtype: str = "float32") -> float:
    """Returns operations a second, once."""
    import time

    multiply, operations = matmul_work(dtype)
    multiply()
    start = time.perf_counter()
    multiply()
    return operations / (time.perf_counter() - start)
