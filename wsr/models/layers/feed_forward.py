"""A feed-forward network without the norm and the residual connection around it."""

from flax import nnx
from jaxtyping import Array, Float

from wsr.models.layers.activations import ACTIVATIONS
from wsr.models.layers.dense import dense


class BareFeedForward(nnx.Module):
    """Computes ``down(activation(up(x)))``, or with a gate ``down(activation(gate(x)) * up(x))`` (Shazeer 2020).

    Args:
      hidden: number of features in and out.
      wide: number of features in between.
      rngs: the random keys of the initial parameters.
      activation: a name in ``ACTIVATIONS``.
      gated: whether there is a gate.
      bias: whether the layers have biases.
      spread: standard deviation of the initial weights.
      last_spread: standard deviation of the last layer's initial weights; None: ``spread``.
      dropout: dropout rate of the wide features.
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
