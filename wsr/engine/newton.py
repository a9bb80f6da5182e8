"""Multinomial logistic regression by Newton's method with conjugate gradients: products with the features, no more.

Rows are classes, so softmax runs along whole vectors of texts. ``jax.vmap`` over texts in use and starts fits several
problems on the same texts at once, with products as wide as all of them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from wsr.geometry.linear_head import HIGHEST

NEWTON_STEPS = 200  # at most
INNER_STEPS = 200  # of conjugate gradients for one Newton step, at most
ACCURACY = (1e-4, 0.5)  # a Newton step may lack a share of its decrement between these
PATIENCE = 3  # Newton steps near the optimum that do not halve the decrement: the limit of the precision
MAX_SEARCH = 8  # slopes evaluated along one direction
TINY = float(np.finfo(np.float32).tiny)
NEVER = float(np.log(np.finfo(np.float32).eps))  # log-probability of a class without a training text

# Plain float32 matrix products run in bfloat16 or TF32 on TPUs and recent GPUs.
_dot = partial(jnp.dot, precision=HIGHEST)


class Inputs(NamedTuple):
    """The texts of one point, and the way back to the features."""

    rows: Float[Array, "texts inputs"]
    """Centred and scaled features; then a one."""
    columns: Float[Array, "inputs texts"]
    """A copy that XLA may not fold into the product: on a CPU both products with the inputs then run at full speed."""
    target: Float[Array, "classes texts"]
    present: Bool[Array, "classes 1"]
    """Whether a class has a text."""
    mean: Float[Array, " hidden"]
    scale: Float[Array, " hidden"]
    """Factor of each centred feature."""

    @property
    def weights(self) -> tuple[int, int]:
        """Shape of the weights: rows are classes, and a single one stands for two."""
        return (1 if len(self.target) == 2 else len(self.target)), self.rows.shape[1]

    def head(self, weights: Float[Array, "k inputs"]) -> dict[str, Array]:
        """Returns the weights as a head of the features."""
        kernel, bias, present = weights[:, :-1].T * self.scale[:, None], weights[:, -1], self.present[:, 0]
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
    # Subtracting the mean changes the intercept only, and keeps float32 sums small.
    mean = features.mean(axis=0)
    scale = jnp.broadcast_to(jnp.asarray(scale, jnp.float32), mean.shape)
    rows = jnp.pad((features - mean) * scale, ((0, 0), (0, 1)), constant_values=1.0)
    target = jax.nn.one_hot(labels, classes, axis=0)
    return Inputs(rows, jax.lax.optimization_barrier(rows.T), target, target.any(axis=1, keepdims=True), mean, scale)


class State(NamedTuple):
    """Newton's method; ``k`` is 1 for two classes."""

    weights: Float[Array, "k inputs"]
    logits: Float[Array, "k texts"]
    length: Float[Array, ""]
    """Squared length of the last gradient in the metric."""
    best: Float[Array, ""]
    """The smallest decrement so far."""
    step: Int[Array, ""]
    best_step: Int[Array, ""]
    """The last step that halved the smallest decrement."""
    inner_steps: Int[Array, ""]
    """All steps of conjugate gradients so far."""
    done: Bool[Array, ""]


