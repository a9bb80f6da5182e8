"""Dense layers, embedding tables and normalisations, initialised as in transformers."""

from flax import nnx
from jax.nn.initializers import normal


def dense(inputs: int, outputs: int, rngs: nnx.Rngs, *, spread: float, bias: bool = True) -> nnx.Linear:
    """Returns a dense layer: ``kernel [inputs, outputs]`` from N(0, spread) and ``bias [outputs]``."""
    return nnx.Linear(inputs, outputs, use_bias=bias, kernel_init=normal(spread), rngs=rngs)


def table(entries: int, features: int, rngs: nnx.Rngs, *, spread: float) -> nnx.Embed:
    """Returns an embedding table: ``embedding [entries, features]`` from N(0, spread)."""
    return nnx.Embed(entries, features, embedding_init=normal(spread), rngs=rngs)


def layer_norm(features: int, rngs: nnx.Rngs, *, epsilon: float, bias: bool = True) -> nnx.LayerNorm:
    """Returns a layer normalisation over ``features``."""
    # The fast variance, E[x^2] - E[x]^2, loses digits if the mean is large.
    return nnx.LayerNorm(features, epsilon=epsilon, use_bias=bias, use_fast_variance=False, rngs=rngs)


def rms_norm(features: int, rngs: nnx.Rngs, *, epsilon: float) -> nnx.RMSNorm:
    """Returns a normalisation by the root mean square over ``features``, without a bias (Zhang and Sennrich 2019)."""
    return nnx.RMSNorm(features, epsilon=epsilon, rngs=rngs)
