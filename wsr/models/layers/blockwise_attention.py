"""Attention of long rows, block by block: the scores of a row never exist together.

A softmax over all keys is the sum of those over blocks of keys, each corrected by the highest score so far (the online
softmax of Milakov and Gimelshein 2018, arXiv 1805.02867). The backward pass computes the scores of a block again, from
the logarithm of each query's sum (FlashAttention-2, Dao 2023, arXiv 2307.08691, algorithms 1 and 2). So memory grows
with the length of a row and not with its square. Pairs of blocks that a mask hides in every row (later ones in a
decoder, far ones in local attention) are never visited.

It is plain JAX: every platform compiles it, under ``vmap`` and with heads divided over devices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from wsr.models.layers.activations import soft_capped
from wsr.models.layers.mask import HIDDEN, Mask, allowed

_LARGEST_BLOCK = 512
"""Tokens of a block, at most."""
_MULTIPLE = 16  # of which the tokens of a row and of a block are multiples
NOWHERE = -1e30
"""Score of a hidden key: its exponential is 0."""

Split = Float[Array, "blocks rows key_heads ... size width"]
"""Tokens in blocks; queries have a further axis, the query heads that share a key head."""
Places = tuple[Int[Array, "blocks rows size"], Int[Array, "blocks rows size"], Int[Array, "blocks rows size"]]
"""Texts of the queries, texts of the keys, and positions, in blocks."""
Found = tuple[Array, ...]
"""What the pairs of blocks that were visited add up to."""


def attend_in_blocks(
    query: Float[Array, "tokens query_features"],
    key: Float[Array, "tokens key_features"],
    value: Float[Array, "tokens key_features"],
    mask: Mask,
    *,
    heads: int,
    key_heads: int,
    cap: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
) -> Float[Array, "tokens query_features"]:
    """Returns what ``wsr.models.layers.attention.attend`` returns.

    Args:
      query: the heads of a token side by side, scaled.
      key: likewise, not scaled.
      value: likewise.
      mask: which tokens attend to which.
      heads: number of query heads.
      key_heads: number of key and value heads, each shared by ``heads / key_heads`` query heads.
      cap: scores approach this value and never pass it; None: no cap.
      dropout_rate: share of the attention weights that dropout removes.
      dropout_key: decides which; None: no dropout.
    """
    rows, length = mask.keys.shape
    count = -(-length // _LARGEST_BLOCK)
    size = -(-length // (count * _MULTIPLE)) * _MULTIPLE
    beyond = count * size - length

    def features(flat: Array, *split: int) -> Split:
        padded = jnp.pad(flat.reshape(rows, length, -1), ((0, 0), (0, beyond), (0, 0)))
        return jnp.moveaxis(padded.reshape(rows, count, size, *split, -1), (1, 2), (0, -2))

    def numbers(of_tokens: Int[Array, "rows length"]) -> Int[Array, "blocks rows size"]:
        # Padding attends to padding, or its softmax would be over nothing.
        padded = jnp.pad(of_tokens, ((0, 0), (0, beyond)), constant_values=HIDDEN)
        return padded.reshape(rows, count, size).swapaxes(0, 1)

    rule = _Rule(mask.causal, mask.furthest, cap)
    seed = None
    if dropout_key is not None:
        rule = _Rule(mask.causal, mask.furthest, cap, dropout_rate, jax.random.key_impl(dropout_key))
        seed = jax.random.key_data(dropout_key)
    places = (numbers(mask.queries), numbers(mask.keys), numbers(mask.positions))
    split = features(query, key_heads, heads // key_heads), features(key, key_heads), features(value, key_heads)
    mixed = jnp.moveaxis(_attend(rule, *split, places, seed), (0, -2), (1, 2))
    return mixed.reshape(rows, count * size, -1)[:, :length].reshape(rows * length, -1)


@dataclass(frozen=True)
class _Rule:
    """What the scores of a pair of blocks depend on besides arrays."""

    causal: bool
    furthest: int | None
    cap: float | None
    dropout_rate: float = 0.0
    generator: Any = None
    """Implementation of dropout's keys."""

    def over_pairs(self, visit: Callable[[Found, Array], Found], start: Found, key: Split) -> Found:
        """Returns what visiting the pairs of blocks one after another, from ``start``, finds."""
        pairs = jnp.asarray(self.pairs(len(key), key.shape[-2]))
        return jax.lax.scan(lambda found, pair: (visit(found, pair), None), start, pairs)[0]

    def pairs(self, count: int, size: int) -> Int[np.ndarray, "pairs 2"]:
        """Returns the blocks of queries and of keys that may see each other, all keys of a query in turn."""
        query, key = np.divmod(np.arange(count * count), count)
        seen = np.full(count * count, True)
        if self.causal:
            seen &= key <= query
        if self.furthest is not None:
            # The nearest tokens of two blocks are one token more apart than the blocks between them are long.
            seen &= (np.abs(query - key) - 1) * size < self.furthest
        return np.stack([query, key], axis=1)[seen].astype(np.int32)

    def scores(self, query: Array, key: Array, places: Places, pair: Int[Array, " 2"]) -> tuple[Array, Array]:
        """Returns a block's scores and, for the backward pass, their slope where a cap bends them."""
        at_least_float32 = jnp.promote_types(query.dtype, jnp.float32)
        scores = jnp.einsum("rhgqd,rhkd->rhgqk", query, key, preferred_element_type=at_least_float32)
        scores = soft_capped(scores, self.cap)
        slope = jnp.ones(()) if self.cap is None else 1 - jnp.square(scores / self.cap)
        texts, of_keys, positions = places
        there = (_at(texts, pair[0]), _at(of_keys, pair[1]), _at(positions, pair[0]), _at(positions, pair[1]))
        seen = allowed(*there, causal=self.causal, furthest=self.furthest)[:, None, None]
        return jnp.where(seen, scores, jnp.asarray(NOWHERE, scores.dtype)), slope

    def kept(self, weights: Array, seed: Array | None, pair: Int[Array, " 2"]) -> Array:
        """Returns the factors by which dropout multiplies a block's weights."""
        if seed is None:
            return jnp.ones((), weights.dtype)
        own = jax.random.wrap_key_data(seed, impl=self.generator)
        for number in (0, 1):
            own = jax.random.fold_in(own, pair[number])
        kept = jax.random.bernoulli(own, 1 - self.dropout_rate, weights.shape)
        return kept.astype(weights.dtype) / (1 - self.dropout_rate)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(rule: _Rule, query: Split, key: Split, value: Split, places: Places, seed: Array | None) -> Split:
    return _forwards(rule, query, key, value, places, seed)[0]


