"""Where coefficients meet weights, and what the Gram matrix of a population (``wsr.similarity``) answers.

Everything here is about encoders; heads belong to datasets and have no place in weight space.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64

from wsr.placement import placed
from wsr.types import AnyArray, Params


def combine(base: Params, members: Params, coefficients: Float[Array, "*points members"]) -> Params:
    """Returns the points ``base + sum_k coefficients[..., k] * task_vector_k``.

    It is computed as ``(1 - sum_k c_k) * base + sum_k c_k * member_k``, the same point, which gives back the base
    (all coefficients 0) and each member (a single coefficient of 1) bit for bit.

    Args:
      base: the checkpoint the members were fine-tuned from.
      members: leaves stacked as ``[members, ...]``, see ``wsr.trees.stack``.
      coefficients: one row for each point.

    Returns:
      Params whose leaves are ``[*points, ...]``, float32.
    """
    rest = 1.0 - coefficients.sum(axis=-1)

    def leaf(base_leaf: AnyArray, member_leaves: AnyArray) -> Array:
        # HIGHEST: TPUs and recent GPUs otherwise multiply float32 in bfloat16 or TF32.
        mixed = jnp.tensordot(coefficients, member_leaves, axes=1, precision=jax.lax.Precision.HIGHEST)
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


def cosine(gram_matrix: Float64[np.ndarray, "members members"]) -> Float64[np.ndarray, "members members"]:
    """Cosine similarity of whole task vectors. A member that equals the base has similarity 0 with every other."""
    norms = np.sqrt(np.diag(gram_matrix))
    scale = np.where(norms > 0, norms, 1.0)
    similarity = gram_matrix / np.outer(scale, scale)
    np.fill_diagonal(similarity, 1.0)
    return np.clip(similarity, -1.0, 1.0)


def norms(gram_matrix: Float64[np.ndarray, "members members"]) -> Float64[np.ndarray, " members"]:
    """Lengths of the task vectors."""
    return np.sqrt(np.diag(gram_matrix))


def distance(
    gram_matrix: Float64[np.ndarray, "members members"],
    first: Float64[np.ndarray, " members"],
    second: Float64[np.ndarray, " members"],
) -> float:
    """Euclidean distance between two points given by their coefficients over the members."""
    between = first - second
    return float(np.sqrt(max(between @ gram_matrix @ between, 0.0)))


def hull_distance(
    gram_matrix: Float64[np.ndarray, "members members"],
    point: Float64[np.ndarray, " members"],
    corners: Sequence[int],
) -> tuple[float, Float64[np.ndarray, " corners"]]:
    """Returns the distance from a point to the convex hull of some members, and the nearest point's weights.

    Minimises ``||point - sum_k w_k corner_k||`` over the simplex by accelerated projected gradients (FISTA, Beck and
    Teboulle 2009); all it needs is the Gram matrix.

    Args:
      gram_matrix: of all members involved.
      point: coefficients of the point over all members.
      corners: which members span the hull.
    """
    chosen = np.asarray(corners)
    # The weights sum to 1, so the origin may be the centroid of the corners: what these have in common would only slow
    # the descent.
    hessian, linear = gram_matrix[np.ix_(chosen, chosen)], gram_matrix[chosen] @ point
    rows = hessian.mean(axis=1)
    linear = linear - linear.mean() - rows + rows.mean()
    hessian = hessian - rows[:, None] - rows[None, :] + rows.mean()
    lipschitz = max(float(np.linalg.eigvalsh(hessian)[-1]), np.finfo(float).tiny)
    weights = momentum = np.full(len(chosen), 1 / len(chosen))
    inertia = 1.0
    for _ in range(10_000):
        moved = _onto_simplex(momentum - (hessian @ momentum - linear) / lipschitz)
        if (momentum - moved) @ (moved - weights) > 0:  # O'Donoghue and Candes 2015: restart when it overshoots
            inertia, momentum = 1.0, weights
            continue
        following = (1 + np.sqrt(1 + 4 * inertia**2)) / 2
        momentum = moved + (inertia - 1) / following * (moved - weights)
        step = np.abs(moved - weights).max()
        weights, inertia = moved, following
        if step < 1e-12:
            break
    nearest = np.zeros(len(gram_matrix))
    nearest[chosen] = weights
    return distance(gram_matrix, point, nearest), weights


def _onto_simplex(vector: np.ndarray) -> np.ndarray:
    """Euclidean projection onto the probability simplex (Held, Wolfe and Crowder 1974)."""
    ordered = np.sort(vector)[::-1]
    excess = (np.cumsum(ordered) - 1) / np.arange(1, len(vector) + 1)
    return np.maximum(vector - excess[ordered > excess][-1], 0.0)
