"""Ways to write one encoder, against the one in the project: what each choice costs on this machine.

The variants are plain functions over the same parameters and give the same features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from benchmarks.harness import Result, side_by_side
from benchmarks.matmul_rate import matmul_rate
from wsr.data.load import load_dataset
from wsr.data.packing import evaluation_batches
from wsr.models import load

REPEATS = 5


@dataclass(frozen=True)
class Choices:
    """How the encoder is written; the defaults are the project's."""

    fused_projection: bool = False
    """Query, key and value in one product, their kernels side by side."""
    attention: str = "heads first"
    """"heads first" (two einsums on [rows, heads, length, ...], weights divided by their sum after the second),
    "softmax first" (before it), "heads last" or "jax.nn" (dot_product_attention)."""
    flat: bool = True
    """Whether layers run on [tokens, hidden] rather than [rows, length, hidden]."""
    gelu: str = "erf"
    """"erf", "erfc" (jax.nn.gelu), or "tanh" and "none", which are other functions: what the exact one costs."""


VARIANTS = {
    "the project's, written out": Choices(),
    "fused query, key, value": Choices(fused_projection=True),
    "softmax before the second product": Choices(attention="softmax first"),
    "heads last": Choices(attention="heads last"),
    "jax.nn.dot_product_attention": Choices(attention="jax.nn"),
    "[rows, length, hidden]": Choices(flat=False),
    "GELU by erfc (jax.nn.gelu)": Choices(gelu="erfc"),
    "tanh GELU (another function)": Choices(gelu="tanh"),
    "no GELU (another function)": Choices(gelu="none"),
}


def run() -> list[Result]:
    """Times one packed batch of 16 rows of 64 tokens, forward, and forward with the gradient."""
    checkpoint = load("minilm")
    params = jax.device_put(checkpoint.params)
    dataset = load_dataset("vader_movie", checkpoint.processor, max_length=64, sizes={"test": 300})
    batches = evaluation_batches(dataset.splits["test"], rows=16, row_length=64)
    batch = {name: jnp.asarray(array[0]) for name, array in batches.inputs.items()}
    config = checkpoint.model.config
    encoders = {"wsr": checkpoint.model.encode} | {
        name: partial(encode, config=config, choices=choices) for name, choices in VARIANTS.items()
    }
    expected = np.asarray(checkpoint.model.encode(params, batch))
    filled = np.asarray(batches.index[0] >= 0)
    for name, encoder in encoders.items():
        if "another function" not in name:
            found = np.asarray(encoder(params, batch))[: len(filled)][filled]
            np.testing.assert_allclose(found, expected[: len(filled)][filled], atol=1e-4, err_msg=name)

    def forward(encoder: Callable) -> Callable[[], object]:
        program = jax.jit(encoder)
        return lambda: program(params, batch).block_until_ready()

    def gradient(encoder: Callable) -> Callable[[], object]:
        program = jax.jit(jax.grad(lambda params, batch: jnp.square(encoder(params, batch)).sum()))
        return lambda: jax.block_until_ready(program(params, batch))

    tokens = int(np.prod(batches.inputs["token_ids"].shape[1:]))
    hidden, wide, layers = checkpoint.model.hidden, config["intermediate_size"], config["num_hidden_layers"]
    products = 2 * tokens * layers * (4 * hidden * hidden + 2 * hidden * wide)
    ceiling = {"the matrix products alone at the measured rate, ms": 1e3 * products / matmul_rate()}
    work = f"MiniLM, one batch of {tokens} packed tokens"
    return [
        Result(
            "encoder, forward",
            work,
            "wsr",
            side_by_side({name: forward(each) for name, each in encoders.items()}, repeats=REPEATS),
            unit="batch",
            figures=ceiling,
        ),
        Result(
            "encoder, gradient",
            work,
            "wsr",
            side_by_side({name: gradient(each) for name, each in encoders.items()}, repeats=REPEATS),
            unit="batch",
            figures={name: 3 * value for name, value in ceiling.items()},
        ),
    ]


