"""Clusters of models from their similarity (cosine of task vectors), scores against known labels, 2-D maps.

How many clusters there are, where nobody says, is in ``wsr.statistics.cluster_count``.
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
    """Agreement of clusters with known labels.

    ``one_to_one_accuracy``: each cluster stands for another label, assigned as well as can be.
    ``majority_accuracy``: each cluster takes the label most of its models have, as in the paper's released code.
    ``f1``: per label, under the majority labelling; 0 for a label that no cluster takes.
    """

    one_to_one_accuracy: float
    majority_accuracy: float
    adjusted_rand: float
    f1: dict[str, float]


def spectral(
    similarity: Float[np.ndarray, "models models"], clusters: int, seed: int = 0
) -> Int[np.ndarray, " models"]:
    """Returns a cluster a model by the paper's recipe: spectral clustering, discretised, seed 0.

    Similarities are lifted to (s + 1) / 2 when any is negative, as in the paper's released code.
    """
    return _spectral(lifted(check_similarity(similarity, clusters=clusters)), clusters, seed)


def spectral_clipped(
    similarity: Float[np.ndarray, "models models"], clusters: int, seed: int = 0
) -> Int[np.ndarray, " models"]:
    """Returns a cluster a model by spectral clustering where a negative similarity is none.

    Lifting cosines near 0 to 1/2 leaves all pairs nearly alike, and a cut then pays for unequal sizes rather than for
    similarity that it severs.
    """
    return _spectral(np.maximum(check_similarity(similarity, clusters=clusters), 0.0), clusters, seed)


def lifted(similarity: Float[np.ndarray, "models models"]) -> Float[np.ndarray, "models models"]:
    """Returns the affinities of the paper's released code: (s + 1) / 2 when any similarity is negative, else s."""
    return (similarity + 1) / 2 if np.any(similarity < 0) else similarity


def normalised_cut(affinity: Float[np.ndarray, "models models"], clusters: Int[np.ndarray, " models"]) -> float:
    """Returns what spectral clustering makes small: over clusters A, sum of cut(A, rest) / volume(A).

    Shi and Malik 2000, Normalized Cuts and Image Segmentation, equation 2.
    """
    groups = [clusters == one for one in np.unique(clusters)]
    return float(sum(affinity[own][:, ~own].sum() / affinity[own].sum() for own in groups))


def _spectral(affinity: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    if clusters in (1, len(affinity)):  # the eigensolver wants something in between
        return np.arange(len(affinity)) % clusters
    method = SpectralClustering(clusters, affinity="precomputed", assign_labels="discretize", random_state=seed)
    with warnings.catch_warnings():  # of groups without any tie between them, which is how clipped ones may be
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        return method.fit_predict(affinity).astype(np.int64)


def average_linkage(similarity: Float[np.ndarray, "models models"], clusters: int) -> Int[np.ndarray, " models"]:
    """Returns a cluster a model by average-linkage clustering of 1 - cosine."""
    from sklearn.cluster import AgglomerativeClustering

    matrix = check_similarity(similarity, clusters=clusters)
    if clusters == len(matrix):  # also a single model, which scikit-learn refuses
        return np.arange(len(matrix))
    method = AgglomerativeClustering(clusters, metric="precomputed", linkage="average")
    return method.fit_predict(_distance(matrix)).astype(np.int64)


@dataclass(frozen=True)
class Merge:
    """Two branches of a dendrogram that become one: models are branches 0 to n - 1, merge number m is branch n + m."""

    left: int
    right: int
    height: float
    """Mean distance, 1 - cosine, of a model of one branch to a model of the other."""


@dataclass(frozen=True)
class Dendrogram:
    """The tree of average linkage: merges of models and branches, the nearest first."""

    merges: tuple[Merge, ...]

    @cached_property
    def order(self) -> list[int]:
        """The models in an order in which no two branches cross."""
        return self.models_of(2 * len(self.merges))

    def models_of(self, branch: int) -> list[int]:
        """The models of a branch, in that order."""
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
        """Returns a cluster a model, numbered from 0 along the order."""
        count = len(self.merges) + 1
        branch = np.arange(count)
        for number, merge in enumerate(self.merges[: count - clusters]):
            branch[(branch == merge.left) | (branch == merge.right)] = count + number
        place = {own: number for number, own in enumerate(dict.fromkeys(branch[self.order].tolist()))}
        return np.array([place[own] for own in branch.tolist()])

    def height_of(self, clusters: int) -> float:
        """Returns a height at which a cut through the tree leaves so many clusters, midway between two merges."""
        heights = [0.0, *(merge.height for merge in self.merges)]
        below = len(heights) - clusters
        above = heights[below + 1] if clusters > 1 else 1.05 * heights[-1]
        return (heights[below] + above) / 2


def dendrogram(similarity: Float[np.ndarray, "models models"]) -> Dendrogram:
    """Returns the tree that ``average_linkage`` cuts into clusters."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    distance = _distance(check_similarity(similarity))
    if len(distance) == 1:
        return Dendrogram(())
    rows = linkage(squareform(distance, checks=False), method="average")
    return Dendrogram(tuple(Merge(int(left), int(right), float(height)) for left, right, height, _ in rows))


def scores(truth: Sequence[str], labels: Int[np.ndarray, " models"]) -> ClusterScores:
    """Scores clusters (any integers) against the known labels of the models; see ``ClusterScores``."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score

    if len(truth) != len(labels) or not len(truth):
        raise WsrError(f"clustering: one label a model is needed, found {len(truth)} labels, {len(labels)} models")
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
    """Returns a place on a map for each model: t-SNE of 1 - cosine.

    Fewer than ``FEWEST_FOR_TSNE`` models have no neighbourhoods to keep: they are placed by classical
    multidimensional scaling, which for them is exact.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    matrix = check_similarity(similarity)
    if len(matrix) < FEWEST_FOR_TSNE:
        return _classical_scaling(_distance(matrix))
    perplexity = min(30.0, (len(matrix) - 1) / 3)
    method = TSNE(2, metric="precomputed", init="random", perplexity=perplexity, random_state=seed)
    with threadpool_limits(1):  # its threads wait for each other: 0.8 s against 20 s
        return method.fit_transform(_distance(matrix)).astype(np.float64)


def check_similarity(
    similarity: Float[np.ndarray, "rows columns"],
    *,
    clusters: int = 1,
    names: Sequence[str] | None = None,
    source: str = "similarity",
) -> Float[np.ndarray, "models models"]:
    """Returns the matrix in float64, symmetric to the bit and with ones on its diagonal, or says what is wrong."""
    matrix = np.asarray(similarity, np.float64)
    rows, columns = matrix.shape
    if rows != columns or not rows:
        raise WsrError(f"{source}: must be square with a row and a column a model, found {rows} x {columns}")
    if not 1 <= clusters <= rows:
        raise WsrError(f"{source}: {rows} models cannot form {clusters} clusters; ask for 1 to {rows}")

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
    refuse_where(np.abs(matrix) > 1 + DIAGONAL_TOLERANCE, "a cosine lies between -1 and 1")
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
