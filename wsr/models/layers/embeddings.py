"""Token, position and token-type embeddings, summed and normalised."""

from flax import nnx
from jaxtyping import Array, Float, Int

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.dense import layer_norm, normal


class Embeddings(nnx.Module):
    """The input of the first layer."""

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs):
        def table(entries: int) -> nnx.Embed:
            return nnx.Embed(entries, config.hidden_size, embedding_init=normal(config), rngs=rngs)

        self.token = table(config.vocab_size)
        self.position = table(config.max_position_embeddings)
        self.token_type = table(config.type_vocab_size)
        self.norm = layer_norm(config, rngs)
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
