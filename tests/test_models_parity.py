"""Hidden states against PyTorch, on small random models built by transformers' own classes."""

import jax
import numpy as np
import pytest
from models_support import every_token, in_rows, one_a_row, random_texts

from wsr import models
from wsr.models.encoder_config import TAKEN
from wsr.models.huggingface.weights import from_huggingface

pytestmark = pytest.mark.torch
LENGTHS = [9, 4, 13, 1]
LENGTH = 16
PACKED = [[3, 2], [0, 1], [], []]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


def _oracle(torch, name, **changes):
    """A random PyTorch encoder and the same one here."""
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    kinds = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}
    config_class, model_class = kinds[name]
    sizes = {
        "vocab_size": 40,
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 20,
        "type_vocab_size": 2 if name == "bert" else 1,
        # Wide, so that activations leave the range where exact and tanh GELU agree.
        "initializer_range": 0.3,
    }
    torch.manual_seed(0)
    theirs = model_class(config_class(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # Fresh models have zero biases and unit scales: hide nothing.
            parameter.add_(0.1 * torch.randn_like(parameter))
    config = {key: getattr(theirs.config, key) for key in TAKEN}
    ours = models.build(name, {**config, "pooling": "cls"})
    tensors = {key: value.numpy() for key, value in theirs.state_dict().items()}
    params, _ = from_huggingface(ours, tensors)
    return theirs, ours, params


def _their_states(torch, theirs, texts):
    """Last hidden states of each text, from one padded batch."""
    longest = max(len(ids) for ids, _ in texts)
    pad = theirs.config.pad_token_id
    padded = [ids + [pad] * (longest - len(ids)) for ids, _ in texts]
    types = [types + [0] * (longest - len(types)) for _, types in texts]
    mask = [[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in texts]
    with torch.no_grad():
        states = theirs(
            torch.tensor(padded), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types)
        ).last_hidden_state.numpy()
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


@pytest.mark.parametrize(
    ("name", "activation"),
    [
        ("bert", "gelu"),
        ("bert", "gelu_new"),
        ("bert", "gelu_pytorch_tanh"),
        ("bert", "relu"),
        ("roberta", "gelu"),
        ("roberta", "gelu_new"),
    ],
)
def test_hidden_states_of_padded_batches(torch, name, activation):
    theirs, ours, params = _oracle(torch, name, hidden_act=activation)
    texts = random_texts(1, LENGTHS, 40)
    found = _our_states(ours, params, texts, one_a_row(texts, LENGTH))
    _assert_close(found, _their_states(torch, theirs, texts), 1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_hidden_states_of_packed_rows(torch, name):
    theirs, ours, params = _oracle(torch, name)
    texts = random_texts(2, LENGTHS, 40)
    found = _our_states(ours, params, texts, in_rows(texts, PACKED, LENGTH))
    _assert_close(found, _their_states(torch, theirs, texts), 1e-5)


def test_hidden_states_of_pairs(torch):
    theirs, ours, params = _oracle(torch, "bert")
    texts = random_texts(3, LENGTHS, 40, pairs=True)
    expected = _their_states(torch, theirs, texts)
    _assert_close(_our_states(ours, params, texts, in_rows(texts, PACKED, LENGTH)), expected, 1e-5)
    untyped = [(ids, [0] * len(ids)) for ids, _ in texts]
    assert np.abs(_their_states(torch, theirs, untyped)[0] - expected[0]).max() > 1e-3


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_hidden_states_at_twelve_layers(torch, name):
    theirs, ours, params = _oracle(torch, name, num_hidden_layers=12)
    texts = random_texts(4, LENGTHS, 40)
    found = _our_states(ours, params, texts, one_a_row(texts, LENGTH))
    _assert_close(found, _their_states(torch, theirs, texts), 1e-4)


@pytest.mark.parametrize("epsilon", [1e-12, 1e-2])
def test_the_epsilon_of_the_normalisation_is_followed(torch, epsilon):
    theirs, ours, params = _oracle(torch, "bert", layer_norm_eps=epsilon)
    texts = random_texts(5, LENGTHS, 40)
    found = _our_states(ours, params, texts, one_a_row(texts, LENGTH))
    _assert_close(found, _their_states(torch, theirs, texts), 1e-5)


def test_exact_and_tanh_gelu_are_told_apart(torch):
    theirs, _, _ = _oracle(torch, "bert", hidden_act="gelu")
    _, ours, params = _oracle(torch, "bert", hidden_act="gelu_new")
    texts = random_texts(6, LENGTHS, 40)
    found = _our_states(ours, params, texts, one_a_row(texts, LENGTH))
    expected = _their_states(torch, theirs, texts)
    assert max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) > 1e-4


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_gradients_agree(torch, name):
    theirs, ours, params = _oracle(torch, name)
    texts = random_texts(7, LENGTHS, 40)
    weights = np.random.default_rng(0).normal(size=24).astype(np.float32)
    state = theirs(torch.tensor([texts[0][0]])).last_hidden_state[0, 0]
    (state * torch.tensor(weights)).sum().backward()

    def loss(params):
        return (ours.encode(params, one_a_row(texts, LENGTH))[0] * weights).sum()

    gradient = jax.grad(loss)(params)
    for ours_at, theirs_at in (
        (gradient["embeddings"]["norm"]["scale"], theirs.embeddings.LayerNorm.weight),
        (gradient["embeddings"]["token"]["embedding"], theirs.embeddings.word_embeddings.weight),
        (
            gradient["layers"]["0"]["attention"]["query"]["kernel"].T,
            theirs.encoder.layer[0].attention.self.query.weight,
        ),
        (gradient["layers"]["2"]["feed_forward"]["output"]["bias"], theirs.encoder.layer[2].output.dense.bias),
    ):
        expected = theirs_at.grad.numpy()
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(ours_at, expected, rtol=1e-4, atol=1e-4)
