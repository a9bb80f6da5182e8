"""Rows whose scores never exist together, against PyTorch: hidden states and gradients of packed texts."""

import jax
import numpy as np
import pytest
from models_support import every_token, in_rows, random_texts
from oracles import changed_pair

from wsr.models.huggingface.weights import from_huggingface
from wsr.models.layers.attention import WHOLE_SCORES

pytestmark = pytest.mark.torch
LENGTHS, LENGTH = [540, 330, 200, 7], 544
PACKED = [[0], [1, 2, 3]]
assert WHOLE_SCORES < LENGTH

CASES = {
    "bert": {"max_position_embeddings": 560},
    "gpt2": {"n_positions": 560},
    "llama": {"max_position_embeddings": 560},
    "modernbert": {"max_position_embeddings": 560, "local_attention": 130},
    "gemma2": {"max_position_embeddings": 560, "sliding_window": 70, "attn_logit_softcapping": 0.5},
    "gemma3_text": {"max_position_embeddings": 560, "use_bidirectional_attention": True},
}
QUICK = ("bert", "gemma2")
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in CASES]


@pytest.fixture(scope="module", autouse=True)
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture(scope="module")
def texts():
    return random_texts(1, LENGTHS, 40)


def assert_states_agree(torch, pair, texts, tolerance):
    theirs, ours, params = pair
    batch = in_rows(texts, PACKED, LENGTH)
    found = np.asarray(jax.jit(ours.encode)(params, every_token(batch)))
    for text, (ids, _) in enumerate(texts):
        with torch.no_grad():
            expected = theirs(torch.tensor([ids])).last_hidden_state[0].numpy()
        start = int(batch["starts"][text])
        np.testing.assert_allclose(found[start : start + len(ids)], expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_hidden_states_of_packed_long_rows(torch, texts, name):
    assert_states_agree(torch, changed_pair(name, **CASES[name]), texts, 1e-5)


@pytest.mark.long
def test_hidden_states_at_twelve_layers(torch, texts):
    deep = {**CASES["modernbert"], "num_hidden_layers": 12}
    assert_states_agree(torch, changed_pair("modernbert", **deep), texts, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_every_parameter_agree(torch, texts, name):
    """Through the last tokens of two texts of one row."""
    theirs, ours, params = changed_pair(name, **CASES[name])
    weights = np.random.default_rng(0).normal(size=24).astype(np.float32)
    for ids, _ in texts[1:3]:
        state = theirs(torch.tensor([ids])).last_hidden_state[0, -1]
        (state * torch.tensor(weights)).sum().backward()
    gradients = {
        key: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for key, parameter in theirs.named_parameters()
    }
    expected, _ = from_huggingface(ours, gradients)
    batch = in_rows(texts, PACKED, LENGTH)
    last = np.asarray(batch["starts"])[1:3] + LENGTHS[1:3] - np.int32(1)

    def loss(params):
        return (ours.encode(params, every_token(batch))[last] * weights).sum()

    found = jax.jit(jax.grad(loss))(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)
