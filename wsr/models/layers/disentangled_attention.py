"""Disentangled attention: scores content with content, content with distance and distance with content.

Source: He et al. 2021, arXiv 2006.03654, section 3.1, as version 2 of DeBERTa computes it.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from wsr.models.encoder_config import EncoderConfig
from wsr.models.layers.attention import SelfAttention, attend
from wsr.models.layers.dense import dense
from wsr.models.layers.mask import Mask
from wsr.models.layers.relative_positions import deberta_buckets, distances, of_distance


@dataclass(frozen=True)
class Nearness:
    """The attention mask and the distances between tokens, which all layers share."""

    mask: Mask
    rows: Int[np.ndarray, " distances"]
    """Rows of the table of distances that can occur, in order."""
    index: Int[Array, "rows length length"]
    """Index into ``rows`` of the distance from each key to each query."""


def nearness(
    mask: Mask,
    positions: Int[Array, "rows length"],
    *,
    buckets: int,
    furthest: int,
    span: int,
) -> Nearness:
    """Returns the mask and the distances between tokens.

    Args:
      mask: True where a token may attend.
      positions: of each token in its text.
      buckets: number of distance buckets, see ``deberta_buckets``.
      furthest: distance at which the buckets end.
      span: half the number of rows in the table of distances.
    """
    at = np.clip(span + deberta_buckets(distances(mask.length), buckets, furthest), 0, 2 * span - 1)
    # Short rows hold few of the distances, so only those are multiplied.
    rows, index = np.unique(at, return_inverse=True)
    return Nearness(mask, rows, of_distance(jnp.asarray(index, jnp.int32), positions))


class DisentangledAttention(SelfAttention):
    """Self-attention whose scores also depend on the distances between tokens.

    The weights are ``softmax((Q K^T + Q D_k^T + D_q K^T) / sqrt(width (1 + n)))``, where ``D_k`` and ``D_q`` are the
    projections of the distance between query and key, and ``n`` is the number of distance terms (0 to 2).
    """

    def __init__(self, config: EncoderConfig, rngs: nnx.Rngs, *, scores: tuple[str, ...], shared: bool):
        """``scores`` lists the distance terms ("c2p", "p2c"); if ``shared``, they use the content's projections."""
        super().__init__(config, rngs)
        hidden, spread = config.hidden_size, config.initializer_range
        self.scores, self.shared = scores, shared
        self.width = hidden // self.heads
        if not shared and "c2p" in scores:
            self.distance_key = dense(hidden, hidden, rngs, spread=spread)
        if not shared and "p2c" in scores:
            self.distance_query = dense(hidden, hidden, rngs, spread=spread)
        self.distance_dropout = nnx.Dropout(config.hidden_dropout_prob)

    def disentangled(
        self,
        hidden: Float[Array, "tokens hidden"],
        distance: Float[Array, "distances hidden"],
        near: Nearness,
        rngs: nnx.Rngs | None = None,
    ) -> Float[Array, "tokens hidden"]:
        """Returns each token's attention output, added to ``hidden`` and normalised."""
        query, key = self.query(hidden), self.key(hidden)
        scale = 1.0 / (self.width * (1 + len(set(self.scores)))) ** 0.5
        distance = self.distance_dropout(distance, rngs=rngs)
        bias = None
        if "c2p" in self.scores:
            towards = (self.key if self.shared else self.distance_key)(distance)
            bias = self._at(query, towards, near.index)
        if "p2c" in self.scores:
            towards = (self.query if self.shared else self.distance_query)(distance)
            of_keys = self._at(key, towards, near.index.swapaxes(1, 2)).swapaxes(2, 3)
            bias = of_keys if bias is None else bias + of_keys
        mixed = attend(
            query,
            key,
            self.value(hidden),
            near.mask,
            heads=self.heads,
            scale=scale,
            bias=None if bias is None else bias * scale,
            dropout=self.weights_dropout,
            rngs=rngs,
        )
        return self.beside(hidden, mixed, rngs)

    def _at(
        self,
        content: Float[Array, "tokens hidden"],
        distance: Float[Array, "distances hidden"],
        index: Int[Array, "rows length length"],
    ) -> Float[Array, "rows heads length length"]:
        """Returns the product of each token's content with its distance to each other token, selected by ``index``."""
        rows, length, _ = index.shape
        content = content.reshape(rows, length, self.heads, self.width)
        distance = distance.reshape(-1, self.heads, self.width)
        at_least_float32 = jnp.promote_types(content.dtype, jnp.float32)
        products = jnp.einsum("rlhd,phd->rhlp", content, distance, preferred_element_type=at_least_float32)
        return jnp.take_along_axis(products, index[:, None], axis=3)
