"""Dense layers and normalisation as BERT-like encoders set them up."""

from flax import nnx
from jax.nn.initializers import Initializer
from jax.nn.initializers import normal as normal_initializer

from wsr.models.encoder_config import EncoderConfig


def dense(config: EncoderConfig, inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a dense layer: ``kernel [inputs, outputs]`` and ``bias [outputs]``."""
    return nnx.Linear(inputs, outputs, kernel_init=normal(config), rngs=rngs)


def layer_norm(config: EncoderConfig, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """Returns a layer normalisation over the hidden dimension."""
    # The fast variance, E[x^2] - E[x]^2, loses digits where the mean is large.
    return nnx.LayerNorm(config.hidden_size, epsilon=config.layer_norm_eps, use_fast_variance=False, rngs=rngs)


def normal(config: EncoderConfig) -> Initializer:
    """Returns the initialiser of kernels and embeddings."""
    return normal_initializer(config.initializer_range)