def _forwards(
    rule: _Rule, query: Split, key: Split, value: Split, places: Places, seed: Array | None
) -> tuple[Split, tuple]:
    at_least_float32 = jnp.promote_types(query.dtype, jnp.float32)
    total = jnp.zeros(query.shape[:-1], at_least_float32)
    mixed = jnp.zeros(query.shape, at_least_float32)

    def visit(found: Found, pair: Int[Array, " 2"]) -> Found:
        before, total, mixed = (_at(own, pair[0]) for own in found)
        scores, _ = rule.scores(_at(query, pair[0]), _at(key, pair[1]), places, pair)
        highest = jnp.maximum(before, scores.max(axis=-1))
        weights, shrunk = jnp.exp(scores - highest[..., None]), jnp.exp(before - highest)
        total = total * shrunk + weights.sum(axis=-1)
        left = (weights * rule.kept(weights, seed, pair)).astype(value.dtype)
        added = jnp.einsum("rhgqk,rhkd->rhgqd", left, _at(value, pair[1]), preferred_element_type=at_least_float32)
        mixed = mixed * shrunk[..., None] + added
        return tuple(map(partial(_put, at=pair[0]), found, (highest, total, mixed)))

    start: Found = (jnp.full_like(total, NOWHERE), total, mixed)
    highest, total, mixed = rule.over_pairs(visit, start, key)
    mixed = (mixed / total[..., None]).astype(value.dtype)
    return mixed, (query, key, value, places, seed, mixed, highest + jnp.log(total))


def _backwards(rule: _Rule, kept: tuple, slope: Split) -> tuple[Split, Split, Split, None, None]:
    query, key, value, places, seed, mixed, log_total = kept
    at_least_float32 = log_total.dtype
    product = partial(jnp.einsum, preferred_element_type=at_least_float32)
    # What all scores of a query have in common does not change its weights.
    common = (slope.astype(at_least_float32) * mixed.astype(at_least_float32)).sum(axis=-1)

    def visit(found: Found, pair: Int[Array, " 2"]) -> Found:
        of_query, of_key, of_value = found
        own_query, own_slope = _at(query, pair[0]), _at(slope, pair[0])
        own_key, own_value = _at(key, pair[1]), _at(value, pair[1])
        scores, bend = rule.scores(own_query, own_key, places, pair)
        weights = jnp.exp(scores - _at(log_total, pair[0])[..., None])
        factors = rule.kept(weights, seed, pair)
        left = (weights * factors).astype(value.dtype)
        of_weights = product("rhgqd,rhkd->rhgqk", own_slope, own_value) * factors
        of_scores = weights * (of_weights - _at(common, pair[0])[..., None]) * bend
        of_scores = of_scores.astype(query.dtype)
        of_query = _add(of_query, product("rhgqk,rhkd->rhgqd", of_scores, own_key), pair[0])
        of_key = _add(of_key, product("rhgqk,rhgqd->rhkd", of_scores, own_query), pair[1])
        of_value = _add(of_value, product("rhgqk,rhgqd->rhkd", left, own_slope), pair[1])
        return of_query, of_key, of_value

    start = tuple(jnp.zeros(own.shape, at_least_float32) for own in (query, key, value))
    found = rule.over_pairs(visit, start, key)
    of_query, of_key, of_value = (own.astype(like.dtype) for own, like in zip(found, (query, key, value), strict=True))
    return of_query, of_key, of_value, None, None


_attend.defvjp(_forwards, _backwards)


def _at(array: Array, number: Array) -> Array:
    """Returns one block."""
    return jax.lax.dynamic_index_in_dim(array, number, keepdims=False)


def _put(array: Array, block: Array, *, at: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(array, block, at, 0)


def _add(array: Array, block: Array, at: Array) -> Array:
    return _put(array, _at(array, at) + block, at=at)
