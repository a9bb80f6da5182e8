"""Clusters models by the cosine similarity of their task vectors, scores clusters against labels, draws maps.

``wsr.statistics.cluster_count`` estimates the number of clusters.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from wsr.errors import WsrError

SYMMETRY_TOLERANCE = 1e-4
DIAGONAL_TOLERANCE = 1e-3
FEWEST_FOR_TSNE = 4


@dataclass(frozen=True)
class ClusterScores:
    """Agreement of clusters with known labels."""

    one_to_one_accuracy: float
    """Share of models labelled correctly if each cluster stands for a different label, in the best such assignment."""
    majority_accuracy: float
    """Share of models labelled correctly if each cluster stands for the most frequent label of its models."""
    adjusted_rand: float
    """Adjusted Rand index of clusters and labels."""
    f1: dict[str, float]
    """F1 score of each label under the majority labelling; 0 for a label that no cluster stands for."""


def spectral(
    similarity: Float[np.ndarray, "models models"], clusters: int, seed: int = 0
) -> Int[np.ndarray, " models"]:
    """Returns the cluster of each model by the paper's recipe: spectral clustering with discretised labels.

    If any similarity s is negative, all are first mapped to ``(s + 1) / 2``, as in the paper's released code.

    Args:
      similarity: cosines of the task vectors.
      clusters: number of clusters.
      seed: seed of the discretisation; the paper uses 0.

    Raises:
      WsrError: if the matrix is not a valid similarity, or has fewer models than clusters.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics import clustering
      >>> groups = np.repeat([0, 1], 3)
      >>> similarity = np.where(groups[:, None] == groups, 0.5, 0.0)
      >>> np.fill_diagonal(similarity, 1.0)
      >>> found = clustering.spectral(similarity, 2)
      >>> clustering.scores(["a"] * 3 + ["b"] * 3, found).one_to_one_accuracy
      1.0
    """
    return _spectral(lifted(check_similarity(similarity, clusters=clusters)), clusters, seed)


def spectral_clipped(
    similarity: Float[np.ndarray, "models models"], clusters: int, seed: int = 0
) -> Int[np.ndarray, " models"]:
    """Returns the cluster of each model by spectral clustering, with negative similarities set to 0.

    ``spectral`` maps cosines near 0 to about 1/2. All pairs are then nearly alike, and the clusters depend more on
    balanced sizes than on similarity. Clipping avoids this.

    Args:
      similarity: cosines of the task vectors.
      clusters: number of clusters.
      seed: seed of the discretisation.

    Raises:
      WsrError: if the matrix is not a valid similarity, or has fewer models than clusters.
    """
    return _spectral(np.maximum(check_similarity(similarity, clusters=clusters), 0.0), clusters, seed)


def lifted(similarity: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    """Returns the affinities of the paper's released code: ``(s + 1) / 2`` if any similarity s is negative, else s."""
    return (similarity + 1) / 2 if np.any(similarity < 0) else similarity


def normalised_cut(affinity: Float[np.ndarray, "models models"], clusters: Int[np.ndarray, " models"]) -> float:
    """Returns the normalised cut, which spectral clustering minimises: the sum over clusters A of cut(A) / volume(A).

    cut(A) is the affinity between A and all other models, volume(A) the affinity between A and all models (Shi and
    Malik 2000, Normalized Cuts and Image Segmentation, equation 2).

    Args:
      affinity: non-negative affinities of all pairs of models.
      clusters: the cluster of each model.
    """
    groups = [clusters == one for one in np.unique(clusters)]
    return float(sum(affinity[own][:, ~own].sum() / affinity[own].sum() for own in groups))


