"""Newton's method for logistic regression against float64 gradients, and the number of products it takes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from test_probe import texts

from wsr.engine.newton import inputs_of, minimise

ROUGH = {"tolerance": 0.3, "exact": False}


def slope(inputs, labels, used, weights, inverse_l2):
    """Gradient of the objective in float64; a single row of weights stands for two classes."""
    rows, weights = np.asarray(inputs.rows, np.float64), np.asarray(weights, np.float64)
    both = np.concatenate([np.zeros_like(weights), weights]) if len(weights) == 1 else weights
    chances = softmax(both @ rows.T, axis=0)
    errors = ((chances - (labels == np.arange(len(both))[:, None])) * used)[-len(weights) :]
    penalty = weights.copy()
    penalty[:, -1] = 0
    return inverse_l2 * errors @ rows + penalty


@pytest.mark.parametrize("classes", [2, 6])
def test_problems_on_the_same_texts_each_reach_their_optimum_in_few_products(classes):
    """The products of conjugate gradients are rounded to bfloat16; the optimum must not be."""
    features, labels, _, _ = texts(1, 150, 20, classes)
    inputs = inputs_of(jnp.asarray(features[0]), jnp.asarray(labels), classes=classes)
    used = np.ones((2, 150), np.float32)
    used[1, classes::3] = 0  # the first text of each class stays
    start = jnp.zeros((2, *inputs.weights))
    fitted = jax.vmap(lambda used, start: minimise(inputs, used, start, jnp.float32(1), tolerance=1e-4))
    found = jax.jit(fitted)(jnp.asarray(used), start)
    assert found.done.all()
    for own, weights in zip(used, found.weights, strict=True):
        at_start = slope(inputs, labels, own, np.zeros(inputs.weights), 1.0)
        assert np.abs(slope(inputs, labels, own, weights, 1.0)).max() < 1e-5 * np.abs(at_start).max()
    assert not np.allclose(found.weights[0], found.weights[1], atol=1e-2)
    assert (found.step <= 12).all()
    assert (found.inner_steps <= 150).all()


@pytest.mark.parametrize("classes", [2, 6])
def test_rough_products_keep_their_tolerance_on_every_logit(classes):
    features, labels, _, _ = texts(1, 150, 20, classes)
    inputs = inputs_of(jnp.asarray(features[0]), jnp.asarray(labels), classes=classes)
    fit = partial(minimise, inputs, jnp.ones(150), jnp.zeros(inputs.weights), jnp.float32(1))
    exact, rough = (jax.jit(partial(fit, **options))() for options in ({"tolerance": 1e-4}, ROUGH))
    assert rough.done
    assert np.abs(exact.logits - rough.logits).max() < ROUGH["tolerance"]
    assert rough.inner_steps < exact.inner_steps
    # The logits that are carried along are those of the weights, up to the rounding of the products.
    logits = np.asarray(rough.weights, np.float64) @ np.asarray(inputs.rows, np.float64).T
    np.testing.assert_allclose(rough.logits, logits, atol=0.01 * np.abs(logits).max())
