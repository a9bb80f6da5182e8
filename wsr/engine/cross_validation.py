"""The penalty of a linear probe chosen by cross-validation inside the probe split, for each point by itself.

Features are standardised to mean 0 and standard deviation 1 over the texts of the fit, because one penalty on raw
features would punish a point for the size of its features. Of the values in ``GRID``, from the strongest penalty to the
weakest, the one with the lowest mean loss on left-out texts is used to fit all texts again. A first, rough path tells
which penalties may be the best: each fit starts where the fits at the two penalties before point to, and the path ends
when the loss exceeds the lowest by ``MARGIN``, before the weak penalties, which take longest. The penalties within
``MARGIN`` of the lowest are fitted once more, precisely.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from wsr.engine.logistic import TOLERANCE, Fit, per_point
from wsr.engine.newton import Inputs, full_logits, inputs_of, minimise
from wsr.runtime import seeds

GRID = tuple(float(value) for value in np.round(np.logspace(-5, 2, 15), 12))
"""Inverses of the L2 penalty that are tried: half decades from 0.00001 to 100."""
FOLDS = 5
"""Folds of the cross-validation."""
MARGIN = 0.02
"""Share by which the loss must exceed the lowest for a penalty to be out of the question, and for the path to end."""
ROUGHLY, PRECISELY = 5.0, 0.03
"""Tolerances on every logit of a fit without a fold; bounds that the errors of mean losses stay far below."""


def dealt(labels: Shaped[np.ndarray, " texts"], hands: int, *names: str) -> Int[np.ndarray, " texts"]:
    """Deals texts to hands so that all hands have the same number of texts and the same mix of labels, up to one text.

    Args:
      labels: class of each text, or value for regression.
      hands: number of hands.
      *names: name of the random stream, so that the same labels are always dealt in the same way.

    Returns:
      The hand of each text.

    Example:
      >>> import numpy as np
      >>> from wsr.engine.cross_validation import dealt
      >>> hand = dealt(np.array([0, 0, 1, 1]), 2, "example")
      >>> bool(hand[0] != hand[1]), bool(hand[2] != hand[3])
      (True, True)
    """
    order = seeds.generator(0, *names).permutation(len(labels))
    order = order[np.argsort(np.asarray(labels)[order], kind="stable")]
    hand = np.empty(len(labels), np.int32)
    hand[order] = np.arange(len(labels)) % hands
    return hand


def folds_of(labels: Shaped[np.ndarray, " texts"], *, classes: int) -> Int[np.ndarray, " texts"]:
    """Returns the fold that leaves out each text; -1 for a text that no fit can do without, the only one of its class.

    The folds depend on the labels only, so all points have the same folds.

    Args:
      labels: class of each text, or value for regression.
      classes: number of classes; 1 for regression.
    """
    labels = np.asarray(labels)
    fold = dealt(labels, FOLDS, "folds of the probe")
    alone = np.bincount(labels, minlength=classes)[labels] == 1 if classes > 1 else np.array(len(labels) == 1)
    return np.where(alone, -1, fold)


def scale_of(features: Float[Array, "*points texts hidden"]) -> Float[Array, "*points hidden"]:
    """Returns one over the standard deviation of each feature over the texts; 0 for a constant feature.

    Args:
      features: features of the texts, under one point or several.
    """
    mean = features.mean(axis=-2, keepdims=True)
    variance = jnp.square(features - mean).mean(axis=-2)
    # A constant feature differs from its mean by rounding.
    varies = variance > jnp.square(8 * jnp.finfo(jnp.float32).eps * mean[..., 0, :])
    return jnp.where(varies, jax.lax.rsqrt(jnp.where(varies, variance, 1.0)), 0.0)


def fit_logistic_by_folds(
    features: Float[Array, "points texts hidden"],
    labels: Int[Array, " texts"],
    folds: Int[Array, " texts"],
    *,
    classes: int,
) -> Fit:
    """Fits each point's head to standardised features, with the penalty that cross-validation chooses.

    Args:
      features: features of the training texts under each point.
      labels: class of each text.
      folds: the fold that leaves out each text, see ``folds_of``.
      classes: number of classes, at least 2.
    """
    return per_point(_fit, features, labels, folds, classes=classes)


def _fit(
    features: Float[Array, "texts hidden"], labels: Int[Array, " texts"], folds: Int[Array, " texts"], *, classes: int
) -> Fit:
    inputs = inputs_of(features, labels, classes=classes, scale=scale_of(features))
    inverse_l2, start = _chosen(inputs, folds)
    state = minimise(inputs, jnp.ones(len(features)), start, inverse_l2, tolerance=TOLERANCE)
    return Fit(inputs.head(state.weights), inverse_l2, state.done)


class _Path(NamedTuple):
    """What is known at each penalty of ``GRID``."""

    losses: Float[Array, " grid"]
    """Loss of all left-out texts; infinite where the path did not come."""
    weights: Float[Array, "grid k inputs"]
    """Mean of the folds' weights."""

    def near(self) -> Bool[Array, " grid"]:
        """Returns the penalties whose loss exceeds the lowest by ``MARGIN`` at most."""
        return self.losses <= (1 + MARGIN) * jnp.nanmin(self.losses)