def encode(
    params: Any, batch: Mapping[str, Array], *, config: Mapping[str, Any], choices: Choices
) -> Float[Array, "batch hidden"]:
    """A BERT encoder with mean pooling, written as ``choices`` say."""
    text_ids = batch["text_ids"]
    rows, length = text_ids.shape
    tables = params["embeddings"]
    hidden = (
        tables["token"]["embedding"][batch["token_ids"]]
        + tables["token_type"]["embedding"][batch["token_types"]]
        + tables["position"]["embedding"][batch["positions"]]
    )
    normalise = partial(_normalised, epsilon=config["layer_norm_eps"])
    hidden = normalise(hidden, tables["norm"])
    width = hidden.shape[-1]
    if choices.flat:
        hidden = hidden.reshape(-1, width)
    mask = text_ids[:, None, :, None] == text_ids[:, None, None, :]
    for number in range(config["num_hidden_layers"]):
        layer = params["layers"][str(number)]
        attention, feed_forward = layer["attention"], layer["feed_forward"]
        if choices.fused_projection:
            parts = [attention[name] for name in ("query", "key", "value")]
            kernel = jnp.concatenate([part["kernel"] for part in parts], axis=1)
            bias = jnp.concatenate([part["bias"] for part in parts])
            query, key, value = jnp.split(hidden @ kernel + bias, 3, axis=-1)
        else:
            query, key, value = (_dense(hidden, attention[name]) for name in ("query", "key", "value"))
        query, key, value = (
            part.reshape(rows, length, config["num_attention_heads"], -1) for part in (query, key, value)
        )
        mixed = _attend(query, key, value, mask, choices.attention).reshape(hidden.shape)
        hidden = normalise(hidden + _dense(mixed, attention["output"]), attention["norm"])
        inner = _dense(hidden, feed_forward["intermediate"])
        inner = _GELU[choices.gelu](inner)
        hidden = normalise(hidden + _dense(inner, feed_forward["output"]), feed_forward["norm"])
    texts = jnp.arange(batch["starts"].shape[0])
    members = (texts[:, None] == text_ids.reshape(1, -1)).astype(hidden.dtype)
    return members / jnp.maximum(members.sum(axis=1, keepdims=True), 1.0) @ hidden.reshape(-1, width)


def _attend(query: Array, key: Array, value: Array, mask: Array, how: str) -> Float[Array, "rows length heads each"]:
    if how == "jax.nn":
        return jax.nn.dot_product_attention(query, key, value, mask=mask)
    scale = query.shape[-1] ** -0.5
    if how == "heads last":
        scores = jnp.einsum("rqhd,rkhd->rhqk", query, key) * scale
        chances = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1)
        return jnp.einsum("rhqk,rkhd->rqhd", chances, value)
    query, key, value = (part.transpose(0, 2, 1, 3) for part in (query, key, value))
    if how == "softmax first":
        scores = jnp.einsum("rhqd,rhkd->rhqk", query, key) * scale
        chances = jax.nn.softmax(jnp.where(mask, scores, jnp.finfo(scores.dtype).min), axis=-1)
        return jnp.einsum("rhqk,rhkd->rhqd", chances, value).transpose(0, 2, 1, 3)
    scores = jnp.einsum("rhqd,rhkd->rhqk", query * scale, key) + jnp.where(mask, 0.0, -1e30)
    chances = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    mixed = jnp.einsum("rhqk,rhkd->rhqd", chances, value) / chances.sum(axis=-1, keepdims=True)
    return mixed.transpose(0, 2, 1, 3)


_GELU: Mapping[str, Callable[[Array], Array]] = {
    "erf": lambda inputs: 0.5 * inputs * (1 + jax.lax.erf(inputs * 0.5**0.5)),
    "erfc": partial(jax.nn.gelu, approximate=False),
    "tanh": partial(jax.nn.gelu, approximate=True),
    "none": lambda inputs: inputs,
}


def _dense(inputs: Array, part: Mapping[str, Array]) -> Array:
    return inputs @ part["kernel"] + part["bias"]


def _normalised(values: Array, part: Mapping[str, Array], *, epsilon: float) -> Array:
    mean = values.mean(axis=-1, keepdims=True)
    variance = jnp.square(values).mean(axis=-1, keepdims=True) - jnp.square(mean)
    scale = jax.lax.rsqrt(jnp.maximum(variance, 0.0) + epsilon)
    return (values - mean) * scale * part["scale"] + part["bias"]
