"""Hidden states, gradients and sizes against PyTorch, on small random models built by transformers' own classes."""

import jax
import numpy as np
import pytest
from models_support import every_token, in_rows, one_a_row, random_texts
from oracles import CASES, NAMES, ORACLES, counterpart, largest_config, pair

from wsr import models
from wsr.models.huggingface.weights import from_huggingface, is_dropped

pytestmark = pytest.mark.torch
LENGTHS = [9, 4, 13, 1]
LENGTH = 16
PACKED = [[3, 2], [0, 1], [], []]


@pytest.fixture(scope="module", autouse=True)
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


def _their_states(torch, name, theirs, texts):
    """Last hidden states of each text, from one padded batch."""
    longest = max(len(ids) for ids, _ in texts)
    pad = theirs.config.pad_token_id or 0
    padded = [ids + [pad] * (longest - len(ids)) for ids, _ in texts]
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in texts]
    types = [types + [0] * (longest - len(types)) for _, types in texts]
    types = {"token_type_ids": torch.tensor(types)} if ORACLES[name].token_types else {}
    with torch.no_grad():
        states = theirs(torch.tensor(padded), attention_mask=torch.tensor(mask), **types).last_hidden_state.numpy()
    return [states[row, : len(ids)] for row, (ids, _) in enumerate(texts)]


def _our_states(ours, params, texts, batch):
    """Last hidden states of each text, out of any batch that holds the texts."""
    # Not compiled as a whole: the tests share shapes, so each operation is compiled once for all of them.
    states = np.asarray(ours.encode(params, every_token(batch)))
    starts = np.asarray(batch["starts"])
    return [states[starts[text] : starts[text] + len(ids)] for text, (ids, _) in enumerate(texts)]


def _assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def _furthest(states, others):
    return max(np.abs(one - other).max() for one, other in zip(states, others, strict=True))


def test_every_counterpart_has_an_oracle():
    having = {name for name, architecture in models.architectures().items() if architecture.counterpart}
    # The tiny ones are a BERT and a ViT; some are compared in a file of their own.
    own_files = {"vit", "clip_vision", "siglip_vision", "siglip_text", "t5_seq2seq"}
    assert set(NAMES) == having - {"tiny", "tiny_vit", *own_files}


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_hidden_states_of_padded_batches_and_packed_rows(torch, name, variant):
    theirs, ours, params = pair(name, variant)
    texts = random_texts(1, LENGTHS, 40)
    expected = _their_states(torch, name, theirs, texts)
    _assert_close(_our_states(ours, params, texts, one_a_row(texts, LENGTH)), expected, 1e-5)
    _assert_close(_our_states(ours, params, texts, in_rows(texts, PACKED, LENGTH)), expected, 1e-5)
    if variant:  # The same weights, where they are of the same shape, but another function.
        plain, _, _ = pair(name)
        assert _furthest(_their_states(torch, name, plain, texts), expected) > 1e-4


@pytest.mark.parametrize("name", [name for name in NAMES if ORACLES[name].token_types])
def test_hidden_states_of_pairs(torch, name):
    theirs, ours, params = pair(name)
    texts = random_texts(3, LENGTHS, 40, pairs=True)
    expected = _their_states(torch, name, theirs, texts)
    _assert_close(_our_states(ours, params, texts, in_rows(texts, PACKED, LENGTH)), expected, 1e-5)
    untyped = [(ids, [0] * len(ids)) for ids, _ in texts]
    assert _furthest(_their_states(torch, name, theirs, untyped), expected) > 1e-3


@pytest.mark.parametrize("name", [name for name in NAMES if ORACLES[name].deep])
def test_hidden_states_at_twelve_layers(torch, name):
    theirs, ours, params = pair(name, "deep")
    texts = random_texts(4, LENGTHS, 40)
    found = _our_states(ours, params, texts, one_a_row(texts, LENGTH))
    _assert_close(found, _their_states(torch, name, theirs, texts), 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_every_parameter_agree(torch, name):
    theirs, ours, params = pair(name)
    texts = random_texts(7, LENGTHS, 40)
    weights = np.random.default_rng(0).normal(size=24).astype(np.float32)
    theirs.zero_grad()
    state = theirs(torch.tensor([texts[0][0]])).last_hidden_state[0, -1]  # which sees the others in a decoder too
    (state * torch.tensor(weights)).sum().backward()
    gradients = {
        key: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for key, parameter in theirs.named_parameters()
    }
    # A gradient has the form of the parameters, so that the weight map carries it over.
    expected, _ = from_huggingface(ours, gradients)

    def loss(params):
        return (ours.encode(params, every_token(one_a_row(texts, LENGTH)))[LENGTHS[0] - 1] * weights).sum()

    found = jax.grad(loss)(params)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4), found, expected)
    # A bias of keys has none: a softmax does not see what all its scores have in common.
    assert np.mean([np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected)]) > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_public_size_has_as_many_parameters_as_in_transformers(torch, name):
    import transformers

    oracle = ORACLES[name]
    with torch.device("meta"):
        theirs = getattr(transformers, counterpart(name).model_class)(largest_config(name))
    sizes = {key: tensor.numel() for key, tensor in theirs.named_parameters()}
    assert sum(size for key, size in sizes.items() if not is_dropped(counterpart(name), key)) == oracle.parameters
