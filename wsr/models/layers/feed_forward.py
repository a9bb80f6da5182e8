"""A feed-forward network as it is between a norm and a residual connection, which are the caller's."""

from flax import nnx
from jaxtyping import Array, Float

from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.dense import dense


class BareFeedForward(nnx.Module):
    """``down(activation(up(x)))``, or with a gate ``down(activation(gate(x)) * up(x))`` (Shazeer 2020).

    Args:
      hidden: features in and out.
      wide: features between.
      rngs: where the parameters are drawn from.
      activation: a name in ``ACTIVATIONS``.
      gated: whether there is a gate.
      bias: whether the layers have biases.
      spread: standard deviation of the first layers' initial weights.
      last_spread: of the last layer's; None: the same.
      dropout: rate of the wide features.
    """

    def __init__(
        self,
        hidden: int,
        wide: int,
        rngs: nnx.Rngs,
        *,
        activation: str,
        gated: bool,
        bias: bool,
        spread: float,
        last_spread: float | None = None,
        dropout: float = 0.0,
    ):
        self.activation, self.gated = ACTIVATIONS[activation], gated
        if gated:
            self.gate = dense(hidden, wide, rngs, spread=spread, bias=bias)
        self.up = dense(hidden, wide, rngs, spread=spread, bias=bias)
        self.down = dense(wide, hidden, rngs, spread=last_spread or spread, bias=bias)
        self.dropout = nnx.Dropout(dropout)

    def __call__(
        self, hidden: Float[Array, "tokens hidden"], rngs: nnx.Rngs | None = None
    ) -> Float[Array, "tokens hidden"]:
        up = self.up(hidden)
        wide = self.activation(self.gate(hidden)) * up if self.gated else self.activation(up)
        return self.down(self.dropout(wide, rngs=rngs))
