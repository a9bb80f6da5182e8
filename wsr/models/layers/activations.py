"""Activations under their Hugging Face names."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
from jaxtyping import Array

_exact_gelu = partial(jax.nn.gelu, approximate=False)
_tanh_gelu = partial(jax.nn.gelu, approximate=True)

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = {
    "gelu": _exact_gelu,
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jax.numpy.tanh,
}
