"""What the Gram matrix of a population (``wsr.geometry.similarity``) answers: cosines, norms, distances, hulls."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64


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
