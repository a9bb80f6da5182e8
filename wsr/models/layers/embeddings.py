"""Token, position and token-type embeddings, summed and normalised."""

from flax import nnx
from jaxtyping import Array, Float, Int

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.dense import layer_norm, table


class Embeddings(nnx.Module):
    """The input of the first layer."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        hidden, spread = config.hidden_size, config.initializer_range
        self.token = table(config.vocab_size, hidden, rngs, spread=spread)
        self.position = table(config.max_position_embeddings, hidden, rngs, spread=spread)
        self.token_type = table(config.type_vocab_size, hidden, rngs, spread=spread)
        self.norm = layer_norm(hidden, rngs, epsilon=config.layer_norm_eps)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        token_ids: Int[Array, "rows length"],
        positions: Int[Array, "rows length"],
        token_types: Int[Array, "rows length"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "rows length hidden"]:
        """``positions`` and ``token_types`` index their tables directly: offsets are up to the caller."""
        summed = self.token(token_ids) + self.token_type(token_types) + self.position(positions)
        return self.dropout(self.norm(summed), rngs=rngs)
