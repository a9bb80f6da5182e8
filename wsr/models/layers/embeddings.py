"""The input of the first layer: token, position and token-type embeddings."""

from flax import nnx
from jaxtyping import Array, Float, Int

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.dense import layer_norm, table


class Embeddings(nnx.Module):
    """Sums token, position and token-type embeddings and normalises the sum."""

    def __init__(
        self,
        config: EncoderConfig,
        rngs: nnx.Rngs,
        *,
        token_types: int,
        positions: bool = True,
        features: int | None = None,
    ):
        """``token_types`` may be 0; ``features`` is the width of an embedding (None: the hidden size)."""
        features, spread = features or config.hidden_size, config.initializer_range
        self.token = table(config.vocab_size, features, rngs, spread=spread)
        self.position = table(config.max_position_embeddings, features, rngs, spread=spread) if positions else None
        self.token_type = table(token_types, features, rngs, spread=spread) if token_types else None
        self.norm = layer_norm(features, rngs, epsilon=config.layer_norm_eps)
        self.dropout = nnx.Dropout(config.hidden_dropout_prob)

    def __call__(
        self,
        token_ids: Int[Array, "rows length"],
        positions: Int[Array, "rows length"],
        token_types: Int[Array, "rows length"],
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "rows length features"]:
        """Returns the embeddings; ``positions`` and ``token_types`` index their tables directly, without offsets."""
        summed = self.token(token_ids)
        if self.token_type is not None:
            summed = summed + self.token_type(token_types)
        if self.position is not None:
            summed = summed + self.position(positions)
        return self.dropout(self.norm(summed), rngs=rngs)
