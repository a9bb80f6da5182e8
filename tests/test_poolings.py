"""The poolings of packed texts, each against NumPy on the tokens of one text alone."""

import jax
import numpy as np
import pytest

from wsr.models.layers.pooling import POOLINGS, pool

LENGTHS = (3, 1, 4)  # the first two share a row
ALONE = {
    "mean": lambda tokens: tokens.mean(axis=0),
    "cls": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
    "max": lambda tokens: tokens.max(axis=0),
    "mean_sqrt": lambda tokens: tokens.sum(axis=0) / np.sqrt(len(tokens)),
    "weighted_mean": lambda tokens: np.average(tokens, axis=0, weights=np.arange(1, len(tokens) + 1)),
}


@pytest.fixture
def batch():
    """Hidden states of two rows of five tokens, three texts and an empty slot."""
    hidden = np.random.default_rng(0).standard_normal((2, 5, 6)).astype(np.float32) - 3.0
    text_ids = np.array([[0, 0, 0, 1, -1], [2, 2, 2, 2, -1]], np.int32)
    return hidden, {"text_ids": jax.numpy.asarray(text_ids), "starts": jax.numpy.array([0, 3, 5, 0])}


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_text_has_the_features_that_it_has_alone(batch, pooling):
    hidden, places = batch
    found = np.asarray(pool(pooling, jax.numpy.asarray(hidden), places))
    flat = hidden.reshape(-1, 6)
    for text, (start, length) in enumerate(zip((0, 3, 5), LENGTHS, strict=True)):
        np.testing.assert_allclose(found[text], ALONE[pooling](flat[start : start + length]), atol=1e-6)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_gradients_are_finite_and_padding_has_none(batch, pooling):
    hidden, places = batch
    found = np.asarray(jax.grad(lambda own: pool(pooling, own, places)[:3].sum())(jax.numpy.asarray(hidden)))
    assert np.isfinite(found).all()
    assert (found[:, -1] == 0).all()
    assert (found[0, 3] != 0).any()
