"""Cosines, norms, distances and hulls, computed from the Gram matrix of a population alone.

``Region.gram`` holds that matrix; ``wsr.geometry.similarity`` computes it.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64


def cosine(gram_matrix: Float64[np.ndarray, "members members"]) -> Float64[np.ndarray, "members members"]:
    """Returns the cosine similarity of every pair of task vectors; a member equal to the base has 0 with all others.

    Args:
      gram_matrix: inner products of the task vectors.

    Returns:
      Cosines between -1 and 1, with ones on the diagonal.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry import gram
      >>> gram.cosine(np.array([[4.0, 1.0], [1.0, 1.0]])).tolist()
      [[1.0, 0.5], [0.5, 1.0]]
    """
    norms = np.sqrt(np.diag(gram_matrix))
    scale = np.where(norms > 0, norms, 1.0)
    similarity = gram_matrix / np.outer(scale, scale)
    np.fill_diagonal(similarity, 1.0)
    return np.clip(similarity, -1.0, 1.0)


def norms(gram_matrix: Float64[np.ndarray, "members members"]) -> Float64[np.ndarray, " members"]:
    """Returns the length of each task vector: the distance of each member from the base.

    Args:
      gram_matrix: inner products of the task vectors.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry import gram
      >>> gram.norms(np.array([[4.0, 1.0], [1.0, 1.0]])).tolist()
      [2.0, 1.0]
    """
    return np.sqrt(np.diag(gram_matrix))


def distance(
    gram_matrix: Float64[np.ndarray, "members members"],
    first: Float64[np.ndarray, " members"],
    second: Float64[np.ndarray, " members"],
) -> float:
    """Returns the Euclidean distance between two points in weight space.

    Args:
      gram_matrix: inner products of the members' task vectors.
      first: coefficients of the first point over the members.
      second: coefficients of the second point.

    Example:
      The centroid of two orthogonal task vectors of length 2 lies ``sqrt(2)`` from each of them.

      >>> import numpy as np
      >>> from wsr.geometry import gram
      >>> orthogonal = 4.0 * np.eye(2)
      >>> round(gram.distance(orthogonal, np.array([0.5, 0.5]), np.array([1.0, 0.0])), 4)
      1.4142
    """
    between = first - second
    return float(np.sqrt(max(between @ gram_matrix @ between, 0.0)))


def hull_distance(
    gram_matrix: Float64[np.ndarray, "members members"],
    point: Float64[np.ndarray, " members"],
    corners: Sequence[int],
) -> tuple[float, Float64[np.ndarray, " corners"]]:
    """Returns the distance from a point to the convex hull of some members, and the weights of the nearest point.

    Minimises ``||A w||`` over weights ``w >= 0`` that sum to 1, where the columns of A are the corners minus the point.
    With ``w = u / sum(u)``, that is the non-negative least squares problem of ``||A u||^2 + (sum(u) - 1)^2``: scaling
    ``u`` freely turns this into ``||A w||^2 / (1 + ||A w||^2)``. The active-set method (Lawson and Hanson 1974) solves
    it exactly, also when one corner is far longer than the others. The Gram matrix suffices; no parameters are read.

    Args:
      gram_matrix: inner products of the members' task vectors.
      point: coefficients of the point over all members.
      corners: indices of the members that span the hull.

    Returns:
      The Euclidean distance, and the weight of each corner in the nearest point of the hull; the weights sum to 1.

    Example:
      The base (all coefficients 0) lies outside the hull of two orthogonal task vectors; the middle is nearest.

      >>> import numpy as np
      >>> from wsr.geometry import gram
      >>> distance, weights = gram.hull_distance(4.0 * np.eye(2), np.zeros(2), [0, 1])
      >>> round(distance, 4), weights.round(4).tolist()
      (1.4142, [0.5, 0.5])
    """
    from scipy.optimize import nnls

    chosen = np.asarray(corners)
    apart = np.zeros((len(chosen), len(gram_matrix)))
    apart[np.arange(len(chosen)), chosen] = 1
    apart -= point
    products = apart @ gram_matrix @ apart.T
    scale = float(np.median(np.diag(products)))
    values, vectors = np.linalg.eigh(products / (scale if scale > 0 else 1.0))
    rows = np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T  # rows.T @ rows are the products
    found = nnls(
        np.vstack([rows, np.ones(len(chosen))]), np.append(np.zeros(len(chosen)), 1.0), maxiter=100 * len(chosen)
    )[0]
    weights = found / found.sum()
    nearest = np.zeros(len(gram_matrix))
    nearest[chosen] = weights
    return distance(gram_matrix, point, nearest), weights
