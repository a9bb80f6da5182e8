"""Probes: fresh classifiers on the frozen features of many models at once, and their losses on held-out texts.

The loss of a probe is the *generalised loss* of a model on a dataset. It measures the model's features independently of
the head the model was fine-tuned with. The linear probe is a convex problem, so its result does not depend on the
optimiser. Cross-validation chooses its penalty for each model (``wsr.engine.cross_validation``), unless one is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from wsr.engine.cross_validation import fit_logistic_by_folds, folds_of, ridge_by_folds, scale_of
from wsr.engine.logistic import Fit, fit_logistic
from wsr.errors import WsrError
from wsr.geometry.linear_head import einsum, logits, losses
from wsr.types import AnyArray

Features: TypeAlias = Float[AnyArray, "points texts hidden"]
Labels: TypeAlias = Int[AnyArray, " texts"] | Float[AnyArray, " texts"]
Heads: TypeAlias = Mapping[str, Array]
"""One head per point: ``kernel [points, inputs, classes]`` and ``bias [points, classes]``; a RoBERTa head also has
``dense_kernel [points, hidden, hidden]`` and ``dense_bias [points, hidden]``."""


@dataclass(frozen=True)
class ProbeResult:
    """Test losses, predictions and fitted heads of a probe for each point."""

    losses: Float[Array, "points texts"]
    """Cross-entropy of each test text in nats, or squared error for regression."""
    predictions: Int[Array, "points texts"] | Float[Array, "points texts"]
    """Predicted class of each test text, or predicted value for regression."""
    heads: Heads
    """The fitted heads."""
    inverse_l2: Float[Array, " points"]
    """Inverse of the L2 penalty of each head; NaN for a head without one."""
    converged: Bool[Array, " points"]
    """Whether the solver reached the optimum; always for a head that is trained for a fixed number of steps."""


def linear_probe(
    train_features: Float[AnyArray, "points train_texts hidden"],
    train_labels: Int[AnyArray, " train_texts"] | Float[AnyArray, " train_texts"],
    test_features: Float[AnyArray, "points test_texts hidden"],
    test_labels: Int[AnyArray, " test_texts"] | Float[AnyArray, " test_texts"],
    *,
    classes: int,
    inverse_l2: float | None = None,
) -> ProbeResult:
    """Fits one linear probe per point and evaluates it on the test texts, see ``fit_probe``.

    Args:
      train_features: features of the training texts under each point.
      train_labels: class of each training text, or value for regression.
      test_features: features of the test texts under each point.
      test_labels: class of each test text, or value for regression.
      classes: number of classes; 1 for regression.
      inverse_l2: inverse of the L2 penalty, ``C`` in scikit-learn, on the features as they are; None: chosen for each
        point by cross-validation, on standardised features.

    Returns:
      Test losses, predictions and heads.

    Raises:
      WsrError: if there are no texts, a label is out of range, or ``inverse_l2`` is not positive.

    Example:
      >>> import numpy as np
      >>> from wsr.engine.probe import linear_probe
      >>> features = np.array([[[-2.0], [-1.0], [1.0], [2.0]]], np.float32)  # one point, four texts, one feature
      >>> labels = np.array([0, 0, 1, 1])
      >>> linear_probe(features, labels, features, labels, classes=2).predictions.tolist()
      [[0, 0, 1, 1]]
    """
    return _result(
        test_features, test_labels, fit_probe(train_features, train_labels, classes=classes, inverse_l2=inverse_l2)
    )


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
    """Trains RoBERTa's classification head (dense, tanh, output) for each point and evaluates it on the test texts.

    The head is trained by full-batch AdamW without dropout. This is the probe of the paper's released code. All points
    start from the same initial head, so they differ only in their features.

    Args:
      train_features: features of the training texts under each point.
      train_labels: class of each training text, or value for regression.
      test_features: features of the test texts under each point.
      test_labels: class of each test text, or value for regression.
      classes: number of classes; 1 for regression.
      key: draws the initial head; None: ``jax.random.key(0)``.
      steps: number of gradient steps.
      learning_rate: learning rate of AdamW.

    Returns:
      Test losses, predictions and heads.

    Raises:
      WsrError: if there are no texts, or a label is out of range.
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
    points = len(heads["bias"])
    return _result(test_features, test_labels, Fit(heads, jnp.full(points, jnp.nan), jnp.ones(points, bool)))


PROBES: Mapping[str, Callable[..., ProbeResult]] = {"linear": linear_probe, "roberta_head": roberta_head}
"""The probes by name, as ``Protocol.probe`` selects them."""