def _chosen(inputs: Inputs, folds: Int[Array, " texts"]) -> tuple[Float[Array, ""], Float[Array, "k inputs"]]:
    """Returns the chosen inverse penalty, and the mean of the folds' weights there: where the last fit starts."""
    held = folds == jnp.arange(FOLDS)[:, None]
    rough = _rough_path(inputs, held)
    near = rough.near()
    path = _settled(inputs, held, rough, near)
    best = jnp.nanargmin(jnp.where(near, path.losses, jnp.inf))
    return jnp.array(GRID, jnp.float32)[best], path.weights[best]


def _rough_path(inputs: Inputs, held: Bool[Array, "folds texts"]) -> _Path:
    """Follows the penalties, each fit from where the two before point to, until the loss leaves ``MARGIN``."""

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        at, before, weights, path = carry
        start = 2 * weights - before  # weights are nearly linear in the logarithm of the penalty
        following, path = _fit_folds(inputs, held, at, start, path, exact=False)
        return at + 1, weights, following, path

    def unfinished(carry: tuple[Any, ...]) -> Array:
        at, _, _, path = carry
        return (at == 0) | ((at < len(GRID)) & path.near()[at - 1])

    none = jnp.zeros((FOLDS, *inputs.weights))
    unknown = _Path(jnp.full(len(GRID), jnp.inf), jnp.zeros((len(GRID), *inputs.weights)))
    return jax.lax.while_loop(unfinished, advance, (jnp.int32(0), none, none, unknown))[-1]


def _settled(inputs: Inputs, held: Bool[Array, "folds texts"], rough: _Path, near: Bool[Array, " grid"]) -> _Path:
    """Fits the penalties near the lowest loss once more, precisely; nothing where one stands alone."""
    first, last = jnp.argmax(near), len(GRID) - 1 - jnp.argmax(near[::-1])

    def advance(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        at, weights, path = carry
        start = weights + (rough.weights[at] - rough.weights[at - 1])
        return at + 1, *_fit_folds(inputs, held, at, start, path, exact=True)

    start = jnp.broadcast_to(rough.weights[first - 1], (FOLDS, *inputs.weights))
    carry = (jnp.where(near.sum() > 1, first, last + 1), start, rough)
    return jax.lax.while_loop(lambda now: now[0] <= last, advance, carry)[-1]


def _fit_folds(
    inputs: Inputs,
    held: Bool[Array, "folds texts"],
    at: Int[Array, ""],
    start: Float[Array, "folds k inputs"],
    path: _Path,
    *,
    exact: bool,
) -> tuple[Float[Array, "folds k inputs"], _Path]:
    """Fits all folds at one penalty; returns their weights, and the path with what they tell."""
    tolerance = PRECISELY if exact else ROUGHLY
    fit = partial(minimise, inputs, inverse_l2=jnp.array(GRID, jnp.float32)[at], tolerance=tolerance, exact=exact)
    state = jax.vmap(fit)(1.0 - held, start)
    loss = (_losses(inputs, state.logits) * held).sum()
    return state.weights, _Path(path.losses.at[at].set(loss), path.weights.at[at].set(state.weights.mean(axis=0)))


def _losses(inputs: Inputs, logits: Float[Array, "folds k texts"]) -> Float[Array, "folds texts"]:
    full = jnp.where(inputs.present, jax.vmap(full_logits)(logits), -jnp.inf)
    return jax.nn.logsumexp(full, axis=1) - jnp.where(inputs.target > 0, full, 0.0).sum(axis=1)


def ridge_by_folds(
    features: Float[np.ndarray, "points texts hidden"],
    values: Shaped[np.ndarray, " texts"],
    folds: Int[np.ndarray, " texts"],
) -> Float[np.ndarray, " points"]:
    """Returns the inverse penalty that cross-validation chooses for ridge regression on standardised features.

    In closed form, with one decomposition for all folds and penalties: leaving out fold F changes the residuals e of
    the fit to all texts to ``(I - H_FF)^-1 e_F``, where H is the matrix that turns values into fitted values. In
    float64, because under weak penalties ``I - H_FF`` is all but singular.

    Args:
      features: features of the texts under each point, centred and scaled.
      values: value of each text.
      folds: the fold that leaves out each text.
    """
    return np.array([_ridge_choice(own.astype(np.float64), np.asarray(values, np.float64), folds) for own in features])


def _ridge_choice(
    rows: Float[np.ndarray, "texts hidden"], values: Shaped[np.ndarray, " texts"], folds: Int[np.ndarray, " texts"]
) -> float:
    if not np.isfinite(rows).all():
        return GRID[0]  # the fit to all texts reports that it has no optimum
    texts, hidden = rows.shape
    rows, values = rows - rows.mean(axis=0), values - values.mean()
    if texts < hidden:
        squares, vectors = np.linalg.eigh(rows @ rows.T)
        turned = vectors * np.sqrt(squares.clip(0))
    else:
        squares, vectors = np.linalg.eigh(rows.T @ rows)
        turned = rows @ vectors
    losses = []
    for inverse_l2 in GRID:
        shrunk = turned / (squares.clip(0) + 1 / inverse_l2)
        residual = values - shrunk @ (turned.T @ values)
        held = [np.flatnonzero(folds == fold) for fold in range(FOLDS)]
        errors = [
            np.linalg.solve(np.eye(len(own)) - 1 / texts - shrunk[own] @ turned[own].T, residual[own]) for own in held
        ]
        losses.append(np.square(np.concatenate(errors)).sum())
    return GRID[int(np.argmin(losses))]
