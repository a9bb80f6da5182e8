"""Probes: a fresh classifier on the frozen features of many models at once, and its loss on held-out texts.

The loss of a probe is the *generalised loss* of a model on a dataset: how good its features are, whatever head it
was fine-tuned with. The linear probe is a convex problem, so its answer does not depend on an optimiser.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from wsr.errors import WsrError
from wsr.types import AnyArray

Features: TypeAlias = Float[AnyArray, "points texts hidden"]
Labels: TypeAlias = Int[AnyArray, " texts"] | Float[AnyArray, " texts"]
Heads: TypeAlias = Mapping[str, Array]
"""One head a point: ``kernel [points, inputs, classes]``, ``bias [points, classes]``; a RoBERTa head has also
``dense_kernel [points, hidden, hidden]`` and ``dense_bias [points, hidden]``."""

# Plain float32 matrix products run in bfloat16 or TF32 on TPUs and recent GPUs.
_dot = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

MEMORY = 12  # pairs of L-BFGS
MAX_ITERATIONS = 500
TOLERANCE = 1e-4  # on every logit, see done in _fit_logistic
PATIENCE = 8  # iterations near the optimum without halving the decrement: float32 has no more to give
REFRESHES = np.array([0, 1, 4, 16, 64, 256], np.int32)  # iterations that compute the metric anew
MAX_SEARCH = 8  # slopes looked at along one direction
NEVER = float(np.log(np.finfo(np.float32).eps))  # log-probability of what was never seen


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
    """Fits one linear head a point to its optimum; all points in one program.

    Minimises ``inverse_l2 * sum(cross-entropies) + 0.5 * |kernel|^2`` with a free intercept, which is
    scikit-learn's ``LogisticRegression(C=inverse_l2)``: softmax over the classes, and for two classes a single
    weight vector ``w`` through a sigmoid, returned as the columns ``-w/2`` and ``+w/2``. A class without a
    training text, which scikit-learn leaves out, keeps a zero kernel and a log-odds of ``NEVER``.
    One class means regression: ridge, scikit-learn's ``Ridge(alpha=1 / inverse_l2)``.

    Returns ``kernel [points, hidden, classes]`` and ``bias [points, classes]``.
    """
    _check_labels(labels, classes)
    if not inverse_l2 > 0:
        raise WsrError(f"probe: inverse_l2 must be positive, found {inverse_l2}")
    fit = _fit_ridge if classes == 1 else partial(_fit_logistic, classes=classes)
    return fit(jnp.asarray(features, jnp.float32), jnp.asarray(labels), jnp.float32(inverse_l2))


@jax.jit
def fixed_head_loss(features: Features, labels: Labels, heads: Heads) -> Float[Array, "points texts"]:
    """Returns the loss of each text under given heads: cross-entropy in nats, or squared error for one output."""
    logits = _logits(features, heads)
    points, _, classes = logits.shape
    if classes == 1:
        return jnp.square(logits[..., 0] - labels.astype(jnp.float32)[None])
    target = jnp.broadcast_to(labels[None, :, None], (points, labels.shape[0], 1))
    return jax.nn.logsumexp(logits, axis=-1) - jnp.take_along_axis(logits, target, axis=-1)[..., 0]


def _result(features: Features, labels: Labels, heads: Heads) -> ProbeResult:
    features, labels = jnp.asarray(features, jnp.float32), jnp.asarray(labels)
    _check_labels(labels, heads["bias"].shape[-1])
    return ProbeResult(fixed_head_loss(features, labels, heads), _predict(features, heads), dict(heads))


@jax.jit
def _predict(features: Features, heads: Heads) -> Int[Array, "points texts"] | Float[Array, "points texts"]:
    logits = _logits(features, heads)
    return logits[..., 0] if logits.shape[-1] == 1 else jnp.argmax(logits, axis=-1)


def _logits(features: Features, heads: Heads) -> Float[Array, "points texts classes"]:
    inputs: Any = features
    if "dense_kernel" in heads:
        inputs = jnp.tanh(_dot("pth,phi->pti", inputs, heads["dense_kernel"]) + heads["dense_bias"][:, None])
    return _dot("pth,phk->ptk", inputs, heads["kernel"]) + heads["bias"][:, None]


def _check_labels(labels: Labels, classes: int) -> None:
    values = np.asarray(labels)
    if values.size == 0:
        raise WsrError("probe: no texts to train or test on")
    if classes > 1 and not (np.issubdtype(values.dtype, np.integer) and 0 <= values.min() <= values.max() < classes):
        raise WsrError(
            f"probe: labels must be whole numbers from 0 to {classes - 1}, "
            f"found {values.min()} to {values.max()} of type {values.dtype}"
        )


class _State(NamedTuple):
    """L-BFGS of every point; histories are newest first; ``k`` is 1 for two classes."""

    weights: Float[Array, "points inputs k"]
    logits: Float[Array, "points texts k"]
    gradient: Float[Array, "points inputs k"]
    metric: Float[Array, "points inputs inputs"]
    steps: Float[Array, "memory points inputs k"]
    changes: Float[Array, "memory points inputs k"]
    inverses: Float[Array, "memory points"]
    iteration: Int[Array, ""]
    best: Float[Array, " points"]
    best_iteration: Int[Array, " points"]
    active: Bool[Array, " points"]


@partial(jax.jit, static_argnames="classes")
def _fit_logistic(
    features: Float[Array, "points texts hidden"],
    labels: Int[Array, " texts"],
    inverse_l2: Float[Array, ""],
    *,
    classes: int,
) -> dict[str, Array]:
    """L-BFGS in the metric of the Hessian averaged over classes, anew at a few iterations.

    Features of an encoder are badly conditioned: plain L-BFGS takes hundreds of iterations, this takes tens. For
    two classes the metric is the Hessian, and the first steps are Newton's. The logits are linear in the weights,
    so a step is searched for along a line of logits, without touching the features.
    """
    points, texts, hidden = features.shape
    columns = 1 if classes == 2 else classes
    # Subtracting the mean changes the intercept only, and keeps float32 sums small.
    mean = features.mean(axis=1, keepdims=True)
    inputs = jnp.concatenate([features - mean, jnp.ones((points, texts, 1))], axis=-1)
    penalty = jnp.ones((1, hidden + 1, 1)).at[:, hidden].set(0.0)
    reach = jnp.square(inputs).sum(axis=-1).max(axis=-1)
    target = jax.nn.one_hot(labels, classes)[None]
    present = target.any(axis=1, keepdims=True)

    def probabilities(logits: Array) -> tuple[Array, Array, Array]:
        """Returns p, 1 - p and p - y, each to float32's *relative* precision, which ``p - y`` as written is not."""
        full = jnp.concatenate([jnp.zeros_like(logits), logits], axis=-1) if columns == 1 else logits
        chance = jax.nn.softmax(jnp.where(present, full, -jnp.inf), axis=-1)
        others = (chance * (1 - target)).sum(axis=-1, keepdims=True)
        residual = jnp.where(target > 0, -others, chance)
        rest = jnp.where(target > 0, others, 1 - chance)
        return chance[..., -columns:], rest[..., -columns:], residual[..., -columns:]

    def gradient_of(weights: Array, logits: Array) -> Array:
        residual = probabilities(logits)[2]
        # This order of the operands spares a transposed copy of the inputs.
        return inverse_l2 * _dot("ptk,pth->pkh", residual, inputs).swapaxes(-1, -2) + penalty * weights

    def objective_of(weights: Array, logits: Array) -> Array:
        """A lower bound of the objective (1 - p <= -log p): what a decrement is compared with."""
        misses = jnp.abs(probabilities(logits)[2]).sum(axis=(-1, -2)) / 2
        return inverse_l2 * misses + 0.5 * _inner(penalty * weights, weights)

    def metric_of(logits: Array) -> Array:
        chance, rest, _ = probabilities(logits)
        curvature = (chance * rest).mean(axis=-1, keepdims=True)
        hessian = inverse_l2 * _dot("pth,pti->phi", inputs * curvature, inputs)
        diagonal = jnp.diagonal(hessian, axis1=1, axis2=2)
        # A relative 1e-6 keeps the factor positive in float32; it changes the path, not the optimum.
        ridge = penalty[..., 0] + 1e-6 * diagonal + jnp.finfo(jnp.float32).tiny
        identity = jnp.broadcast_to(jnp.eye(hidden + 1), hessian.shape)
        factor = jnp.linalg.cholesky(hessian + identity * ridge[:, None])
        return jax.scipy.linalg.cho_solve((factor, True), identity)

    def search(state: _State, direction: Array, change: Array, downhill: Array, active: Array) -> Array:
        """Returns a step a point where the slope has all but vanished; safeguarded Newton on a convex function."""
        penalty_slope = _inner(penalty * state.weights, direction)
        penalty_curvature = _inner(penalty * direction, direction)

        def look(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            step, low, high, found, looks = carry
            chance, _, residual = probabilities(state.logits + step[:, None, None] * change)
            slope = inverse_l2 * _inner(residual, change) + penalty_slope + step * penalty_curvature
            mean_change = (chance * change).sum(axis=-1, keepdims=True)
            # For one column the other class has logit 0 and no change.
            spread = _inner(chance * change, change) - _inner(mean_change, mean_change)
            found = found | ((slope >= 0.7 * downhill) & (slope <= -0.3 * downhill))
            low, high = jnp.where(slope < 0, step, low), jnp.where(slope > 0, step, high)
            width = jnp.minimum(high, 10 * step) - low
            newton = step - slope / (inverse_l2 * spread + penalty_curvature)
            newton = jnp.clip(newton, low + 0.1 * width, low + 0.9 * width)
            return jnp.where(found, step, newton), low, high, found, looks + 1

        def looking(carry: tuple[Array, ...]) -> Array:
            return ~carry[3].all() & (carry[4] < MAX_SEARCH)

        one = jnp.ones(points)
        start: tuple[Array, ...] = (one, 0 * one, jnp.inf * one, ~active, jnp.int32(0))
        return jnp.where(active, jax.lax.while_loop(looking, look, start)[0], 0.0)

    def iterate(state: _State) -> _State:
        iteration = state.iteration
        metric = jax.lax.cond((iteration == REFRESHES).any(), metric_of, lambda logits: state.metric, state.logits)
        direction = _lbfgs_direction(state, metric)
        downhill = _inner(state.gradient, direction)
        change = _dot("pth,phk->ptk", inputs, direction)
        step = search(state, direction, change, downhill, state.active)[:, None, None]
        weights, logits = state.weights + step * direction, state.logits + step * change
        gradient = gradient_of(weights, logits)
        moved, changed = step * direction, gradient - state.gradient
        agreement = _inner(moved, changed)
        inverse = jnp.where(agreement > 0, 1 / jnp.where(agreement > 0, agreement, 1.0), 0.0)
        halved = -downhill < 0.5 * state.best
        best = jnp.where(halved, -downhill, state.best)
        best_iteration = jnp.where(halved, iteration, state.best_iteration)
        # The Hessian is at least the identity, hence a decrement d leaves each logit within sqrt(d) * |input|.
        stalled = (iteration - best_iteration >= PATIENCE) & (best < 1e-11 * objective_of(weights, logits))
        done = stalled | (best * reach <= TOLERANCE**2)
        return _State(
            weights=weights,
            logits=logits,
            gradient=gradient,
            metric=metric,
            steps=_pushed(state.steps, moved),
            changes=_pushed(state.changes, changed),
            inverses=_pushed(state.inverses, inverse),
            iteration=iteration + 1,
            best=best,
            best_iteration=best_iteration,
            active=state.active & ~done,
        )

    weights, logits = jnp.zeros((points, hidden + 1, columns)), jnp.zeros((points, texts, columns))
    history = jnp.zeros((MEMORY, *weights.shape))
    state = _State(
        weights=weights,
        logits=logits,
        gradient=gradient_of(weights, logits),
        metric=jnp.zeros((points, hidden + 1, hidden + 1)),
        steps=history,
        changes=history,
        inverses=jnp.zeros((MEMORY, points)),
        iteration=jnp.int32(0),
        best=jnp.full(points, jnp.inf),
        best_iteration=jnp.zeros(points, jnp.int32),
        active=jnp.ones(points, bool),
    )
    state = jax.lax.while_loop(lambda state: state.active.any() & (state.iteration < MAX_ITERATIONS), iterate, state)
    kernel, bias = state.weights[:, :hidden], state.weights[:, hidden]
    bias = bias - _dot("ph,phk->pk", mean[:, 0], kernel)
    if columns == 1:
        kernel, bias = (jnp.concatenate([-half, half], axis=-1) for half in (kernel / 2, bias / 2))
    return {"kernel": kernel, "bias": jnp.where(present[0], bias, NEVER)}


def _lbfgs_direction(state: _State, metric: Float[Array, "points inputs inputs"]) -> Float[Array, "points inputs k"]:
    """The two-loop recursion (Nocedal and Wright 2006, algorithm 7.4); a pair with inverse 0 is skipped."""
    history = (state.steps, state.changes, state.inverses)

    def backward(vector: Array, pair: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        step, change, inverse = pair
        weight = inverse * _inner(step, vector)
        return vector - weight[:, None, None] * change, weight

    def forward(vector: Array, pair: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        step, change, inverse, weight = pair
        return vector + (weight - inverse * _inner(change, vector))[:, None, None] * step, None

    vector, weights = jax.lax.scan(backward, -state.gradient, history)
    vector = _dot("phi,pik->phk", metric, vector)
    return jax.lax.scan(forward, vector, (*history, weights), reverse=True)[0]


def _inner(a: Float[Array, "points rows k"], b: Float[Array, "points rows k"]) -> Float[Array, " points"]:
    return (a * b).sum(axis=(-1, -2))


def _pushed(history: Float[Array, "memory ..."], newest: Float[Array, "..."]) -> Float[Array, "memory ..."]:
    return jnp.concatenate([newest[None], history[:-1]])


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
    gram = _dot("pth,pti->phi", inputs, inputs)
    diagonal = jnp.diagonal(gram, axis1=1, axis2=2)
    identity = jnp.broadcast_to(jnp.eye(features.shape[-1]), gram.shape)
    factor = jnp.linalg.cholesky(gram + identity * (1 / inverse_l2 + 1e-6 * diagonal)[:, None])

    def refine(_: Int[Array, ""], weights: Array) -> Array:
        residual = targets - _dot("pth,ph->pt", inputs, weights)
        downhill = _dot("pt,pth->ph", residual, inputs) - weights / inverse_l2
        return weights + jax.scipy.linalg.cho_solve((factor, True), downhill[..., None])[..., 0]

    weights = jax.lax.fori_loop(0, 3, refine, jnp.zeros_like(mean[:, 0]))
    bias = values.mean() - _dot("ph,ph->p", mean[:, 0], weights)
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
