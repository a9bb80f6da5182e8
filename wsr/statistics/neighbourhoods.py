"""Neighbours, clusters and positions in the plane of thousands of directions, without a matrix of all pairs."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from wsr.errors import WsrError

FEWEST = 5
"""Fewest models of a cluster."""
_COMPONENTS = 50
_TOGETHER = 1024  # directions whose cosines with all others are in memory at a time
_PERPLEXITY = 30.0


class Neighbourhoods(NamedTuple):
    """What is near what among some directions."""

    neighbours: Int[np.ndarray, "models count"]
    """The most similar others of each, best first."""
    cosines: Float32[np.ndarray, "models count"]
    """Their cosines."""
    clusters: Int[np.ndarray, " models"]
    """Cluster number of each, from 0; -1: in no cluster."""
    positions: Float[np.ndarray, "models 2"]
    """t-SNE: neighbourhoods are meaningful, distances and axes are not."""


def neighbourhoods(
    directions: Float32[np.ndarray, "models size"], *, count: int = 10, least: float = 0.0, seed: int = 0
) -> Neighbourhoods:
    """Returns the neighbours, clusters and positions of vectors of length 1.

    Clusters are those of HDBSCAN (Campello, Moulavi and Sander 2013) and positions those of t-SNE (van der Maaten
    2014), both on the first 50 principal components, which leave out most of the noise of sketches. HDBSCAN gives a
    lone model to the cluster that it happens to be nearest to; here it belongs to none.

    Args:
      directions: the vectors.
      count: number of neighbours; fewer if there are fewer others.
      least: a model whose nearest neighbour has a smaller cosine is in no cluster.
      seed: seed of the components and of t-SNE.

    Raises:
      WsrError: if there are fewer than two vectors.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.neighbourhoods import neighbourhoods
      >>> found = neighbourhoods(np.eye(3, dtype=np.float32)[[0, 1, 0]], count=1)
      >>> found.neighbours[:, 0].tolist()[0], found.clusters.tolist()
      (2, [-1, -1, -1])
    """
    if len(directions) < 2:
        raise WsrError(f"neighbourhoods: expected at least two models, found {len(directions)}")
    neighbours, cosines = nearest_others(directions, min(count, len(directions) - 1))
    components = _components(directions, seed)
    clusters = np.where(cosines[:, 0] < least, -1, _clusters(components))
    return Neighbourhoods(neighbours, cosines, clusters, _positions(components, seed))


def nearest_others(
    directions: Float32[np.ndarray, "models size"], count: int
) -> tuple[Int[np.ndarray, "models count"], Float32[np.ndarray, "models count"]]:
    """Returns the most similar others of each vector of length 1, best first, and their cosines.

    Args:
      directions: the vectors.
      count: number of others.
    """
    neighbours = np.empty((len(directions), count), np.int64)
    cosines = np.empty((len(directions), count), np.float32)
    for first in range(0, len(directions), _TOGETHER):
        own = slice(first, first + _TOGETHER)
        products = directions[own] @ directions.T
        rows = np.arange(len(products))[:, None]
        products[rows[:, 0], first + rows[:, 0]] = -np.inf  # itself
        best = np.argpartition(-products, count - 1, axis=1)[:, :count]
        order = np.argsort(-products[rows, best], axis=1, kind="stable")
        neighbours[own] = best[rows, order]
        cosines[own] = products[rows, neighbours[own]]
    return neighbours, cosines


def _components(directions: Float32[np.ndarray, "models size"], seed: int) -> Float32[np.ndarray, "models _"]:
    from sklearn.decomposition import PCA

    most = min(_COMPONENTS, *directions.shape)
    return PCA(most, svd_solver="randomized", random_state=seed).fit_transform(directions).astype(np.float32)


def _clusters(components: Float32[np.ndarray, "models _"]) -> Int[np.ndarray, " models"]:
    from sklearn.cluster import HDBSCAN

    if len(components) < 2 * FEWEST:
        return np.full(len(components), -1)
    return HDBSCAN(min_cluster_size=FEWEST, copy=True).fit_predict(components)


def _positions(components: Float32[np.ndarray, "models _"], seed: int) -> Float[np.ndarray, "models 2"]:
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(components) - 1) / 3)
    if components.shape[1] < 2 or perplexity < 1:
        return np.pad(components, ((0, 0), (0, 2)))[:, :2].astype(np.float64)
    placed = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)
    return placed.astype(np.float64)
