"""Multinomial logistic regression fitted to its optimum for many points at once: how ``wsr.engine.newton`` is run."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from wsr.engine.newton import inputs_of, minimise
from wsr.runtime.cores import usable_cores

TOLERANCE = 1e-4  # on every logit, see done in wsr.engine.newton.minimise


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
    alone, together = programs_of(fit)
    if divided := _division(features):
        return _on_each_device(fit, *divided, len(shared))(features, *shared, classes=classes)
    if next(iter(features.devices())).platform != "cpu":
        return together(features, *shared, classes=classes)

    def fit_one(point: int) -> Fit:
        return jax.block_until_ready(alone(features[point], *shared, classes=classes))

    with ThreadPoolExecutor(usable_cores()) as pool:
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


def _fit(
    features: Float[Array, "texts hidden"], labels: Int[Array, " texts"], inverse_l2: Float[Array, ""], *, classes: int
) -> Fit:
    """Fits one point."""
    inputs = inputs_of(features, labels, classes=classes)
    state = minimise(inputs, jnp.ones(len(features)), jnp.zeros(inputs.weights), inverse_l2, tolerance=TOLERANCE)
    return Fit(inputs.head(state.weights), inverse_l2, state.done)
