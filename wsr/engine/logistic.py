"""Multinomial logistic regression fitted to its optimum for many points at once: the solver behind the linear probe."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from wsr.geometry.linear_head import HIGHEST
from wsr.runtime.cores import usable_cores

MEMORY = 12  # pairs of L-BFGS
REFRESH = 8  # the metric is recomputed when the number of iterations has grown by this factor
ROUNDS = 3  # metrics: REFRESH**ROUNDS iterations at most
TOLERANCE = 1e-4  # on every logit, see done in _fit
PATIENCE = 8  # iterations near the optimum without halving the decrement: the limit of float32
MAX_SEARCH = 8  # slopes evaluated along one direction
NEVER = float(np.log(np.finfo(np.float32).eps))  # log-probability of a class without a training text

# Plain float32 matrix products run in bfloat16 or TF32 on TPUs and recent GPUs.
_dot = partial(jnp.dot, precision=HIGHEST)


def fit_logistic(
    features: Float[Array, "points texts hidden"],
    labels: Int[Array, " texts"],
    inverse_l2: Float[Array, ""],
    *,
    classes: int,
) -> dict[str, Array]:
    """Fits each point's head to its optimum, see ``wsr.engine.probe.fit_probe``.

    On a CPU each point is fitted by one core until it has converged. On accelerators all points are fitted as one
    batch.

    Args:
      features: features of the training texts under each point.
      labels: class of each text.
      inverse_l2: inverse of the L2 penalty, ``C`` in scikit-learn.
      classes: number of classes, at least 2.

    Returns:
      The heads as ``kernel [points, hidden, classes]`` and ``bias [points, classes]``.
    """
    from threadpoolctl import threadpool_limits

    if next(iter(features.devices())).platform != "cpu":
        return _fit_together(features, labels, inverse_l2, classes=classes)

    def fit(point: int) -> dict[str, Array]:
        return jax.block_until_ready(_fit_alone(features[point], labels, inverse_l2, classes=classes))

    # LAPACK's threads wait for each other actively and would take the cores from other points.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(usable_cores()) as pool:
        # The first point compiles the program that the others share.
        heads = [fit(0), *pool.map(fit, range(1, len(features)))]
    return {name: jnp.stack([head[name] for head in heads]) for name in heads[0]}


class _State(NamedTuple):
    """L-BFGS; histories are newest first; ``k`` is 1 for two classes."""

    weights: Float[Array, "k inputs"]
    logits: Float[Array, "k texts"]
    gradient: Float[Array, "k inputs"]
    steps: Float[Array, "memory k inputs"]
    changes: Float[Array, "memory k inputs"]
    iteration: Int[Array, ""]
    best: Float[Array, ""]
    best_iteration: Int[Array, ""]
    done: Bool[Array, ""]


def _fit(
    features: Float[Array, "texts hidden"], labels: Int[Array, " texts"], inverse_l2: Float[Array, ""], *, classes: int
) -> dict[str, Array]:
    """L-BFGS in the metric of the Hessian averaged over classes; the metric is recomputed at a few iterations.

    Features of an encoder are badly conditioned: plain L-BFGS takes hundreds of iterations, this takes tens. For two
    classes the metric is the Hessian. The logits are linear in the weights, so the line search works on logits and does
    not touch the features. Rows are classes, so softmax runs along whole vectors of texts.
    """
    texts, hidden = features.shape
    columns = 1 if classes == 2 else classes
    # Subtracting the mean changes the intercept only, and keeps float32 sums small.
    mean = features.mean(axis=0)
    inputs = jnp.concatenate([features - mean, jnp.ones((texts, 1))], axis=1)
    penalty = jnp.ones(hidden + 1).at[hidden].set(0.0)
    # A copy that XLA may not fold into the product: on a CPU both products with the inputs then run at full speed.
    transposed = jax.lax.optimization_barrier(inputs.T)
    reach = jnp.square(inputs).sum(axis=1).max()
    target = jax.nn.one_hot(labels, classes, axis=0)
    present = target.any(axis=1, keepdims=True)

    def probabilities(logits: Array) -> tuple[Array, Array, Array]:
        """Returns p, 1 - p and p - y, each to float32's *relative* precision, which ``p - y`` as written is not."""
        full = jnp.concatenate([jnp.zeros_like(logits), logits]) if columns == 1 else logits
        chance = jax.nn.softmax(jnp.where(present, full, -jnp.inf), axis=0)
        others = (chance * (1 - target)).sum(axis=0)
        residual = jnp.where(target > 0, -others, chance)
        rest = jnp.where(target > 0, others, 1 - chance)
        return chance[-columns:], rest[-columns:], residual[-columns:]

    def gradient_of(weights: Array, residual: Array) -> Array:
        return inverse_l2 * _dot(residual, inputs) + penalty * weights

    def objective_of(weights: Array, residual: Array) -> Array:
        """A lower bound of the objective (1 - p <= -log p): what a decrement is compared with."""
        return inverse_l2 * jnp.abs(residual).sum() / 2 + 0.5 * _inner(penalty * weights, weights)

    def metric_of(logits: Array) -> Array:
        """Returns the inverse of the metric's Cholesky factor."""
        chance, rest, _ = probabilities(logits)
        curvature = (chance * rest).mean(axis=0)
        hessian = inverse_l2 * _dot((inputs * curvature[:, None]).T, inputs)
        # A relative 1e-6 keeps the factor positive in float32; it changes the path, not the optimum.
        ridge = penalty + 1e-6 * jnp.diagonal(hessian) + jnp.finfo(jnp.float32).tiny
        factor = jnp.linalg.cholesky(hessian + jnp.diag(ridge))
        return jax.scipy.linalg.solve_triangular(factor, jnp.eye(hidden + 1), lower=True)

    def search(state: _State, direction: Array, change: Array, downhill: Array) -> tuple[Array, Array]:
        """Returns a step where the slope has all but vanished, and the residual there: safeguarded Newton, convex."""
        penalty_slope = _inner(penalty * state.weights, direction)
        penalty_curvature = _inner(penalty * direction, direction)

        def look(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            _, step, low, high, _, _, looks = carry
            chance, _, residual = probabilities(state.logits + step * change)
            slope = inverse_l2 * _inner(residual, change) + penalty_slope + step * penalty_curvature
            mean_change = (chance * change).sum(axis=0)
            # For one column the other class has logit 0 and no change.
            spread = _inner(chance * change, change) - _inner(mean_change, mean_change)
            found = (slope >= 0.7 * downhill) & (slope <= -0.3 * downhill)
            low, high = jnp.where(slope < 0, step, low), jnp.where(slope > 0, step, high)
            width = jnp.minimum(high, 10 * step) - low
            newton = step - slope / (inverse_l2 * spread + penalty_curvature)
            return step, jnp.clip(newton, low + 0.1 * width, low + 0.9 * width), low, high, found, residual, looks + 1

        zero, one = jnp.float32(0), jnp.float32(1)
        start: tuple[Array, ...] = (
            zero,
            one,
            zero,
            jnp.inf * one,
            jnp.array(False),
            jnp.zeros_like(change),
            jnp.int32(0),
        )
        step, *_, residual, _ = jax.lax.while_loop(lambda now: ~now[4] & (now[6] < MAX_SEARCH), look, start)
        return step, residual

    def iterate(metric: Array, state: _State) -> _State:
        direction = _direction(state, metric)
        downhill = _inner(state.gradient, direction)
        change = _dot(direction, transposed)
        step, residual = search(state, direction, change, downhill)
        moved = step * direction
        weights = state.weights + moved
        gradient = gradient_of(weights, residual)
        changed = gradient - state.gradient
        useful = _inner(moved, changed) > 0
        halved = -downhill < 0.5 * state.best
        best = jnp.where(halved, -downhill, state.best)
        best_iteration = jnp.where(halved, state.iteration, state.best_iteration)
        # The Hessian is at least the identity, hence a decrement d leaves each logit within sqrt(d) * |input|.
        stalled = (state.iteration - best_iteration >= PATIENCE) & (best < 1e-11 * objective_of(weights, residual))
        return _State(
            weights=weights,
            logits=state.logits + step * change,
            gradient=gradient,
            steps=_pushed(state.steps, useful * moved),
            changes=_pushed(state.changes, useful * changed),
            iteration=state.iteration + 1,
            best=best,
            best_iteration=best_iteration,
            done=stalled | (best * reach <= TOLERANCE**2),
        )

    def round_of(state: _State) -> _State:
        """The iterations of one metric."""
        metric = metric_of(state.logits)
        last = REFRESH * jnp.maximum(state.iteration, 1)
        return jax.lax.while_loop(lambda now: ~now.done & (now.iteration < last), partial(iterate, metric), state)

    weights, logits = jnp.zeros((columns, hidden + 1)), jnp.zeros((columns, texts))
    history = jnp.zeros((MEMORY, *weights.shape))
    state = _State(
        weights=weights,
        logits=logits,
        gradient=gradient_of(weights, probabilities(logits)[2]),
        steps=history,
        changes=history,
        iteration=jnp.int32(0),
        best=jnp.float32(jnp.inf),
        best_iteration=jnp.int32(0),
        done=jnp.array(False),
    )
    state = jax.lax.while_loop(lambda now: ~now.done & (now.iteration < REFRESH**ROUNDS), round_of, state)
    kernel, bias = state.weights[:, :hidden].T, state.weights[:, hidden]
    bias = bias - _dot(mean, kernel)
    if columns == 1:
        kernel, bias = (jnp.concatenate([-half, half], axis=-1) for half in (kernel / 2, bias / 2))
    return {"kernel": kernel, "bias": jnp.where(present[:, 0], bias, NEVER)}


_fit_alone = jax.jit(_fit, static_argnames="classes")


@partial(jax.jit, static_argnames="classes")
def _fit_together(
    features: Float[Array, "points texts hidden"],
    labels: Int[Array, " texts"],
    inverse_l2: Float[Array, ""],
    *,
    classes: int,
) -> dict[str, Array]:
    return jax.vmap(lambda own: _fit(own, labels, inverse_l2, classes=classes))(features)


def _direction(state: _State, metric: Float[Array, "inputs inputs"]) -> Float[Array, "k inputs"]:
    """The two-loop recursion (Nocedal and Wright 2006, algorithm 7.4), each loop as the triangular system it solves.

    So a few matrix products take the place of many steps on vectors. A pair of zeros has no effect.
    """
    steps, changes = (history.reshape(MEMORY, -1) for history in (state.steps, state.changes))
    agreement = _dot(steps, changes.T)
    diagonal = jnp.diagonal(agreement)
    older = jnp.tril(agreement) + jnp.diag((diagonal == 0).astype(jnp.float32))
    vector = -state.gradient.reshape(-1)
    backward = jax.scipy.linalg.solve_triangular(older, _dot(steps, vector), lower=True)
    vector = (vector - _dot(backward, changes)).reshape(state.gradient.shape)
    vector = _dot(_dot(vector, metric.T), metric).reshape(-1)
    forward = diagonal * backward - _dot(changes, vector)
    forward = jax.scipy.linalg.solve_triangular(older, forward, lower=True, trans=1)
    return (vector + _dot(forward, steps)).reshape(state.gradient.shape)


def _inner(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    return (a * b).sum()


def _pushed(history: Float[Array, "memory ..."], newest: Float[Array, "..."]) -> Float[Array, "memory ..."]:
    return jnp.concatenate([newest[None], history[:-1]])
