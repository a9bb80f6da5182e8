"""Buckets of distances between tokens: exact for near tokens, logarithmic for far ones.

A bucket depends only on two positions within a text. So NumPy makes a table over the distances that a row can hold when
a program is built, and ``of_distance`` reads it. Pairs of tokens from different texts have values too; masks hide them.
"""

import numpy as np
from jaxtyping import Array, Int, Shaped


def distances(length: int) -> Int[np.ndarray, " distances"]:
    """Returns the distances that a row of ``length`` tokens can hold, ``1 - length`` to ``length - 1``."""
    return np.arange(1 - length, length)


def of_distance(
    table: Shaped[Array, "distances ..."], positions: Int[Array, "rows length"]
) -> Shaped[Array, "rows length length ..."]:
    """Returns the entry of ``table``, ordered as ``distances``, for each query's distance from each key."""
    apart = positions[:, :, None] - positions[:, None, :]
    return table[apart + table.shape[0] // 2]


def t5_buckets(
    apart: Int[np.ndarray, " n"], buckets: int, furthest: int, *, causal: bool = False
) -> Int[np.ndarray, " n"]:
    """Returns the buckets of T5 and MPNet, 0 to ``buckets - 1``, for distances ``apart`` (query minus key position).

    Keys after the query have the upper half of the buckets. In each half, the first half is exact and the rest are
    logarithmic up to ``furthest`` (Raffel et al. 2020, arXiv 1910.10683, section 2.1). With ``causal``, in a decoder,
    there are no keys after the query, and the others have all buckets.
    """
    half = buckets if causal else buckets // 2
    exact = half // 2
    size = np.maximum(apart, 0) if causal else np.abs(apart)
    with np.errstate(divide="ignore"):
        far = np.log(size.astype(np.float32) / exact) / np.float32(np.log(furthest / exact)) * (half - exact)
    far = np.minimum(exact + np.maximum(far, 0).astype(np.int32), half - 1)
    upper = 0 if causal else half * (apart < 0)
    return (np.where(size < exact, size, far) + upper).astype(np.int32)


def deberta_buckets(apart: Int[np.ndarray, " n"], buckets: int, furthest: int) -> Int[np.ndarray, " n"]:
    """Returns the buckets of DeBERTa-v2, about ``-buckets`` to ``buckets``, for distances ``apart`` (query minus key).

    Buckets are exact up to ``buckets / 2`` and then logarithmic up to ``furthest``. They come from version 2 of the
    code of He et al. 2021, arXiv 2006.03654. With ``buckets`` below 1 every distance is its own bucket.
    """
    if buckets < 1:
        return apart.astype(np.int32)
    middle = buckets // 2
    size = np.maximum(np.abs(apart), middle).astype(np.float32)
    steepness = np.log(np.float32((furthest - 1) / middle))
    far = np.ceil(np.log(size / np.float32(middle)) / steepness * np.float32(middle - 1)) + middle
    return np.where(np.abs(apart) <= middle, apart, far * np.sign(apart)).astype(np.int32)
