"""Multinomial logistic regression fitted to its optimum for many points at once: the solver behind the linear probe."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from wsr.geometry.linear_head import HIGHEST
from wsr.runtime.cores import usable_cores

MEMORY = 12  # pairs of L-BFGS
REFRESH = 4  # the metric is recomputed when the number of iterations has grown by this factor
ROUNDS = 5  # metrics: REFRESH**ROUNDS iterations at most
TOLERANCE = 1e-4  # on every logit, see done in minimise
PATIENCE = 8  # iterations near the optimum without halving the decrement: the limit of float32
MAX_SEARCH = 8  # slopes evaluated along one direction
NEVER = float(np.log(np.finfo(np.float32).eps))  # log-probability of a class without a training text

# Plain float32 matrix products run in bfloat16 or TF32 on TPUs and recent GPUs.
_dot = partial(jnp.dot, precision=HIGHEST)


class Fit(NamedTuple):
    """Fitted heads, with one leading axis of points unless stated otherwise."""

    heads: dict[str, Array]
    """``kernel [points, hidden, classes]`` and ``bias [points, classes]``."""
    inverse_l2: Float[Array, "*points"]
    """Inverse of the L2 penalty of each head, ``C`` in scikit-learn."""
    converged: Bool[Array, "*points"]
    """Whether the solver reached the optimum."""


def fit_logistic(
    features: Float[Array, "points texts hidden"],
    labels: Int[Array, " texts"],
    inverse_l2: Float[Array, ""],
    *,
    classes: int,
) -> Fit:
    """Fits each point's head to its optimum, see ``wsr.engine.probe.fit_probe``.

    Args:
      features: features of the training texts under each point.
      labels: class of each text.
      inverse_l2: inverse of the L2 penalty, ``C`` in scikit-learn.
      classes: number of classes, at least 2.
    """
    return per_point(_fit, features, labels, inverse_l2, classes=classes)


def per_point(
    fit: Callable[..., Fit], features: Float[Array, "points texts hidden"], *shared: Any, classes: int
) -> Fit:
    """Runs a fit for each point: on a CPU one core a point until it has converged, on accelerators all as one batch.

    If points are divided over devices, each device fits its own, and none waits for another.

    Args:
      fit: takes the features of one point, the shared arrays and ``classes``.
      features: features of the training texts under each point.
      *shared: further arrays, which all points share.
      classes: number of classes.
    """
    from threadpoolctl import threadpool_limits

    alone, together = programs_of(fit)
    if divided := _division(features):
        return _on_each_device(fit, *divided, len(shared))(features, *shared, classes=classes)
    if next(iter(features.devices())).platform != "cpu":
        return together(features, *shared, classes=classes)

    def fit_one(point: int) -> Fit:
        return jax.block_until_ready(alone(features[point], *shared, classes=classes))

    # LAPACK's threads wait for each other actively and would take the cores from other points.
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(usable_cores()) as pool:
        # The first point compiles the program that the others share.
        fits = [fit_one(0), *pool.map(fit_one, range(1, len(features)))]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *fits)


class Programs(NamedTuple):
    """The compiled forms of a fit."""

    alone: Any
    """Fits one point."""
    together: Any
    """Fits all points as one batch."""


@cache
def programs_of(fit: Callable[..., Fit]) -> Programs:
    """Returns the compiled forms of a fit, the same ones at each call.

    Args:
      fit: see ``per_point``.
    """

    def together(features: Float[Array, "points texts hidden"], *shared: Any, classes: int) -> Fit:
        if len(features) == 1:  # without vmap it is the program of one point
            return jax.tree.map(lambda leaf: leaf[None], fit(features[0], *shared, classes=classes))
        return jax.vmap(lambda own: fit(own, *shared, classes=classes))(features)

    return Programs(jax.jit(fit, static_argnames="classes"), jax.jit(together, static_argnames="classes"))


def _division(features: Float[Array, "points texts hidden"]) -> tuple[Any, Any] | None:
    """Returns the mesh and its axis along which points are divided over devices; None if they are not."""
    own = features.sharding
    if not isinstance(own, NamedSharding) or own.shard_shape(features.shape)[0] == len(features):
        return None
    return own.mesh, own.spec[0]


@cache
def _on_each_device(fit: Callable[..., Fit], mesh: Any, axis: Any, shared: int) -> jax.stages.Wrapped:
    """Returns the compiled program in which each device fits its points: a loop over all would make them wait."""

    def divided(features: Float[Array, "points texts hidden"], *arrays: Any, classes: int) -> Fit:
        own = jax.shard_map(
            partial(programs_of(fit).together, classes=classes),
            mesh=mesh,
            in_specs=(PartitionSpec(axis), *[PartitionSpec()] * shared),
            out_specs=PartitionSpec(axis),
            check_vma=False,
        )
        return own(features, *arrays)

    return jax.jit(divided, static_argnames="classes")


class Inputs(NamedTuple):
    """The texts of one point along the principal axes of its features, and the way back to the features."""

    rows: Float[Array, "texts inputs"]
    """Centred and scaled features along the axes; then a one."""
    columns: Float[Array, "inputs texts"]
    """A copy that XLA may not fold into the product: on a CPU both products with the inputs then run at full speed."""
    target: Float[Array, "classes texts"]
    present: Bool[Array, "classes 1"]
    """Whether a class has a text."""
    axes: Float[Array, "hidden inputs"]
    mean: Float[Array, " hidden"]
    scale: Float[Array, " hidden"]
    """Factor of each centred feature."""

    @property
    def weights(self) -> tuple[int, int]:
        """Shape of the weights: rows are classes, and a single one stands for two."""
        return (1 if len(self.target) == 2 else len(self.target)), self.rows.shape[1]

    def head(self, weights: Float[Array, "k inputs"]) -> dict[str, Array]:
        """Returns the weights as a head of the features."""
        kernel, bias, present = (
            _dot(self.axes, weights[:, :-1].T) * self.scale[:, None],
            weights[:, -1],
            self.present[:, 0],
        )
        if len(weights) == 1:
            kernel, bias = (jnp.concatenate([-half, half], axis=-1) for half in (kernel / 2, bias / 2))
        else:
            bias = bias - bias.mean(where=present)  # one number added to all intercepts changes nothing
        return {"kernel": kernel, "bias": jnp.where(present, bias - _dot(self.mean, kernel), NEVER)}


def inputs_of(
    features: Float[Array, "texts hidden"],
    labels: Int[Array, " texts"],
    *,
    classes: int,
    scale: Float[Array, " hidden"] | float = 1.0,
) -> Inputs:
    """Prepares the texts of one point for ``minimise``.

    Args:
      features: features of the texts.
      labels: class of each text.
      classes: number of classes, at least 2.
      scale: factor of each feature.
    """
    texts, hidden = features.shape
    # Subtracting the mean changes the intercept only, and keeps float32 sums small.
    mean = features.mean(axis=0)
    scale = jnp.broadcast_to(jnp.asarray(scale, jnp.float32), mean.shape)
    rows, axes = (features - mean) * scale, jnp.eye(hidden)
    if texts < hidden:
        # The optimum lies in the span of the texts.
        axes, triangle = jnp.linalg.qr(rows.T)
        rows = triangle.T
    # The penalty is the same in every orthonormal basis. Along the principal axes the Hessian is nearly diagonal.
    turn = jnp.linalg.eigh(_dot(rows.T, rows))[1]
    rows = jnp.concatenate([_dot(rows, turn), jnp.ones((texts, 1))], axis=1)
    target = jax.nn.one_hot(labels, classes, axis=0)
    columns = jax.lax.optimization_barrier(rows.T)
    return Inputs(rows, columns, target, target.any(axis=1, keepdims=True), _dot(axes, turn), mean, scale)


class State(NamedTuple):
    """L-BFGS of one problem; histories are newest first; ``k`` is 1 for two classes."""

    weights: Float[Array, "k inputs"]
    logits: Float[Array, "k texts"]
    residual: Float[Array, "k texts"]
    gradient: Float[Array, "k inputs"]
    steps: Float[Array, "memory k inputs"]
    changes: Float[Array, "memory k inputs"]
    iteration: Int[Array, ""]
    best: Float[Array, ""]
    best_iteration: Int[Array, ""]
    done: Bool[Array, ""]


def minimise(
    inputs: Inputs,
    used: Float[Array, "problems texts"],
    start: Float[Array, "problems k inputs"],
    inverse_l2: Float[Array, ""],
    *,
    tolerance: float,
) -> State:
    """Fits problems that differ in the texts they use, by L-BFGS in the metric of the Hessian's diagonal.

    Features of an encoder are badly conditioned: plain L-BFGS takes hundreds of iterations, this takes tens. The metric
    is recomputed at a few iterations. The logits are linear in the weights, so the line search works on logits and does
    not touch the features. Rows are classes, so softmax runs along whole vectors of texts.

    Args:
      inputs: the texts.
      used: 1 for each text that a problem uses and 0 for the others; every class with a text has one in each problem.
      start: the weights to start from.
      inverse_l2: inverse of the L2 penalty.
      tolerance: on every logit.

    Returns:
      The last state, each array with a leading axis of problems.
    """
    rows, target = inputs.rows, inputs.target
    size = rows.shape[1]
    penalty = jnp.ones(size).at[size - 1].set(0.0)
    squares = jnp.square(rows)
    reach = squares.sum(axis=1).max()
    columns = start.shape[1]

    def probabilities(logits: Array, used: Array) -> tuple[Array, Array, Array]:
        """Returns p, 1 - p and p - y, each to float32's *relative* precision; p and p - y are 0 for unused texts."""
        chance = jax.nn.softmax(jnp.where(inputs.present, full_logits(logits), -jnp.inf), axis=0)
        others = (chance * (1 - target)).sum(axis=0)
        residual = jnp.where(target > 0, -others, chance) * used
        rest = jnp.where(target > 0, others, 1 - chance)
        return (chance * used)[-columns:], rest[-columns:], residual[-columns:]

    def gradient_of(weights: Array, residual: Array) -> Array:
        return inverse_l2 * _dot(residual, rows) + penalty * weights

    def objective_of(weights: Array, residual: Array) -> Array:
        """A lower bound of the objective (1 - p <= -log p): what a decrement is compared with."""
        return inverse_l2 * jnp.abs(residual).sum() / 2 + 0.5 * _inner(penalty * weights, weights)

    def metric_of(logits: Float[Array, "k texts"], used: Float[Array, " texts"]) -> Float[Array, "k inputs"]:
        """Returns the inverse of the Hessian's diagonal."""
        chance, rest, _ = probabilities(logits, used)
        return 1 / (inverse_l2 * _dot(chance * rest, squares) + penalty + jnp.finfo(jnp.float32).tiny)

    def search(state: State, used: Array, direction: Array, change: Array, downhill: Array) -> tuple[Array, ...]:
        """Returns a step where the slope has all but vanished, and the residual there: safeguarded Newton, convex."""
        penalty_slope = _inner(penalty * state.weights, direction)
        penalty_curvature = _inner(penalty * direction, direction)

        def look(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            step, low, high, _, looks, kept, kept_residual = carry
            chance, _, residual = probabilities(state.logits + step * change, used)
            slope = inverse_l2 * _inner(residual, change) + penalty_slope + step * penalty_curvature
            mean_change = (chance * change).sum(axis=0)
            # For one column the other class has logit 0 and no change.
            spread = _inner(chance * change, change) - _inner(mean_change, mean_change)
            found = (slope >= 0.7 * downhill) & (slope <= -0.3 * downhill)
            # Downhill until here, as the objective is convex: a step that was not found never raises it.
            better = found | (slope < 0)
            kept, kept_residual = jnp.where(better, step, kept), jnp.where(better, residual, kept_residual)
            low, high = jnp.where(slope < 0, step, low), jnp.where(slope > 0, step, high)
            width = jnp.minimum(high, 10 * step) - low
            newton = step - slope / (inverse_l2 * spread + penalty_curvature)
            step = jnp.clip(newton, low + 0.1 * width, low + 0.9 * width)
            return step, low, high, found, looks + 1, kept, kept_residual

        zero, one = jnp.float32(0), jnp.float32(1)
        start: tuple[Array, ...] = (one, zero, jnp.inf * one, jnp.array(False), jnp.int32(0), zero, state.residual)
        return jax.lax.while_loop(lambda now: ~now[3] & (now[4] < MAX_SEARCH), look, start)[-2:]

    def iterate(used: Array, metric: Array, state: State) -> State:
        direction = _direction(state, metric)
        downhill = _inner(state.gradient, direction)
        change = _dot(direction, inputs.columns)
        step, residual = search(state, used, direction, change, downhill)
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
        return State(
            weights=weights,
            logits=state.logits + step * change,
            residual=residual,
            gradient=gradient,
            steps=_pushed(state.steps, useful * moved),
            changes=_pushed(state.changes, useful * changed),
            iteration=state.iteration + 1,
            best=best,
            best_iteration=best_iteration,
            done=state.done | stalled | (best * reach <= tolerance**2),
        )

    def round_of(carry: tuple[State, Array]) -> tuple[State, Array]:
        """The iterations of one metric."""
        state, last = carry
        metric = jax.vmap(metric_of)(state.logits, used)
        # Problems that are done go on until all are: to freeze them would copy the histories at every iteration.
        state = jax.lax.while_loop(
            lambda now: ~now.done.all() & (now.iteration[0] < last),
            lambda now: jax.vmap(iterate)(used, metric, now),
            state,
        )
        return state, last * REFRESH

    def begin(weights: Array, used: Array) -> State:
        logits, history = _dot(weights, inputs.columns), jnp.zeros((MEMORY, *weights.shape))
        residual = probabilities(logits, used)[2]
        return State(
            weights=weights,
            logits=logits,
            residual=residual,
            gradient=gradient_of(weights, residual),
            steps=history,
            changes=history,
            iteration=jnp.int32(0),
            best=jnp.float32(jnp.inf),
            best_iteration=jnp.int32(0),
            done=jnp.array(False),
        )

    def unfinished(carry: tuple[State, Array]) -> Array:
        return ~carry[0].done.all() & (carry[1] <= REFRESH**ROUNDS)

    return jax.lax.while_loop(unfinished, round_of, (jax.vmap(begin)(start, used), jnp.int32(REFRESH)))[0]


def full_logits(logits: Float[Array, "k texts"]) -> Float[Array, "classes texts"]:
    """Returns a row for each class: where a single one stands for two, the other class has logit 0."""
    return jnp.concatenate([jnp.zeros_like(logits), logits]) if len(logits) == 1 else logits


def _fit(
    features: Float[Array, "texts hidden"], labels: Int[Array, " texts"], inverse_l2: Float[Array, ""], *, classes: int
) -> Fit:
    """Fits one point."""
    inputs = inputs_of(features, labels, classes=classes)
    state = minimise(
        inputs, jnp.ones((1, len(features))), jnp.zeros((1, *inputs.weights)), inverse_l2, tolerance=TOLERANCE
    )
    return Fit(inputs.head(state.weights[0]), inverse_l2, state.done[0])


def _direction(state: State, metric: Float[Array, "k inputs"]) -> Float[Array, "k inputs"]:
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
    vector = (vector * metric).reshape(-1)
    forward = diagonal * backward - _dot(changes, vector)
    forward = jax.scipy.linalg.solve_triangular(older, forward, lower=True, trans=1)
    return (vector + _dot(forward, steps)).reshape(state.gradient.shape)


def _inner(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    return (a * b).sum()


def _pushed(history: Float[Array, "memory ..."], newest: Float[Array, "..."]) -> Float[Array, "memory ..."]:
    return jnp.concatenate([newest[None], history[:-1]])