def _spectral(affinity: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    if clusters in (1, len(affinity)):  # the eigensolver refuses both
        return np.arange(len(affinity)) % clusters
    method = SpectralClustering(clusters, affinity="precomputed", assign_labels="discretize", random_state=seed)
    with warnings.catch_warnings():  # clipped affinities may leave groups unconnected
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        return method.fit_predict(affinity).astype(np.int64)


def average_linkage(similarity: Float[np.ndarray, "models models"], clusters: int) -> Int[np.ndarray, " models"]:
    """Returns the cluster of each model by average-linkage clustering of the distance 1 - cosine.

    Args:
      similarity: cosines of the task vectors.
      clusters: number of clusters.

    Raises:
      WsrError: if the matrix is not a valid similarity, or has fewer models than clusters.
    """
    from sklearn.cluster import AgglomerativeClustering

    matrix = check_similarity(similarity, clusters=clusters)
    if clusters == len(matrix):  # also a single model, which scikit-learn refuses
        return np.arange(len(matrix))
    method = AgglomerativeClustering(clusters, metric="precomputed", linkage="average")
    return method.fit_predict(_distance(matrix)).astype(np.int64)


@dataclass(frozen=True)
class Merge:
    """One merge of two branches of a dendrogram. The n models are branches 0 to n - 1; merge m makes branch n + m."""

    left: int
    right: int
    height: float
    """Mean distance, 1 - cosine, between the models of the two branches."""


@dataclass(frozen=True)
class Dendrogram:
    """The tree of average linkage: its merges, the nearest branches first."""

    merges: tuple[Merge, ...]

    @cached_property
    def order(self) -> list[int]:
        """The models, ordered so that no two branches cross when the tree is drawn."""
        return self.models_of(2 * len(self.merges))

    def models_of(self, branch: int) -> list[int]:
        """Returns the models of a branch, in that order."""
        models, waiting = [], [branch]
        while waiting:
            top = waiting.pop()
            if top <= len(self.merges):
                models.append(top)
            else:
                merge = self.merges[top - len(self.merges) - 1]
                waiting += [merge.right, merge.left]
        return models

    def cut(self, clusters: int) -> Int[np.ndarray, " models"]:
        """Returns the cluster of each model if the tree is cut into ``clusters``; numbered from 0 along ``order``."""
        count = len(self.merges) + 1
        branch = np.arange(count)
        for number, merge in enumerate(self.merges[: count - clusters]):
            branch[(branch == merge.left) | (branch == merge.right)] = count + number
        place = {own: number for number, own in enumerate(dict.fromkeys(branch[self.order].tolist()))}
        return np.array([place[own] for own in branch.tolist()])

    def height_of(self, clusters: int) -> float:
        """Returns a height, midway between two merges, at which the tree falls into ``clusters``."""
        heights = [0.0, *(merge.height for merge in self.merges)]
        below = len(heights) - clusters
        above = heights[below + 1] if clusters > 1 else 1.05 * heights[-1]
        return (heights[below] + above) / 2


def dendrogram(similarity: Float[np.ndarray, "models models"]) -> Dendrogram:
    """Returns the average-linkage tree of the distance 1 - cosine.

    Args:
      similarity: cosines of the task vectors.

    Raises:
      WsrError: if the matrix is not a valid similarity.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distance = _distance(check_similarity(similarity))
    if len(distance) == 1:
        return Dendrogram(())
    rows = linkage(squareform(distance, checks=False), method="average")
    return Dendrogram(tuple(Merge(int(left), int(right), float(height)) for left, right, height, _ in rows))


def scores(truth: Sequence[str], labels: Int[np.ndarray, " models"]) -> ClusterScores:
    """Returns how well clusters agree with the known labels of the models.

    Args:
      truth: the label of each model.
      labels: the cluster of each model, any integers.

    Raises:
      WsrError: if there are no models, or not one label per model.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics import clustering
      >>> clustering.scores(["nli", "nli", "topic"], np.array([0, 0, 1])).majority_accuracy
      1.0
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score

    if len(truth) != len(labels) or not len(truth):
        raise WsrError(f"clustering: expected one label per model, found {len(truth)} labels and {len(labels)} models")
    names, true_ids = np.unique(np.asarray(truth, dtype=str), return_inverse=True)
    _, cluster_ids = np.unique(labels, return_inverse=True)
    counts = np.zeros((cluster_ids.max() + 1, len(names)), np.int64)  # [clusters, labels]
    np.add.at(counts, (cluster_ids, true_ids), 1)
    assigned = counts[linear_sum_assignment(counts, maximize=True)].sum()
    predicted = counts.argmax(axis=1)[cluster_ids]
    f1 = {}
    for index, name in enumerate(names):
        hits = np.sum((predicted == index) & (true_ids == index))
        f1[str(name)] = float(2 * hits / (np.sum(predicted == index) + np.sum(true_ids == index)))
    return ClusterScores(
        one_to_one_accuracy=float(assigned / len(truth)),
        majority_accuracy=float(np.mean(predicted == true_ids)),
        adjusted_rand=float(adjusted_rand_score(true_ids, cluster_ids)),
        f1=f1,
    )


def tsne(similarity: Float[np.ndarray, "models models"], *, seed: int = 0) -> Float[np.ndarray, "models 2"]:
    """Returns a position in the plane for each model, by t-SNE of the distance 1 - cosine.

    Fewer than ``FEWEST_FOR_TSNE`` models are placed by classical multidimensional scaling instead, which for them is
    exact.

    Args:
      similarity: cosines of the task vectors.
      seed: seed of the initial positions.

    Raises:
      WsrError: if the matrix is not a valid similarity.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    matrix = check_similarity(similarity)
    if len(matrix) < FEWEST_FOR_TSNE:
        return _classical_scaling(_distance(matrix))
    perplexity = min(30.0, (len(matrix) - 1) / 3)
    method = TSNE(2, metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    with threadpool_limits(1):  # with more, its threads wait for each other: 20 s instead of 0.8 s
        return method.fit_transform(_distance(matrix)).astype(np.float64)


def check_similarity(
    similarity: Float[np.ndarray, "rows columns"],
    *,
    clusters: int = 1,
    names: Sequence[str] | None = None,
    source: str = "similarity",
) -> Float[np.ndarray, "models models"]:
    """Returns the matrix in float64, made exactly symmetric and with ones on its diagonal.

    Args:
      similarity: a square matrix of cosines.
      clusters: number of clusters to form of the models.
      names: names of the models, for error messages; None uses their indices.
      source: name of the matrix, for error messages.

    Raises:
      WsrError: naming the first wrong cell, if the matrix is not square, finite, symmetric and within [-1, 1], its
        diagonal is not 1, or there are fewer models than clusters.
    """
    matrix = np.asarray(similarity, np.float64)
    rows, columns = matrix.shape
    if rows != columns or not rows:
        raise WsrError(f"{source}: must be square, with one row and one column per model; found {rows} x {columns}")
    if not 1 <= clusters <= rows:
        raise WsrError(f"{source}: {rows} models cannot form {clusters} clusters; choose 1 to {rows}")

    def refuse_where(wrong: np.ndarray, must: str) -> None:
        if np.any(wrong):
            row, column = np.argwhere(wrong)[0]
            place = (names[row], names[column]) if names is not None else (row, column)
            raise WsrError(
                f"{source}: {must}, found {matrix[row, column]:g} at row {place[0]!s}, column {place[1]!s}"
                f" (and {matrix[column, row]:g} across the diagonal); {np.sum(wrong)} such cells"
            )

    refuse_where(~np.isfinite(matrix), "must be finite")
    diagonal = np.eye(rows, dtype=bool)
    refuse_where(diagonal & (np.abs(matrix - 1) > DIAGONAL_TOLERANCE), "the diagonal must be 1")
    refuse_where(np.abs(matrix - matrix.T) > SYMMETRY_TOLERANCE, "must be symmetric")
    refuse_where(np.abs(matrix) > 1 + DIAGONAL_TOLERANCE, "a cosine must lie between -1 and 1")
    return np.where(diagonal, 1.0, (matrix + matrix.T) / 2)


def _distance(matrix: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    return np.clip(1 - matrix, 0.0, None)  # rounding may leave a cosine above 1


def _classical_scaling(distance: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models 2"]:
    """Torgerson's scaling: eigenvectors of the doubly centred squared distances."""
    squared = np.square(distance)
    centred = squared - squared.mean(axis=0, keepdims=True)
    values, vectors = np.linalg.eigh(-0.5 * (centred - centred.mean(axis=1, keepdims=True)))
    places = (vectors * np.sqrt(np.maximum(values, 0)))[:, ::-1][:, :2]
    return np.pad(places, ((0, 0), (0, 2 - places.shape[1])))
