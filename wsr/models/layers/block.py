"""One layer of a BERT-like encoder."""

from flax import nnx
from jaxtyping import Array, Float

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.attention import SelfAttention
from wsr.models.layers.dense import dense, layer_norm
from wsr.models.layers.mask import Mask


class Block(nnx.Module):
    """Self-attention and a feed-forward network, each added to its input and then normalised (post-norm)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.attention = SelfAttention(config, rngs)
        self.feed_forward = FeedForward(config, rngs)

    def __call__(
        self,
        hidden: Float[Array, "tokens hidden"],
        mask: Mask,
        rngs: nnx.Rngs | None = None,
        bias: Float[Array, "#rows heads length length"] | None = None,
    ) -> Float[Array, "tokens hidden"]:
        """``bias`` is added to the scores of attention."""
        return self.feed_forward(self.attention(hidden, mask, rngs, bias), rngs)


class FeedForward(nnx.Module):
    """A feed-forward network of one wide layer with a residual connection, normalised after it (post-norm)."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        self.activation = ACTIVATIONS[config.hidden_act]
        hidden, wide, spread = config.hidden_size, config.intermediate_size, config.initializer_range
        self.intermediate = dense(hidden, wide, rngs, spread=spread)
        self.output = dense(wide, hidden, rngs, spread=spread)
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(
        self, hidden: Float[Array, "tokens hidden"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "tokens hidden"]:
        output = self.output(self.activation(self.intermediate(hidden)))
        return self.norm(hidden + self.dropout(output, rngs=rngs))
