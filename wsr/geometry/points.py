"""Turns coefficients into parameters: the points of weight space.

Only encoders are combined. A head belongs to one dataset and is never part of a point.
"""

from collections.abc import Callable, Iterable
from functools import partial, reduce
from itertools import chain, islice
from operator import add
from typing import Any, NamedTuple

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


def combine_in_blocks(
    base: Params,
    members: Iterable[Params],
    coefficients: Float[np.ndarray, "*points members"],
    *,
    block: int = 1,
    ahead: bool = False,
    sharding: jax.sharding.Sharding | None = None,
) -> Params:
    """Returns the same points as ``combine``, with few members in memory at a time.

    The base and the members are added in their order, several of them by one program, so that the points are read and
    written less often. Few programs serve any number of members: a block holds 1, 2, 4, ... models. If the base is cut
    over devices, members must be cut alike, and so are the points.

    Args:
      base: parameters of the checkpoint that the members were fine-tuned from.
      members: one per column of ``coefficients``, in the same order.
      coefficients: one row per point, one column per member.
      block: largest number of models that one program adds. More of them may change the rounding of the sums.
      ahead: whether a block is loaded while the one before is added, so that two are in memory; the function then
        returns before the last one is added.
      sharding: how points are laid out over several devices; None for a single device.

    Returns:
      Parameters with leaves ``[*points, ...]``, float32.
    """
    rest = 1.0 - coefficients.sum(axis=-1, keepdims=True)
    factors = np.concatenate([rest, coefficients], axis=-1).astype(np.float32)
    places, models = _places_of(base, sharding), chain([base], members)
    mixed: Any = None
    done, count = 0, factors.shape[-1]
    while done < count:
        size = 2 ** (min(block, count - done).bit_length() - 1)
        together = tuple(islice(models, size))
        if ahead:
            jax.block_until_ready(mixed)  # the block before is free
        own = placed(factors[..., done : done + size], sharding)
        mixed = _added(mixed, together, own, places)
        if not ahead:
            jax.block_until_ready(mixed)
        del together  # frees them before the next ones are loaded
        done += size
    return mixed


def add_low_rank(
    points: Params,
    changes: Iterable[LowRank],
    coefficients: Float[np.ndarray, "*points members"],
    *,
    ahead: bool = False,
    sharding: jax.sharding.Sharding | None = None,
) -> Params:
    """Returns ``points + sum_k coefficients[..., k] * a_k b_k``, with one product of a leaf in memory at a time.

    Args:
      points: parameters with leaves ``[*points, ...]``, float32; their memory is taken over.
      changes: the factors of one member per column of ``coefficients``, in the same order.
      coefficients: one row per point, one column per member.
      ahead: whether the function returns before the products are added.
      sharding: how points are laid out over several devices; None for a single device.
    """
    leaves = flatten(points)
    for number, change in enumerate(changes):
        scales = placed(np.asarray(coefficients[..., number], np.float32), sharding)
        for path, own in change.items():
            place = leaves[path].sharding
            leaves[path] = _moved(leaves[path], own.a, own.b, scales, place)
            if not ahead:
                jax.block_until_ready(leaves[path])
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


@partial(jax.jit, donate_argnums=0, static_argnames="places")
def _added(
    mixed: Params | None,
    models: tuple[Params, ...],
    factors: Float[Array, "*points models"],
    places: Places | None,
) -> Params:
    """Returns ``mixed + sum_k factors[..., k] * models[k]``, summed in this order; None counts as nothing."""

    def added(models: tuple[Params, ...], factors: Float[Array, "*points models"], *mixed: Params) -> Params:
        def leaf(*leaves: AnyArray) -> Array:
            # Not a product of stacked members: to stack them copies them, which a TPU's compiler expects to be slower.
            terms = (_times(factors[..., number], own) for number, own in enumerate(leaves[: len(models)]))
            return jnp.asarray(reduce(add, chain(leaves[len(models) :], terms)))

        return jax.tree.map(leaf, *models, *mixed)

    return _on_each_device(added, places, models, factors, *[] if mixed is None else [mixed])


def _on_each_device(
    program: Callable[..., Params],
    places: Places | None,
    models: tuple[Params, ...],
    factors: Float[Array, "*points models"],
    *mixed: Params,
) -> Params:
    """Returns what a program makes of models, their factors and perhaps points, each device of its own parts of them.

    No device needs anything from another. Left to itself, the compiler shares factors between leaves and moves them.
    """
    if places is None:
        return program(models, factors, *mixed)
    form = jax.tree.structure(models[0])
    leading = (*places.points, *[None] * (factors.ndim - 1 - len(places.points)))
    points = jax.tree.unflatten(form, [PartitionSpec(*leading, *spec) for spec in places.leaves])
    model = jax.tree.unflatten(form, places.leaves)
    given = (tuple(model for _ in models), places.points, *[points for _ in mixed])
    parts = jax.shard_map(program, mesh=places.mesh, in_specs=given, out_specs=points, check_vma=False)
    return parts(models, factors, *mixed)


def _times(factors: Float[Array, "*points"], leaf: AnyArray) -> Array:
    return factors.reshape(factors.shape + (1,) * leaf.ndim) * leaf


def task_vector(params: Params, base: Params) -> Params:
    """Returns the task vector ``params - base``, leaf by leaf.

    Args:
      params: parameters of a fine-tuned model.
      base: parameters of its base, with the same leaves.
    """
    return jax.tree.map(jnp.subtract, params, base)
