"""How many clusters a population falls into when nobody says: by silhouette, and by the eigengap."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wsr.runtime import seeds
from wsr.statistics.clustering import check_similarity, dendrogram

MOST = 30
"""Clusters that are tried at most."""
DEALS, DEALS_OF_MANY, MANY = 99, 19, 60
"""Deals of the cosines, and how many from so many models on, where each takes its time."""
FEWEST_TO_DEAL = 5
"""Models from which cosines dealt out anew can tell anything: four models fall into two pairs by chance too often."""


@dataclass(frozen=True)
class ClusterCount:
    """Numbers of clusters by two criteria, and the one to use."""

    by_silhouette: int
    by_eigengap: int
    silhouettes: Mapping[int, float]
    """Mean silhouette of average linkage by number of clusters, from 2 on."""
    eigengaps: Mapping[int, float]
    """The gap above the eigenvalue of that number, from 1 on."""
    p_value: float | None
    """The share of deals of the same cosines to other pairs with as good a silhouette; None for too few models."""

    @property
    def used(self) -> int:
        """The number by silhouette; 1 where deals of the same cosines do as well (5 %)."""
        return 1 if self.p_value is not None and self.p_value > 0.05 else self.by_silhouette


def count_clusters(similarity: Float[np.ndarray, "models models"], *, seed: int = 0) -> ClusterCount:
    """Returns how many clusters a population falls into.

    A silhouette is defined from two clusters on and for any matrix at all. So the best one is held to those of the same
    cosines dealt out to other pairs at random: a population without clusters does not beat them.
    """
    matrix = check_similarity(similarity)
    of_silhouette, of_gap = silhouettes(matrix), eigengaps(matrix)
    best = _best(of_silhouette)
    return ClusterCount(best, _best(of_gap), of_silhouette, of_gap, _dealt(matrix, of_silhouette, seed))


def silhouettes(similarity: Float[np.ndarray, "models models"]) -> dict[int, float]:
    """Returns the mean silhouette on 1 - cosine of average linkage for each number of clusters from 2 on.

    Of a model with mean distance ``a`` to its own cluster and ``b`` to the nearest other it is
    ``(b - a) / max(a, b)``, and 0 where it is alone. Source: Rousseeuw, Silhouettes, 1987.
    """
    matrix = check_similarity(similarity)
    tree = dendrogram(matrix)
    tried = range(2, min(MOST, len(matrix) - 1) + 1)
    return {clusters: float(silhouette(matrix, tree.cut(clusters)).mean()) for clusters in tried}


def silhouette(
    similarity: Float[np.ndarray, "models models"], labels: Int[np.ndarray, " models"]
) -> Float[np.ndarray, " models"]:
    """Returns the silhouette of each model in its cluster; 0 everywhere where there is one cluster only."""
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

    ``L = I - D^(-1/2) W D^(-1/2)`` with weights ``W = max(cosine, 0)`` and degrees D; k clusters without ties to one
    another have k eigenvalues of 0. The diagonal of W is 1, so that a model that is like no other is a cluster of its
    own. Source: von Luxburg, A tutorial on spectral clustering, 2007, section 8.3.
    """
    weights = np.clip(check_similarity(similarity), 0.0, None)
    scale = 1 / np.sqrt(weights.sum(axis=1))
    values = np.linalg.eigvalsh(np.eye(len(weights)) - scale[:, None] * weights * scale[None, :])
    gaps = np.diff(values)[:MOST]
    return {clusters: float(gap) for clusters, gap in enumerate(gaps, start=1)}


def _best(values: Mapping[int, float]) -> int:
    return max(values, key=lambda clusters: values[clusters]) if values else 1


def _dealt(matrix: np.ndarray, observed: Mapping[int, float], seed: int) -> float | None:
    """The p-value of the best silhouette among those of the same cosines dealt out to other pairs."""
    if len(matrix) < FEWEST_TO_DEAL:
        return None
    draw = seeds.generator(seed, "cosines dealt out")
    pairs = np.triu_indices(len(matrix), 1)
    best, as_good = max(observed.values()), 0
    deals = DEALS if len(matrix) < MANY else DEALS_OF_MANY
    for _ in range(deals):
        dealt = np.eye(len(matrix))
        dealt[pairs] = draw.permutation(matrix[pairs])
        as_good += max(silhouettes(dealt + dealt.T - np.eye(len(matrix))).values()) >= best
    return (1 + as_good) / (1 + deals)
