"""bfloat16 that is bfloat16: what the lowered programs multiply, and gradients against products in NumPy."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from wsr import models
from wsr.models.layers.dense import layer_norm, product
from wsr.models.precision import computing_in, meaning, quickest, rounded


def batch_of(model, length=8):
    if model.reads == "images":
        size, channels = model.config["image_size"], model.config["num_channels"]
        return {"pixel_values": jnp.zeros((2, size, size, channels))}
    tokens = jnp.ones((2, length), jnp.int32)
    return {
        "token_ids": tokens,
        "token_types": 0 * tokens,
        "positions": jnp.tile(jnp.arange(length), (2, 1)),
        "text_ids": jnp.repeat(jnp.arange(2), length).reshape(2, length),
        "starts": jnp.array([0, length]),
    }


def products_of(model, platform, entry="encode"):
    """The operand types of every matrix product in a lowered program, and the kind of their sums."""
    params = rounded(model.init(jax.random.key(0)), "bfloat16", platform)
    return products_in(jax.jit(getattr(model, entry)).lower(params, batch_of(model)))


def products_in(lowered):
    text = lowered.as_text()
    found = re.findall(r"stablehlo\.dot_general.*?: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>", text)
    return [tuple(shape.rpartition("x")[2] for shape in own) for own in found]


NAMES = sorted(models.architectures())


@pytest.mark.parametrize("name", NAMES)
def test_on_an_accelerator_every_product_is_of_bfloat16(name):
    model = models.build(name, models.architectures()[name].example)
    products = products_of(model, "tpu")
    # Pooling the mean of the tokens is a product in float32.
    pooled = [own for own in products if own == ("f32", "f32", "f32")]
    assert len(pooled) <= (model.config.get("pooling") == "mean")
    rest = [own for own in products if own not in pooled]
    assert rest
    # Sums are float32 inside the unit that multiplies; most products end in bfloat16.
    assert {own[:2] for own in rest} == {("bf16", "bf16")}


@pytest.mark.parametrize("name", ["bert", "gemma2"])
def test_attention_in_blocks_and_its_gradient_multiply_in_bfloat16_and_keep_float32(name):
    example = models.architectures()[name].example
    model = models.build(name, {**example, "max_position_embeddings": 528, "pooling": "last"})
    params, batch = jax.eval_shape(model.init, jax.random.key(0)), batch_of(model, 528)

    def loss(params):
        return computing_in(model, "bfloat16", "tpu").encode(params, batch).sum()

    products = products_in(jax.jit(jax.grad(loss)).lower(params))
    assert {own[:2] for own in products} == {("bf16", "bf16")}
    # Two products forwards and five backwards in each of two layers; those with kernels end in bfloat16.
    assert sum(own[2] == "f32" for own in products) == 2 * 7


@pytest.mark.parametrize("name", NAMES)
def test_on_a_cpu_the_products_with_kernels_are_of_bfloat16(name):
    model = models.build(name, models.architectures()[name].example)
    products = products_of(model, "cpu")
    half = [own for own in products if "bf16" in own]
    assert set(half) == {("bf16", "bf16", "f32")}
    # The others are the two of attention in each layer, and the pooling. Features need neither head nor decoder.
    leaves = jax.tree_util.tree_leaves_with_path(model.init(jax.random.key(0)))
    kernels = sum(path[-1].key == "kernel" and path[0].key not in ("head", "decoder") for path, _ in leaves)
    assert len(half) >= kernels


@pytest.mark.parametrize("name", [n for n in NAMES if models.build(n, models.architectures()[n].example).token_losses])
def test_the_language_model_s_logits_too(name):
    model = models.build(name, models.architectures()[name].example)
    assert {own[:2] for own in products_of(model, "tpu", "token_losses")} == {("bf16", "bf16")}


@pytest.mark.parametrize("rows", [(5, 3), (4, 24)], ids=["whole", "in blocks"])
def test_a_product_and_its_gradients_are_those_of_numpy_on_rounded_operands(rows):
    draw = np.random.default_rng(0)
    inputs, kernel, slope = (draw.normal(size=shape).astype(np.float32) for shape in ((*rows, 16), (16, 8), (*rows, 8)))
    half = kernel.astype(ml_dtypes.bfloat16)

    outputs, back = jax.vjp(product, jnp.asarray(inputs), jnp.asarray(half))
    of_inputs, of_kernel = back(jnp.asarray(slope))

    def r(array):
        return np.asarray(array, ml_dtypes.bfloat16).astype(np.float64)

    np.testing.assert_allclose(outputs, r(inputs) @ r(kernel), atol=1e-5)
    np.testing.assert_allclose(of_inputs, r(slope) @ r(kernel).T, atol=1e-5)
    expected = np.einsum("abi,abo->io", r(inputs), r(slope))
    assert (outputs.dtype, of_inputs.dtype, of_kernel.dtype) == (jnp.float32, jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(np.asarray(of_kernel, np.float64), expected, rtol=2**-8, atol=1e-5)


def test_a_layer_norm_of_bfloat16_is_that_of_numpy_on_the_same_numbers():
    draw = np.random.default_rng(0)
    states = draw.normal(5.0, [[0.5], [2.0], [30.0]], (3, 512)).astype(ml_dtypes.bfloat16)
    scale, bias = (draw.normal(1.0, 0.3, 512).astype(ml_dtypes.bfloat16) for _ in range(2))
    norm = layer_norm(512, nnx.Rngs(0), epsilon=1e-5)
    norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    found = norm(jnp.asarray(states))
    exact, scale, bias = (own.astype(np.float64) for own in (states, scale, bias))
    spread = np.sqrt(exact.var(axis=1, keepdims=True) + 1e-5)
    expected = (exact - exact.mean(axis=1, keepdims=True)) / spread * scale + bias
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), expected, rtol=2**-8, atol=2**-12)


def test_float32_is_left_as_it_is(tiny):
    assert computing_in(tiny.model, "float32", "cpu") is tiny.model
    assert rounded(tiny.params, "float32", "tpu") is tiny.params
    assert meaning("float32", "cpu") == ""
    assert len({meaning(precision, where) for precision in ("float32", "bfloat16") for where in ("cpu", "tpu")}) == 4


@pytest.mark.long
def test_gradients_of_a_model_in_bfloat16_are_float32_and_near(tiny):
    batch = batch_of(tiny.model)

    def loss(model):
        return lambda params: jnp.square(model.encode(params, batch)).sum()

    exact = jax.grad(loss(tiny.model))(tiny.params)
    near = jax.grad(loss(computing_in(tiny.model, "bfloat16", "cpu")))(tiny.params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(exact):
        own = near
        for key in path:
            own = own[key.key]
        assert own.dtype == jnp.float32
        assert np.linalg.norm(own - leaf) <= 0.05 * np.linalg.norm(leaf) + 1e-4, path


def test_a_processor_without_instructions_for_bfloat16_is_quickest_in_float32(tmp_path, monkeypatch):
    for flags, expected in (("fpu avx512_bf16 sse", "bfloat16"), ("amx_bf16", "bfloat16"), ("avx512f", "float32")):
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n", encoding="utf-8")
        monkeypatch.setattr("wsr.models.precision._CPU", tmp_path / "cpuinfo")
        assert quickest() == expected
    monkeypatch.setattr("wsr.models.precision._CPU", tmp_path / "absent")
    assert quickest() == "float32"
