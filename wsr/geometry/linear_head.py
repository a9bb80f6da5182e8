"""Logits and losses of linear heads, and matrix products at full float32 precision."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from wsr.types import AnyArray, Head

HIGHEST = jax.lax.Precision.HIGHEST
"""The precision of all products: by default TPUs and recent GPUs multiply float32 in bfloat16 or TF32."""

HEAD_DROPOUT = 0.1
"""Share of the values that dropout sets to 0 in a head with a dense layer: ``hidden_dropout_prob`` of RoBERTa."""

matmul = partial(jnp.matmul, precision=HIGHEST)
einsum = partial(jnp.einsum, precision=HIGHEST)


def logits(
    features: Float[AnyArray, "*points texts hidden"], head: Head, *, dropout_key: Array | None = None
) -> Float[Array, "*points texts classes"]:
    """Returns the logits of each text; for regression, one value per text.

    Args:
      features: features of the texts, under one point or several.
      head: ``kernel [*points, hidden, classes]`` and ``bias [*points, classes]``. With ``dense_kernel`` and
        ``dense_bias``, the features first go through that layer and a tanh, as in RoBERTa's classifier.
      dropout_key: if given, dropout is applied before that layer and after its tanh, as RoBERTa's classifier does in
        training. A head without the layer has no dropout.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry.linear_head import logits
      >>> logits(np.ones((2, 3), np.float32), {"kernel": np.ones((3, 1), np.float32), "bias": np.zeros(1)}).tolist()
      [[3.0], [3.0]]
    """
    if "dense_kernel" in head:
        before, after = (None, None) if dropout_key is None else jax.random.split(dropout_key)
        hidden = (
            matmul(_dropped(features, before), head["dense_kernel"]) + jnp.asarray(head["dense_bias"])[..., None, :]
        )
        features = _dropped(jnp.tanh(hidden), after)
    return matmul(features, head["kernel"]) + jnp.asarray(head["bias"])[..., None, :]


def losses(
    outputs: Float[AnyArray, "*points texts classes"], labels: Int[AnyArray, " texts"] | Float[AnyArray, " texts"]
) -> Float[Array, "*points texts"]:
    """Returns the loss of each text: cross-entropy in nats or, for one output, the squared error.

    Args:
      outputs: the logits of each text, or one value per text for regression.
      labels: the number of each text's class, or real numbers for regression.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry.linear_head import losses
      >>> round(float(losses(np.zeros((1, 2), np.float32), np.array([1]))[0]), 4)
      0.6931
    """
    if outputs.shape[-1] == 1:
        return jnp.square(outputs[..., 0] - jnp.asarray(labels).astype(jnp.float32))
    outputs = jnp.asarray(outputs)
    target = jnp.broadcast_to(jnp.asarray(labels)[:, None], (*outputs.shape[:-1], 1))
    return jax.nn.logsumexp(outputs, axis=-1) - jnp.take_along_axis(outputs, target, axis=-1)[..., 0]


def _dropped(values: AnyArray, key: Array | None) -> AnyArray:
    """Returns values of which a random share is 0; the others are scaled up, so that the mean stays."""
    if key is None:
        return values
    kept = jax.random.bernoulli(key, 1 - HEAD_DROPOUT, values.shape)
    return jnp.where(kept, values / (1 - HEAD_DROPOUT), 0.0)
