"""Probes: a fresh classifier on the frozen features of many models at once, and its loss on held-out texts.

The loss of a probe is the *generalised loss* of a model on a dataset: how good its features are, whatever head it
was fine-tuned with. The linear probe is a convex problem, so its answer does not depend on an optimiser.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from wsr.engine.logistic import fit_logistic
from wsr.errors import WsrError
from wsr.geometry.linear_head import einsum, logits, losses
from wsr.types import AnyArray

Features: TypeAlias = Float[AnyArray, "points texts hidden"]
Labels: TypeAlias = Int[AnyArray, " texts"] | Float[AnyArray, " texts"]
Heads: TypeAlias = Mapping[str, Array]
"""One head a point: ``kernel [points, inputs, classes]``, ``bias [points, classes]``; a RoBERTa head has also
``dense_kernel [points, hidden, hidden]`` and ``dense_bias [points, hidden]``."""


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found for each point; losses in nats, or squared errors for regression."""

    losses: Float[Array, "points texts"]
    predictions: Int[Array, "points texts"] | Float[Array, "points texts"]
    heads: Heads


def linear_probe(
    train_features: Float[AnyArray, "points train_texts hidden"],
    train_labels: Int[AnyArray, " train_texts"] | Float[AnyArray, " train_texts"],
    test_features: Float[AnyArray, "points test_texts hidden"],
    test_labels: Int[AnyArray, " test_texts"] | Float[AnyArray, " test_texts"],
    *,
    classes: int,
    inverse_l2: float = 1.0,
) -> ProbeResult:
    """Returns the test losses of one linear probe a point, see ``fit_probe``."""
    heads = fit_probe(train_features, train_labels, classes=classes, inverse_l2=inverse_l2)
    return _result(test_features, test_labels, heads)


def roberta_head(
    train_features: Float[AnyArray, "points train_texts hidden"],
    train_labels: Int[AnyArray, " train_texts"] | Float[AnyArray, " train_texts"],
    test_features: Float[AnyArray, "points test_texts hidden"],
    test_labels: Int[AnyArray, " test_texts"] | Float[AnyArray, " test_texts"],
    *,
    classes: int,
    key: PRNGKeyArray | None = None,
    steps: int = 200,
    learning_rate: float = 1e-3,
) -> ProbeResult:
    """Returns the test losses of RoBERTa's dense, tanh and output head, trained without dropout by full-batch AdamW.

    This is the probe of the paper's released code. All points start from the same head, so that they differ by
    their features only.
    """
    _check_labels(train_labels, classes)
    heads = _fit_roberta_head(
        jnp.asarray(train_features, jnp.float32),
        jnp.asarray(train_labels),
        jax.random.key(0) if key is None else key,
        learning_rate,
        classes=classes,
        steps=steps,
    )
    return _result(test_features, test_labels, heads)


PROBES: Mapping[str, Callable[..., ProbeResult]] = {"linear": linear_probe, "roberta_head": roberta_head}


def fit_probe(features: Features, labels: Labels, *, classes: int, inverse_l2: float = 1.0) -> dict[str, Array]:
    """Fits one linear head a point to its optimum.

    Minimises ``inverse_l2 * sum(cross-entropies) + 0.5 * |kernel|^2`` with a free intercept, which is
    scikit-learn's ``LogisticRegression(C=inverse_l2)``: softmax over the classes, and for two classes a single
    weight vector ``w`` through a sigmoid, returned as the columns ``-w/2`` and ``+w/2``. A class without a
    training text, which scikit-learn leaves out, keeps a zero kernel and a log-odds of ``wsr.engine.logistic.NEVER``.
    One class means regression: ridge, scikit-learn's ``Ridge(alpha=1 / inverse_l2)``.

    Returns ``kernel [points, hidden, classes]`` and ``bias [points, classes]``.
    """
    _check_labels(labels, classes)
    if not inverse_l2 > 0:
        raise WsrError(f"probe: inverse_l2 must be positive, found {inverse_l2}")
    fit = _fit_ridge if classes == 1 else partial(fit_logistic, classes=classes)
    return fit(jnp.asarray(features, jnp.float32), jnp.asarray(labels), jnp.float32(inverse_l2))


@jax.jit
def fixed_head_loss(features: Features, labels: Labels, heads: Heads) -> Float[Array, "points texts"]:
    """Returns the loss of each text under given heads: cross-entropy in nats, or squared error for one output."""
    return losses(head_logits(features, heads), labels)


