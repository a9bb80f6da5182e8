"""Where coefficients meet weights.

Everything here is about encoders; heads belong to datasets and have no place in weight space.
"""

from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wsr.geometry.linear_head import HIGHEST
from wsr.runtime.placement import placed
from wsr.types import AnyArray, Params


def combine(base: Params, members: Params, coefficients: Float[Array, "*points members"]) -> Params:
    """Returns the points ``base + sum_k coefficients[..., k] * task_vector_k``.

    It is computed as ``(1 - sum_k c_k) * base + sum_k c_k * member_k``, the same point, which gives back the base
    (all coefficients 0) and each member (a single coefficient of 1) bit for bit.

    Args:
      base: the checkpoint the members were fine-tuned from.
      members: leaves stacked as ``[members, ...]``, see ``wsr.geometry.trees.stack``.
      coefficients: one row for each point.

    Returns:
      Params whose leaves are ``[*points, ...]``, float32.
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
    """Returns the points of ``combine`` from members that come one after another.

    No member need be in memory longer than its turn takes, and one program serves any number of them.

    Args:
      base: the checkpoint the members were fine-tuned from.
      members: as many as there are columns, in their order.
      coefficients: one row for each point.
      sharding: how points lie on devices, where base and members are on several.
    """
    rest = np.asarray(1.0 - coefficients.sum(axis=-1), np.float32)
    mixed = _scaled(base, placed(rest, sharding))
    for number, member in enumerate(members):
        factors = placed(np.asarray(coefficients[..., number], np.float32), sharding)
        # Waits for each, or members would queue up on the device.
        mixed = jax.block_until_ready(_added(mixed, member, factors))
        del member  # it is not to lie beside the next
    return mixed


@jax.jit
def _scaled(params: Params, factors: Float[Array, "*points"]) -> Params:
    return jax.tree.map(lambda leaf: _times(factors, leaf), params)


@partial(jax.jit, donate_argnums=0)
def _added(mixed: Params, params: Params, factors: Float[Array, "*points"]) -> Params:
    return jax.tree.map(lambda total, leaf: total + _times(factors, leaf), mixed, params)


def _times(factors: Float[Array, "*points"], leaf: AnyArray) -> Array:
    return factors.reshape(factors.shape + (1,) * leaf.ndim) * leaf


def task_vector(params: Params, base: Params) -> Params:
    """Returns ``params - base``, leaf by leaf."""
    return jax.tree.map(jnp.subtract, params, base)
