"""T5's relative positions: a bias of attention for each bucket of distances between two tokens of a text."""

import math

import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from wsr.models.layers.dense import table


class RelativeBias(nnx.Module):
    """A table of one bias a bucket and head; far distances share a bucket, the direction matters."""

    def __init__(self, buckets: int, furthest: int, heads: int, rngs: nnx.Rngs, *, spread: float):
        self.buckets, self.furthest = buckets, furthest
        self.bucket = table(buckets, heads, rngs, spread=spread)

    def __call__(self, positions: Int[Array, "rows length"]) -> Float[Array, "rows heads length length"]:
        length = positions.shape[1]
        by_distance = self.bucket(bucket_of(np.arange(1 - length, length), self.buckets, self.furthest))
        distances = positions[:, None, :] - positions[:, :, None]  # from the query to the key
        return by_distance[distances + length - 1].transpose(0, 3, 1, 2)


def bucket_of(distances: Int[np.ndarray, " distances"], buckets: int, furthest: int) -> Int[np.ndarray, " distances"]:
    """Returns the bucket of each distance, from the token that looks to the one looked at.

    Half of the buckets are for each direction. Half of those hold one distance each, the others grow logarithmically up
    to ``furthest``, beyond which all share the last (Raffel et al. 2020, section 2.1).
    """
    each = buckets // 2
    exact = each // 2
    apart = np.abs(distances)
    # In float32, whose rounding decides where a bucket ends.
    logarithm = np.log(np.maximum(apart, 1).astype(np.float32) / np.float32(exact))
    grown = exact + (logarithm / np.float32(math.log(furthest / exact)) * np.float32(each - exact)).astype(np.int32)
    return np.where(apart < exact, apart, np.minimum(grown, each - 1)) + each * (distances > 0)