def minimise(
    inputs: Inputs,
    used: Float[Array, " texts"],
    start: Float[Array, "k inputs"],
    inverse_l2: Float[Array, ""],
    *,
    tolerance: float,
    exact: bool = True,
) -> State:
    """Fits the texts in use by Newton's method.

    Conjugate gradients in the metric of the Hessian's diagonal solve for each step (Nocedal and Wright 2006, chapter
    7.1), until a step adds little to the decrement (Nash and Sofer 1990, Assessing a search direction within a
    truncated-Newton method). A Newton step need not be exact, so these products multiply in bfloat16; gradients are
    float32 unless ``exact`` is false. The logits are linear in the weights, so the line search works on logits and does
    not touch the features.

    Args:
      inputs: the texts.
      used: 1 for each text in use and 0 for the others; every class with a text has one in use.
      start: the weights to start from.
      inverse_l2: inverse of the L2 penalty.
      tolerance: on every logit.
      exact: whether the optimum is that of float32; false: all products are bfloat16, for a tolerance of 0.1 or more.

    Returns:
      The last state.
    """
    rows, target = inputs.rows, inputs.target
    size = rows.shape[1]
    penalty = jnp.ones(size).at[size - 1].set(0.0)
    squares = jnp.square(rows)
    mean_squares, reach = squares.mean(axis=0), squares.sum(axis=1).max()
    # Without the barrier, XLA may round them again at each product.
    rough = jax.lax.optimization_barrier((rows.astype(jnp.bfloat16), inputs.columns.astype(jnp.bfloat16)))
    columns = len(start)

    def times_rows(a: Array) -> Array:
        # No penalty bounds what rounding would do to the intercepts, whose inputs are ones.
        return _dot(a, rows) if exact else _rough_dot(a, rough[0]).at[:, -1].set(a.sum(axis=1))

    def times_columns(a: Array) -> Array:
        return _dot(a, inputs.columns) if exact else _rough_dot(a, rough[1])

    def probabilities(logits: Array) -> tuple[Array, Array, Array]:
        """Returns p, 1 - p and p - y, each to float32's *relative* precision; p and p - y are 0 for unused texts."""
        chance = jax.nn.softmax(jnp.where(inputs.present, full_logits(logits), -jnp.inf), axis=0)
        others = (chance * (1 - target)).sum(axis=0)
        residual = jnp.where(target > 0, -others, chance) * used
        rest = jnp.where(target > 0, others, 1 - chance)
        return (chance * used)[-columns:], rest[-columns:], residual[-columns:]

    def objective_of(weights: Array, residual: Array) -> Array:
        """A lower bound of the objective (1 - p <= -log p): what a decrement is compared with."""
        return inverse_l2 * jnp.abs(residual).sum() / 2 + 0.5 * _inner(penalty * weights, weights)

    def curvature(direction: Array, chance: Array, rest: Array, residual: Array) -> Array:
        """Returns the product of the Hessian and a direction."""
        change = _rough_dot(direction, rough[1])
        if columns == 1:
            curved = chance * rest * change
        else:
            # For the true class, change - mean is minus the sum of residual * change: precise where 1 - p is small.
            mean, true = (chance * change).sum(axis=0), -(residual * change).sum(axis=0)
            curved = chance * jnp.where(target > 0, true, change - mean)
        return inverse_l2 * _rough_dot(curved, rough[0]) + penalty * direction

    def solve(gradient: Array, chances: tuple[Array, Array, Array], state: State) -> tuple[Array, ...]:
        """Returns the Newton step, its decrement and what that lacks, by preconditioned conjugate gradients."""
        chance, rest, _ = chances
        diagonal = (chance * rest).sum(axis=1, keepdims=True) * mean_squares
        metric = 1 / (inverse_l2 * diagonal + penalty + TINY)
        downhill = -metric * gradient
        length = -_inner(gradient, downhill)
        accuracy = jnp.clip(length / state.length, *ACCURACY)
        enough = 0.5 * tolerance**2 / reach

        def advance(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            solution, residual, direction, length, gained, _, turn = carry
            curved = curvature(direction, *chances)
            factor = _ratio(length, _inner(direction, curved))
            residual = residual - factor * curved
            scaled = metric * residual
            next_length = _inner(residual, scaled)
            gain = factor * length
            following = scaled + _ratio(next_length, length) * direction
            return solution + factor * direction, residual, following, next_length, gained + gain, gain, turn + 1

        def unfinished(carry: tuple[Array, ...]) -> Array:
            *_, gained, gain, turn = carry
            return ~state.done & (turn < INNER_STEPS) & (turn * gain > jnp.maximum(accuracy * gained, enough))

        zero = jnp.float32(0)
        carry = advance((jnp.zeros_like(gradient), -gradient, downhill, length, zero, zero, jnp.int32(0)))
        solution, *_, gained, gain, turn = jax.lax.while_loop(unfinished, advance, carry)
        return solution, gained, turn * gain, turn, length

    def search(state: State, direction: Array, change: Array, downhill: Array) -> Array:
        """Returns a step where the slope has all but vanished: safeguarded Newton, convex."""
        penalty_slope = _inner(penalty * state.weights, direction)
        penalty_curvature = _inner(penalty * direction, direction)

        def look(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            step, low, high, _, looks, kept = carry
            chance, _, residual = probabilities(state.logits + step * change)
            slope = inverse_l2 * _inner(residual, change) + penalty_slope + step * penalty_curvature
            mean_change = (chance * change).sum(axis=0)
            # For one column the other class has logit 0 and no change.
            spread = _inner(chance * change, change) - _inner(mean_change, mean_change)
            found = (slope >= 0.7 * downhill) & (slope <= -0.3 * downhill)
            # Downhill until here, as the objective is convex: a step that was not found never raises it.
            kept = jnp.where(found | (slope < 0), step, kept)
            low, high = jnp.where(slope < 0, step, low), jnp.where(slope > 0, step, high)
            width = jnp.minimum(high, 10 * step) - low
            newton = step - slope / (inverse_l2 * spread + penalty_curvature)
            step = jnp.clip(newton, low + 0.1 * width, low + 0.9 * width)
            return step, low, high, found, looks + 1, kept

        zero, one = jnp.float32(0), jnp.float32(1)
        start: tuple[Array, ...] = (one, zero, jnp.inf * one, state.done, jnp.int32(0), zero)
        return jax.lax.while_loop(lambda now: ~now[3] & (now[4] < MAX_SEARCH), look, start)[-1]

    def iterate(state: State) -> State:
        chances = probabilities(state.logits)
        residual = chances[2]
        gradient = inverse_l2 * times_rows(residual) + penalty * state.weights
        direction, decrement, lacking, inner, length = solve(gradient, chances, state)
        change = times_columns(direction)
        step = search(state, direction, change, _inner(gradient, direction))
        halved = decrement < 0.5 * state.best
        best = jnp.where(halved, decrement, state.best)
        best_step = jnp.where(halved, state.step, state.best_step)
        stalled = state.step - best_step >= PATIENCE
        if exact:
            stalled &= best < 1e-11 * objective_of(state.weights, residual)
        # After the step, the decrement is what the step lacks and what the change of the curvature makes. The Hessian
        # is at least the identity, hence a decrement d leaves each logit within sqrt(d) * |input|.
        drift = jnp.ptp(full_logits(change), axis=0).max()
        left = jnp.square(jnp.sqrt(lacking) + jnp.sqrt(decrement) * drift)
        return State(
            weights=state.weights + step * direction,
            logits=state.logits + step * change,
            length=length,
            best=best,
            step=state.step + 1,
            best_step=best_step,
            inner_steps=state.inner_steps + inner,
            done=stalled | (left * reach <= tolerance**2),
        )

    none, never = jnp.int32(0), jnp.float32(jnp.inf)
    state = State(start, times_columns(start), jnp.float32(TINY), never, none, none, none, jnp.array(False))
    return jax.lax.while_loop(lambda now: ~now.done & (now.step < NEWTON_STEPS), iterate, state)


def full_logits(logits: Float[Array, "k texts"]) -> Float[Array, "classes texts"]:
    """Returns a row for each class: where a single one stands for two, the other class has logit 0."""
    return jnp.concatenate([jnp.zeros_like(logits), logits]) if len(logits) == 1 else logits


def _rough_dot(a: Float[Array, "k _"], b: Float[Array, "_ _"]) -> Float[Array, "k _"]:
    """Returns the product with ``a`` rounded to bfloat16, as ``b`` is."""
    return jnp.dot(a.astype(jnp.bfloat16), b, preferred_element_type=jnp.float32)


def _inner(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, ""]:
    return (a * b).sum()


def _ratio(a: Float[Array, ""], b: Float[Array, ""]) -> Float[Array, ""]:
    """Returns a / b; 0 where b is not positive."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)
