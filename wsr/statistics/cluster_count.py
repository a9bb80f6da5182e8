"""Estimates the number of clusters of a population, by silhouette and by eigengap."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wsr.runtime import seeds
from wsr.statistics.clustering import check_similarity, dendrogram

MOST = 30
"""The largest number of clusters that is tried."""
DRAWS, DRAWS_OF_MANY, MANY = 99, 19, 60
"""Populations without clusters; ``DRAWS_OF_MANY`` from ``MANY`` models on, where each is slow."""
ROUNDING = 1e-9
"""Silhouettes closer than this are equal."""
FEWEST_TO_TEST = 8
"""Fewer models allow no test: six models along a continuum form two or three groups by chance too often."""


@dataclass(frozen=True)
class ClusterCount:
    """Numbers of clusters by two criteria, and the one to use."""

    by_silhouette: int
    """The number with the largest mean silhouette."""
    by_eigengap: int
    """The number with the largest eigengap."""
    silhouettes: Mapping[int, float]
    """Mean silhouette of average linkage for each number of clusters, from 2 on."""
    eigengaps: Mapping[int, float]
    """For each number k from 1 on, the gap between eigenvalues k and k + 1; see ``eigengaps``."""
    p_value: float | None
    """Share of populations without clusters that have a silhouette at least as good, see ``count_clusters``; None for
    too few models."""

    @property
    def used(self) -> int:
        """The number by silhouette, or 1 if it is not better than chance (``p_value`` above 0.05)."""
        return 1 if self.p_value is not None and self.p_value > 0.05 else self.by_silhouette


def count_clusters(similarity: Float[np.ndarray, "models models"], *, seed: int = 0) -> ClusterCount:
    """Returns the number of clusters of a population, by two criteria.

    Any matrix has a best silhouette, even without clusters, and so has a chain of models in which each resembles the
    next. So the best silhouette is tested against populations without clusters: models at random places of one
    continuum, whose cosines fall with the distance as they do here, with the same noise.

    Args:
      similarity: cosines of the task vectors.
      seed: seed of the permutations.

    Raises:
      WsrError: if the matrix is not a valid similarity; see ``wsr.statistics.clustering.check_similarity``.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.cluster_count import count_clusters
      >>> groups = np.repeat([0, 1, 2], 4)
      >>> similarity = np.where(groups[:, None] == groups, 0.5, 0.0)
      >>> np.fill_diagonal(similarity, 1.0)
      >>> count_clusters(similarity).used
      3
    """
    matrix = check_similarity(similarity)
    of_silhouette, of_gap = silhouettes(matrix), eigengaps(matrix)
    best = _best(of_silhouette)
    return ClusterCount(best, _best(of_gap), of_silhouette, of_gap, _p_value(matrix, of_silhouette, seed))


def silhouettes(similarity: Float[np.ndarray, "models models"]) -> dict[int, float]:
    """Returns the mean silhouette of average-linkage clusters, for each number of clusters from 2 on.

    The silhouette of a model is ``(b - a) / max(a, b)``, where a is its mean distance (1 - cosine) to the rest of its
    cluster and b that to the nearest other cluster; it is 0 for a cluster of one model (Rousseeuw, Silhouettes, 1987).

    Args:
      similarity: cosines of the task vectors.
    """
    matrix = check_similarity(similarity)
    tree = dendrogram(matrix)
    tried = range(2, min(MOST, len(matrix) - 1) + 1)
    return {clusters: float(silhouette(matrix, tree.cut(clusters)).mean()) for clusters in tried}


def silhouette(
    similarity: Float[np.ndarray, "models models"], labels: Int[np.ndarray, " models"]
) -> Float[np.ndarray, " models"]:
    """Returns the silhouette of each model; all are 0 if there is only one cluster.

    Args:
      similarity: cosines of the task vectors.
      labels: the cluster of each model.
    """
    distance = np.clip(1 - np.asarray(similarity, np.float64), 0.0, None)
    _, own = np.unique(labels, return_inverse=True)
    inside = np.eye(own.max() + 1)[own]  # [models, clusters]
    sizes = inside.sum(axis=0)
    if len(sizes) == 1:
        return np.zeros(len(own))
    sums = distance @ inside
    rows = np.arange(len(own))
    company = sizes[own] - 1
    near = sums[rows, own] / np.maximum(company, 1)
    means = sums / sizes
    means[rows, own] = np.inf
    far = means.min(axis=1)
    larger = np.maximum(near, far)
    return np.where((company > 0) & (larger > 0), (far - near) / np.where(larger > 0, larger, 1.0), 0.0)


def eigengaps(similarity: Float[np.ndarray, "models models"]) -> dict[int, float]:
    """Returns, for each number k of clusters, the gap between eigenvalues k and k + 1 of the normalised Laplacian.

    The Laplacian is ``L = I - D^(-1/2) W D^(-1/2)`` with weights ``W = max(cosine, 0)`` and degrees D. If k clusters
    have no similarity to one another, k eigenvalues are 0. The diagonal of W is 1, so a model that resembles no other
    is its own cluster (von Luxburg, A tutorial on spectral clustering, 2007, section 8.3).

    Args:
      similarity: cosines of the task vectors.
    """
    weights = np.clip(check_similarity(similarity), 0.0, None)
    scale = 1 / np.sqrt(weights.sum(axis=1))
    values = np.linalg.eigvalsh(np.eye(len(weights)) - scale[:, None] * weights * scale[None, :])
    gaps = np.diff(values)[:MOST]
    return {clusters: float(gap) for clusters, gap in enumerate(gaps, start=1)}


def _best(values: Mapping[int, float]) -> int:
    return max(values, key=lambda clusters: values[clusters]) if values else 1


def _p_value(matrix: np.ndarray, observed: Mapping[int, float], seed: int) -> float | None:
    """Returns the p-value of the best silhouette among those of populations along one continuum."""
    models = len(matrix)
    if models < FEWEST_TO_TEST:
        return None
    draw = seeds.generator(seed, "populations without clusters")
    order = _along_the_continuum(matrix)
    first, second = np.triu_indices(models, 1)
    cosines, apart = matrix[order[first], order[second]], second - first
    trend = np.bincount(apart, cosines)[1:] / np.bincount(apart)[1:]  # mean cosine at each distance, from 1 on
    noise = cosines - trend[apart - 1]
    at_no_distance = np.clip(2 * trend[0] - trend[1], trend[0], 1.0)
    best, as_good = max(observed.values()) - ROUNDING, 0
    draws = DRAWS if models < MANY else DRAWS_OF_MANY
    for _ in range(draws):
        places = np.sort(draw.uniform(0, models - 1, models))
        expected = np.interp(places[second] - places[first], np.arange(models), [at_no_distance, *trend])
        drawn = np.eye(models)
        drawn[first, second] = np.clip(expected + draw.permutation(noise), -1, 1)
        as_good += max(silhouettes(drawn + drawn.T - np.eye(models)).values()) >= best
    return (1 + as_good) / (1 + draws)


def _along_the_continuum(matrix: np.ndarray) -> Int[np.ndarray, " models"]:
    """Returns the models in the order of their entries in the Fiedler vector of the cosines, shifted to begin at 0
    (Atkins, Boman and Hendrickson, A spectral algorithm for seriation, 1998)."""
    weights = matrix - matrix.min()
    np.fill_diagonal(weights, 0.0)
    scale = 1 / np.sqrt(np.maximum(weights.sum(axis=1), np.finfo(float).tiny))
    laplacian = np.eye(len(weights)) - scale[:, None] * weights * scale[None, :]
    return np.argsort(np.linalg.eigh(laplacian)[1][:, 1] * scale, kind="stable")