def head_logits(features: Features, heads: Heads) -> Float[Array, "points texts classes"]:
    """Returns the logits of each text under given heads, without the loss."""
    inputs: Any = features
    if "dense_kernel" in heads:
        inputs = jnp.tanh(einsum("pth,phi->pti", inputs, heads["dense_kernel"]) + heads["dense_bias"][:, None])
    return logits(inputs, heads)


def _result(features: Features, labels: Labels, heads: Heads) -> ProbeResult:
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels)
    _check_labels(labels, heads["bias"].shape[-1])
    return ProbeResult(fixed_head_loss(features, labels, heads), _predict(features, heads), dict(heads))


@jax.jit
def _predict(features: Features, heads: Heads) -> Int[Array, "points texts"] | Float[Array, "points texts"]:
    outputs = head_logits(features, heads)
    return outputs[..., 0] if outputs.shape[-1] == 1 else jnp.argmax(outputs, axis=-1)


def _check_labels(labels: Labels, classes: int) -> None:
    values = np.asarray(labels)
    if values.size == 0:
        raise WsrError("probe: no texts to train or test on")
    if classes > 1 and not (np.issubdtype(values.dtype, np.integer) and 0 <= values.min() <= values.max() < classes):
        raise WsrError(
            f"probe: labels must be whole numbers from 0 to {classes - 1}, "
            f"found {values.min()} to {values.max()} of type {values.dtype}"
        )


@jax.jit
def _fit_ridge(
    features: Float[Array, "points texts hidden"],
    labels: Int[Array, " texts"] | Float[Array, " texts"],
    inverse_l2: Float[Array, ""],
) -> dict[str, Array]:
    """Ridge by the normal equations, refined twice with the residual of the *data* (theirs squares the condition)."""
    values = labels.astype(jnp.float32)
    mean = features.mean(axis=1, keepdims=True)
    inputs, targets = features - mean, (values - values.mean())[None]
    gram = einsum("pth,pti->phi", inputs, inputs)
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)
    identity = jnp.broadcast_to(jnp.eye(features.shape[-1]), gram.shape)
    factor = jnp.linalg.cholesky(gram + identity * (1 / inverse_l2 + 1e-6 * diagonal)[:, None])

    def refine(_: Int[Array, ""], weights: Array) -> Array:
        residual = targets - einsum("pth,ph->pt", inputs, weights)
        downhill = einsum("pt,pth->ph", residual, inputs) - weights / inverse_l2
        return weights + jax.scipy.linalg.cho_solve((factor, True), downhill[..., None])[..., 0]

    weights = jax.lax.fori_loop(0, 3, refine, jnp.zeros_like(mean[:, 0]))
    bias = values.mean() - einsum("ph,ph->p", mean[:, 0], weights)
    return {"kernel": weights[..., None], "bias": bias[:, None]}


@partial(jax.jit, static_argnames=("classes", "steps"))
def _fit_roberta_head(
    features: Float[Array, "points texts hidden"],
    labels: Int[Array, " texts"] | Float[Array, " texts"],
    key: PRNGKeyArray,
    learning_rate: Float[Array, ""] | float,
    *,
    classes: int,
    steps: int,
) -> dict[str, Array]:
    points, _, hidden = features.shape
    dense_key, key = jax.random.split(key)
    one_head = {
        "dense_kernel": 0.02 * jax.random.normal(dense_key, (hidden, hidden)),
        "dense_bias": jnp.zeros(hidden),
        "kernel": 0.02 * jax.random.normal(key, (hidden, classes)),
        "bias": jnp.zeros(classes),
    }
    heads = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[None], (points, *leaf.shape)), one_head)
    optimizer = optax.adamw(learning_rate, weight_decay=0.01)

    def loss(heads: Heads) -> Array:
        # A sum over points: each head's gradient is that of its own mean loss.
        return fixed_head_loss(features, labels, heads).mean(axis=1).sum()

    def train(_: Int[Array, ""], carry: tuple[Any, Any]) -> tuple[Any, Any]:
        heads, moments = carry
        updates, moments = optimizer.update(jax.grad(loss)(heads), moments, heads)
        return optax.apply_updates(heads, updates), moments

    return jax.lax.fori_loop(0, steps, train, (heads, optimizer.init(heads)))[0]
