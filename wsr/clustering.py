"""Groups of models from their similarities, how well the groups agree with labels, and a map to look at."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from wsr.errors import WsrError

Similarity = Float[np.ndarray, "models models"]
Clusters = Int[np.ndarray, " models"]


@dataclass(frozen=True)
class ClusterScores:
    """How well clusters agree with labels."""

    one_to_one_accuracy: float
    """Each cluster stands for one label, assigned so that most models are right (Hungarian method)."""
    majority_accuracy: float
    """Each cluster stands for its most frequent label, as in the paper's released code."""
    adjusted_rand: float
    f1: dict[str, float]
    """Of each label under majority labelling; 0 for a label that no cluster takes."""


def spectral(similarity: Similarity, clusters: int, *, seed: int = 0) -> Clusters:
    """Spectral clustering by the paper's released recipe.

    scikit-learn's ``SpectralClustering`` on the matrix itself with ``assign_labels="discretize"``; where a similarity
    is negative all are mapped by ``(s + 1) / 2``.
    """
    from sklearn.cluster import SpectralClustering

    check_similarity(similarity, clusters)
    affinity = (similarity + 1) / 2 if (similarity < 0).any() else similarity
    method = SpectralClustering(clusters, affinity="precomputed", assign_labels="discretize", random_state=seed)
    return method.fit_predict(affinity).astype(np.int64)


def average_linkage(similarity: Similarity, clusters: int) -> Clusters:
    """Agglomerative clustering of ``1 - similarity`` with average linkage."""
    from sklearn.cluster import AgglomerativeClustering

    check_similarity(similarity, clusters)
    method = AgglomerativeClustering(clusters, metric="precomputed", linkage="average")
    return method.fit_predict(1 - similarity).astype(np.int64)


def scores(truth: Sequence[str], clusters: Clusters) -> ClusterScores:
    """Compares clusters with the labels that the models have."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, f1_score

    labels, own = np.unique(list(truth), return_inverse=True)
    groups, assigned = np.unique(clusters, return_inverse=True)
    counts = np.zeros((len(groups), len(labels)), np.int64)
    np.add.at(counts, (assigned, own), 1)
    best = linear_sum_assignment(counts, maximize=True)
    majority = counts.argmax(axis=1)[assigned]
    f1 = f1_score(own, majority, labels=np.arange(len(labels)), average=None, zero_division=0.0)
    return ClusterScores(
        float(counts[best].sum() / len(own)),
        float((majority == own).mean()),
        float(adjusted_rand_score(own, assigned)),
        {str(label): float(value) for label, value in zip(labels, f1, strict=True)},
    )


def tsne(similarity: Similarity, *, seed: int = 0) -> Float[np.ndarray, "models 2"]:
    """A 2-D map of ``1 - similarity`` by t-SNE; with fewer than four models, by classical scaling.

    The perplexity is clamped below the number of models, as t-SNE demands.
    """
    check_similarity(similarity, 1)
    distances = np.clip(1 - similarity, 0, None)
    models = len(similarity)
    if models < 4:
        return _classical_scaling(distances)
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # One thread: 0.8 s instead of 20 s for a small population on two cores.
    with threadpool_limits(1):
        method = TSNE(metric="precomputed", init="random", perplexity=min(30.0, (models - 1) / 3), random_state=seed)
        return method.fit_transform(distances).astype(np.float64)


def check_similarity(similarity: Similarity, clusters: int) -> None:
    """Raises WsrError unless this is a matrix of similarities of at least ``clusters`` models."""
    models = len(similarity)
    if similarity.shape != (models, models):
        raise WsrError(f"similarity: expected a square matrix, found {' x '.join(map(str, similarity.shape))}")
    if not np.isfinite(similarity).all():
        row, column = np.argwhere(~np.isfinite(similarity))[0]
        raise WsrError(f"similarity: row {row + 1}, column {column + 1} is not a finite number")
    asymmetry = np.abs(similarity - similarity.T)
    if asymmetry.max(initial=0.0) > 1e-4:
        row, column = np.unravel_index(asymmetry.argmax(), asymmetry.shape)
        raise WsrError(
            f"similarity: not symmetric: row {row + 1}, column {column + 1} is {similarity[row, column]:g}, "
            f"the other way round {similarity[column, row]:g}"
        )
    if np.abs(np.diag(similarity) - 1).max(initial=0.0) > 1e-3:
        row = int(np.abs(np.diag(similarity) - 1).argmax())
        raise WsrError(
            f"similarity: a model's similarity with itself must be 1, row {row + 1} has {similarity[row, row]:g}"
        )
    if models < clusters:
        raise WsrError(f"similarity: {clusters} clusters were asked for, there are {models} models")


def _classical_scaling(distances: Similarity) -> Float[np.ndarray, "models 2"]:
    """Torgerson 1952: the leading eigenvectors of the doubly centred squared distances."""
    models = len(distances)
    centring = np.eye(models) - 1 / models
    values, vectors = np.linalg.eigh(-0.5 * centring @ (distances**2) @ centring)
    positions = np.zeros((models, 2))
    kept = np.argsort(values)[::-1][:2]
    positions[:, : len(kept)] = vectors[:, kept] * np.sqrt(np.clip(values[kept], 0, None))
    return positions
