"""Distances and convolutions within a text, wherever the text lies in its row."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from models_support import every_token, in_rows, one_a_row, random_params, random_texts

from wsr import models
from wsr.models.huggingface.weights import from_huggingface, to_huggingface
from wsr.models.layers.convolution import Convolution
from wsr.models.layers.relative_positions import deberta_buckets, distances, of_distance, t5_buckets


def test_a_table_is_read_at_query_minus_key_position():
    positions = np.array([[0, 1, 2, 0, 1], [0, 0, 1, 2, 3]])
    found = np.asarray(of_distance(jnp.asarray(distances(5)), jnp.asarray(positions)))
    for row in range(2):
        for query in range(5):
            for key in range(5):
                assert found[row, query, key] == positions[row, query] - positions[row, key]


@pytest.mark.torch
def test_buckets_are_those_of_mpnet_at_every_distance():
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    apart = distances(700)
    expected = MPNetEncoder.relative_position_bucket(torch.tensor(-apart), num_buckets=32, max_distance=128)
    np.testing.assert_array_equal(t5_buckets(apart, 32, 128), expected)


@pytest.mark.torch
@pytest.mark.parametrize(("buckets", "furthest"), [(256, 512), (6, 20), (5, 20), (4, 8), (2, 5), (-1, 20)])
def test_buckets_are_those_of_deberta_at_every_distance(buckets, furthest):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    from transformers.models.deberta_v2.modeling_deberta_v2 import build_relative_position

    content = torch.zeros(1, 600, 1)
    expected = build_relative_position(content, content, bucket_size=buckets, max_position=furthest)[0].numpy()
    # Row 0 is the first query, column 0 the first key.
    both = np.concatenate([expected[0, ::-1], expected[1:, 0]])
    np.testing.assert_array_equal(deberta_buckets(distances(600), buckets, furthest), both)


@pytest.mark.parametrize("rows", [[[0]], [[0, 1]], [[1, 2], [0]]])
def test_a_convolution_ends_with_its_text(rows):
    texts = random_texts(0, [6, 4, 1], 40)
    length = max(sum(len(texts[text][0]) for text in row) for row in rows)  # the rows are full: a roll would wrap
    batch = in_rows(texts[: 1 + max(max(row) for row in rows)], rows, length)
    module = Convolution(3, 5, nnx.Rngs(0), spread=1.0)
    module.bias[...] = jnp.arange(3.0)
    hidden = np.random.default_rng(0).normal(size=(len(rows) * length, 3)).astype(np.float32)
    found = module(jnp.asarray(hidden), batch["text_ids"], batch["positions"])
    kernel = np.asarray(module.kernel[...])
    ids = np.asarray(batch["text_ids"]).ravel()
    for text in range(len(batch["starts"])):
        (places,) = np.nonzero(ids == text)
        padded = np.pad(hidden[places], ((2, 2), (0, 0)))
        expected = [np.einsum("wi,wio->o", padded[at : at + 5], kernel) + np.arange(3) for at in range(len(places))]
        np.testing.assert_allclose(found[places], np.reshape(expected, (-1, 3)), atol=1e-5)


@pytest.mark.parametrize("name", ["mpnet", "deberta_v2"])
def test_features_of_a_text_do_not_depend_on_the_length_of_its_row(name):
    example = models.architectures()[name].example
    model = models.build(name, {**example, "pooling": "cls"})
    params = random_params(model)
    texts = random_texts(0, [7], 40)
    short, long = (
        model.encode(params, every_token(one_a_row(texts, length)))[:7] for length in (7, example["vocab_size"] // 2)
    )
    np.testing.assert_allclose(short, long, atol=1e-5)


def test_a_table_of_positions_is_dropped_where_deberta_does_not_use_it_and_needed_where_it_does():
    example = models.architectures()["deberta_v2"].example
    without, having = (
        models.build("deberta_v2", {**example, "position_biased_input": biased}) for biased in (False, True)
    )
    tensors = {f"deberta.{name}": tensor for name, tensor in to_huggingface(having, random_params(having)).items()}
    assert from_huggingface(having, tensors)[1] == ()
    assert from_huggingface(without, tensors)[1] == ("deberta.embeddings.position_embeddings.weight",)
