"""Activations under their Hugging Face names."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
from jaxtyping import Array


def exact_gelu(inputs: Array) -> Array:
    """Returns ``x Phi(x)``, where Phi is the normal distribution function (Hendrycks and Gimpel 2016).

    It uses erf, as PyTorch does: with the erfc of jax.nn.gelu an encoder's forward pass takes a tenth longer on a CPU
    (``python -m benchmarks --only=encoder``), for digits that are lost again in float32 sums.
    """
    return 0.5 * inputs * (1 + jax.lax.erf(inputs * 0.5**0.5))


def quick_gelu(inputs: Array) -> Array:
    """Returns ``x sigmoid(1.702 x)`` (Hendrycks and Gimpel 2016), as in CLIP."""
    return inputs * jax.nn.sigmoid(1.702 * inputs)


def soft_capped(inputs: Array, cap: float | None) -> Array:
    """Returns ``cap tanh(inputs / cap)``, which stays below ``cap`` in size (Gemma 2); no cap: the inputs."""
    return inputs if cap is None else cap * jax.numpy.tanh(inputs / cap)


_tanh_gelu = partial(jax.nn.gelu, approximate=True)

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": exact_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jax.numpy.tanh,
}
