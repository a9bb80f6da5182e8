"""Attention with the scores of whole rows and in blocks, by the length of rows: from which length blocks pay here."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from benchmarks.harness import Result, side_by_side
from wsr.models.layers import attention
from wsr.models.layers.mask import within_texts

REPEATS = 5
TOKENS, HEADS, FEATURES = 2048, 12, 384  # the sizes of MiniLM
LENGTHS = (512, 1024, 2048)
KINDS: dict[str, dict[str, Any]] = {"whole texts": {}, "causal": {"causal": True}, "64 tokens around": {"furthest": 64}}


def run() -> list[Result]:
    """Times one layer's attention over rows that each hold one text, forward, and forward with the gradient."""
    draw = np.random.default_rng(0)
    parts = [jnp.asarray(draw.normal(size=(TOKENS, FEATURES)).astype(np.float32)) for _ in range(3)]
    return [
        _result(parts, length, kind, gradient=gradient)
        for gradient in (False, True)
        for kind in KINDS
        for length in LENGTHS
    ]


def _result(parts: list[Array], length: int, kind: str, *, gradient: bool) -> Result:
    rows = TOKENS // length
    ids = jnp.broadcast_to(jnp.arange(rows, dtype=jnp.int32)[:, None], (rows, length))
    positions = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), (rows, length))

    def attended(ids: Array, positions: Array, query: Array, key: Array, value: Array) -> Array:
        mask = within_texts(ids, positions, **KINDS[kind])
        return attention.attend(query, key, value, mask, heads=HEADS)

    def loss(ids: Array, positions: Array, query: Array, key: Array, value: Array) -> Array:
        return jnp.square(attended(ids, positions, query, key, value)).sum()

    def contender(longest_whole: int) -> Callable[[], object]:
        function = jax.grad(loss, (2, 3, 4)) if gradient else attended
        with mock.patch.object(attention, "WHOLE_SCORES", longest_whole):
            program = jax.jit(function).lower(ids, positions, *parts).compile()
        return lambda: jax.block_until_ready(program(ids, positions, *parts))

    contenders = {"in blocks": contender(0), "whole": contender(length)}
    return Result(
        f"attention, {'gradient' if gradient else 'forward'}, rows of {length} tokens, {kind}",
        f"one layer of {HEADS} heads, {FEATURES} features, {TOKENS} tokens",
        "in blocks",
        side_by_side(contenders, repeats=REPEATS),
        unit="layer",
    )
