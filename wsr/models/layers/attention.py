"""Self-attention among the tokens of one text."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.dense import dense, layer_norm


def same_text(text_ids: Int[Array, "rows length"]) -> Bool[Array, "rows 1 length length"]:
    """Returns which tokens may look at which: those of their own text.

    Places without a text (-1) look at each other only. No text sees them and nothing reads them, while a row
    that may look nowhere would be a softmax over nothing.
    """
    return text_ids[:, None, :, None] == text_ids[:, None, None, :]


class SelfAttention(nnx.Module):
    """Multi-head self-attention with its residual connection and normalisation."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = dense(config, hidden, hidden, rngs)
        self.key = dense(config, hidden, hidden, rngs)
        self.value = dense(config, hidden, hidden, rngs)
        self.output = dense(config, hidden, hidden, rngs)
        self.norm = layer_norm(config, rngs)
        self.weights_dropout = nnx.Dropout(config.attention_probs_dropout_prob)
        self.output_dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Bool[Array, "rows 1 length length"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        rows, _, length, _ = mask.shape
        query, key, value = (self._by_head(part(hidden), rows, length) for part in (self.query, self.key, self.value))
        # Written out rather than jax.nn.dot_product_attention, which cannot drop weights.
        at_least_float32 = jnp.promote_types(hidden.dtype, jnp.float32)  # also where the layers are less
        scores = jnp.einsum("rhqd,rhkd->rhqk", query, key, preferred_element_type=at_least_float32)
        scores = jnp.where(mask, scores / query.shape[-1] ** 0.5, jnp.finfo(scores.dtype).min)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        if rngs is not None:
            weights = self.weights_dropout(weights, rngs=rngs)
        mixed = jnp.einsum("rhqk,rhkd->rhqd", weights, value)
        output = self.output(mixed.transpose(0, 2, 1, 3).reshape(hidden.shape))
        return self.norm(hidden + self.output_dropout(output, rngs=rngs))

    def _by_head(
        self, hidden: Float[Array, "tokens hidden"], rows: int, length: int
    ) -> Float[Array, "rows heads length per_head"]:
        return hidden.reshape(rows, length, self.heads, -1).transpose(0, 2, 1, 3)
