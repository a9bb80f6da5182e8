"""Turns coefficients into parameters: the points of weight space.

Only encoders are combined. A head belongs to one dataset and is never part of a point.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from wsr.geometry.linear_head import HIGHEST, matmul
from wsr.geometry.low_rank import LowRank
from wsr.geometry.trees import flatten, nest
from wsr.runtime.placement import placed
from wsr.types import AnyArray, Params


def combine(base: Params, members: Params, coefficients: Float[Array, "*points members"]) -> Params:
    """Returns the parameters of the points ``base + sum_k coefficients[..., k] * task_vector_k``.

    They are computed as ``(1 - sum_k c_k) * base + sum_k c_k * member_k``. This form reproduces the base (all
    coefficients 0) and each member (a single coefficient of 1) bit for bit.

    Args:
      base: parameters of the checkpoint that the members were fine-tuned from.
      members: parameters of all members, stacked by ``wsr.geometry.trees.stack``: leaves ``[members, ...]``.
      coefficients: one row per point, one column per member.

    Returns:
      Parameters with leaves ``[*points, ...]``, float32.

    Example:
      >>> import jax.numpy as jnp
      >>> from wsr.geometry.points import combine
      >>> base = {"bias": jnp.zeros(2)}
      >>> members = {"bias": jnp.array([[1.0, 0.0], [0.0, 1.0]])}
      >>> combine(base, members, jnp.array([0.5, 0.25]))["bias"].tolist()
      [0.5, 0.25]
    """
    rest = 1.0 - coefficients.sum(axis=-1)

    def leaf(base_leaf: AnyArray, member_leaves: AnyArray) -> Array:
        mixed = jnp.tensordot(coefficients, member_leaves, axes=1, precision=HIGHEST)
        return mixed + _times(rest, base_leaf)

    return jax.tree.map(leaf, base, members)


def combine_one_by_one(
    base: Params,
    members: Iterable[Params],
    coefficients: Float[np.ndarray, "*points members"],
    *,
    sharding: jax.sharding.Sharding | None = None,
) -> Params:
    """Returns the same points as ``combine``, with one member in memory at a time.

    One compiled program serves any number of members. If the base is cut over devices, members must be cut alike, and
    so are the points.

    Args:
      base: parameters of the checkpoint that the members were fine-tuned from.
      members: one per column of ``coefficients``, in the same order.
      coefficients: one row per point, one column per member.
      sharding: how points are laid out over several devices; None for a single device.

    Returns:
      Parameters with leaves ``[*points, ...]``, float32.
    """
    rest = np.asarray(1.0 - coefficients.sum(axis=-1), np.float32)
    places = _places_of(base, sharding)
    mixed = _scaled(base, placed(rest, sharding), places)
    for number, member in enumerate(members):
        factors = placed(np.asarray(coefficients[..., number], np.float32), sharding)
        # Wait for each member, or all of them would queue up on the device.
        mixed = jax.block_until_ready(_added(mixed, member, factors, places))
        del member  # frees it before the next one is loaded
    return mixed


def add_low_rank(
    points: Params,
    changes: Iterable[LowRank],
    coefficients: Float[np.ndarray, "*points members"],
    *,
    sharding: jax.sharding.Sharding | None = None,
) -> Params:
    """Returns ``points + sum_k coefficients[..., k] * a_k b_k``, with one product of a leaf in memory at a time.

    Args:
      points: parameters with leaves ``[*points, ...]``, float32; their memory is taken over.
      changes: the factors of one member per column of ``coefficients``, in the same order.
      coefficients: one row per point, one column per member.
      sharding: how points are laid out over several devices; None for a single device.
    """
    leaves = flatten(points)
    for number, change in enumerate(changes):
        scales = placed(np.asarray(coefficients[..., number], np.float32), sharding)
        for path, own in change.items():
            place = leaves[path].sharding
            leaves[path] = jax.block_until_ready(_moved(leaves[path], own.a, own.b, scales, place))
        del change  # frees it before the next one is loaded
    return nest(leaves)


class Places(NamedTuple):
    """How points and models lie on several devices."""

    mesh: Mesh | AbstractMesh
    points: PartitionSpec
    """Mesh axes of the points' axes."""
    leaves: tuple[PartitionSpec, ...]
    """Mesh axes of the axes of each leaf of one model, in the order of the leaves."""


def _places_of(base: Params, sharding: jax.sharding.Sharding | None) -> Places | None:
    if not isinstance(sharding, NamedSharding) or sharding.num_devices == 1:
        return None
    return Places(sharding.mesh, sharding.spec, tuple(leaf.sharding.spec for leaf in jax.tree.leaves(base)))


@partial(jax.jit, donate_argnums=0, static_argnames="place")
def _moved(
    leaf: Float[Array, "..."],
    a: Float[AnyArray, "inputs rank"],
    b: Float[AnyArray, "rank outputs"],
    scales: Float[Array, "*points"],
    place: jax.sharding.Sharding,
) -> Float[Array, "..."]:
    moved = leaf + _times(scales, matmul(a, b).reshape(leaf.shape[scales.ndim :]))
    return moved if place.num_devices == 1 else jax.lax.with_sharding_constraint(moved, place)


@partial(jax.jit, static_argnames="places")
def _scaled(params: Params, factors: Float[Array, "*points"], places: Places | None) -> Params:
    def scaled(params: Params, factors: Float[Array, "*points"]) -> Params:
        return jax.tree.map(lambda leaf: _times(factors, leaf), params)

    return _on_each_device(scaled, places, params, factors)


@partial(jax.jit, donate_argnums=0, static_argnames="places")
def _added(mixed: Params, params: Params, factors: Float[Array, "*points"], places: Places | None) -> Params:
    def added(params: Params, factors: Float[Array, "*points"], mixed: Params) -> Params:
        return jax.tree.map(lambda total, leaf: total + _times(factors, leaf), mixed, params)

    return _on_each_device(added, places, params, factors, mixed)


def _on_each_device(
    program: Callable[..., Params],
    places: Places | None,
    params: Params,
    factors: Float[Array, "*points"],
    *mixed: Params,
) -> Params:
    """Returns what a program makes of a model, its factors and perhaps points, each device of its own parts of them.

    No device needs anything from another. Left to itself, the compiler shares factors between leaves and moves them.
    """
    if places is None:
        return program(params, factors, *mixed)
    form = jax.tree.structure(params)
    leading = (*places.points, *[None] * (factors.ndim - len(places.points)))
    points = jax.tree.unflatten(form, [PartitionSpec(*leading, *spec) for spec in places.leaves])
    given = (jax.tree.unflatten(form, places.leaves), places.points, *[points for _ in mixed])
    parts = jax.shard_map(program, mesh=places.mesh, in_specs=given, out_specs=points, check_vma=False)
    return parts(params, factors, *mixed)


def _times(factors: Float[Array, "*points"], leaf: AnyArray) -> Array:
    return factors.reshape(factors.shape + (1,) * leaf.ndim) * leaf


def task_vector(params: Params, base: Params) -> Params:
    """Returns the task vector ``params - base``, leaf by leaf.

    Args:
      params: parameters of a fine-tuned model.
      base: parameters of its base, with the same leaves.
    """
    return jax.tree.map(jnp.subtract, params, base)