def fit_probe(features: Features, labels: Labels, *, classes: int, inverse_l2: float | None = None) -> Fit:
    """Fits one linear head per point to its optimum.

    Minimises ``inverse_l2 * sum(cross-entropies) + 0.5 * |kernel|^2`` with an unpenalised intercept, as scikit-learn's
    ``LogisticRegression(C=inverse_l2)`` does: a softmax over the classes, and for two classes a sigmoid of a single
    weight vector ``w``, returned as the columns ``-w/2`` and ``+w/2``. scikit-learn omits a class without a training
    text; here it gets a zero kernel and a log-odds of ``wsr.engine.newton.NEVER``. One class means ridge regression,
    scikit-learn's ``Ridge(alpha=1 / inverse_l2)``.

    Without ``inverse_l2``, the features are standardised and each point's ``inverse_l2`` is chosen by cross-validation,
    as by scikit-learn's ``LogisticRegressionCV`` behind a ``StandardScaler``, see ``wsr.engine.cross_validation``. The
    heads returned are those of the features as they were given.

    Args:
      features: features of the training texts under each point.
      labels: class of each text, or value for regression.
      classes: number of classes; 1 for regression.
      inverse_l2: inverse of the L2 penalty; None: chosen for each point.

    Returns:
      The heads as ``kernel [points, hidden, classes]`` and ``bias [points, classes]``, their penalties, and whether
      each is an optimum.

    Raises:
      WsrError: if there are no texts, a label is out of range, or ``inverse_l2`` is not positive.
    """
    _check_labels(labels, classes)
    if inverse_l2 is not None and not inverse_l2 > 0:
        raise WsrError(f"probe: inverse_l2 must be positive, found {inverse_l2}")
    features, targets = jnp.asarray(features, jnp.float32), jnp.asarray(labels)
    if inverse_l2 is None:
        folds = folds_of(np.asarray(labels), classes=classes)
        if classes > 1:
            return fit_logistic_by_folds(features, targets, jnp.asarray(folds), classes=classes)
        scales = scale_of(features)
        chosen = ridge_by_folds(np.asarray(features * scales[:, None]), np.asarray(labels), folds)
        return _fit_ridge(features, targets, jnp.asarray(chosen, jnp.float32), scales)
    if classes > 1:
        return fit_logistic(features, targets, jnp.float32(inverse_l2), classes=classes)
    points, _, hidden = features.shape
    return _fit_ridge(features, targets, jnp.full(points, inverse_l2, jnp.float32), jnp.ones((points, hidden)))


@jax.jit
def fixed_head_loss(features: Features, labels: Labels, heads: Heads) -> Float[Array, "points texts"]:
    """Returns the loss of each text under given heads: cross-entropy in nats, or squared error for one output.

    Args:
      features: features of the texts under each point.
      labels: class of each text, or value for regression.
      heads: one head per point.
    """
    return losses(logits(features, heads), labels)


def _result(features: Features, labels: Labels, fit: Fit) -> ProbeResult:
    features, labels, heads = jnp.asarray(features, jnp.float32), jnp.asarray(labels), fit.heads
    _check_labels(labels, heads["bias"].shape[-1])
    return ProbeResult(
        fixed_head_loss(features, labels, heads), _predict(features, heads), heads, fit.inverse_l2, fit.converged
    )


@jax.jit
def _predict(features: Features, heads: Heads) -> Int[Array, "points texts"] | Float[Array, "points texts"]:
    outputs = logits(features, heads)
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
    inverse_l2: Float[Array, " points"],
    scales: Float[Array, "points hidden"],
) -> Fit:
    """Ridge regression by the normal equations, refined twice with the residual of the *data* (the normal equations
    square the condition number)."""
    values = labels.astype(jnp.float32)
    mean = features.mean(axis=1, keepdims=True)
    inputs, targets = (features - mean) * scales[:, None], (values - values.mean())[None]
    gram = einsum("pth,pti->phi", inputs, inputs)
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)
    identity = jnp.broadcast_to(jnp.eye(features.shape[-1]), gram.shape)
    penalty = 1 / inverse_l2[:, None]
    factor = jnp.linalg.cholesky(gram + identity * (penalty + 1e-6 * diagonal)[:, None])

    def refine(_: Int[Array, ""], weights: Array) -> Array:
        residual = targets - einsum("pth,ph->pt", inputs, weights)
        downhill = einsum("pt,pth->ph", residual, inputs) - weights * penalty
        return weights + jax.scipy.linalg.cho_solve((factor, True), downhill[..., None])[..., 0]

    weights = jax.lax.fori_loop(0, 3, refine, jnp.zeros_like(mean[:, 0])) * scales
    bias = values.mean() - einsum("ph,ph->p", mean[:, 0], weights)
    heads = {"kernel": weights[..., None], "bias": bias[:, None]}
    return Fit(heads, inverse_l2, jnp.isfinite(weights).all(axis=1))


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
