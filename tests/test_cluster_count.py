"""How many clusters there are: against scikit-learn and NumPy, on populations with known blocks and with none."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import adjusted_rand_score, silhouette_samples, silhouette_score
from test_clustering import blocks

from wsr.statistics.cluster_count import count_clusters, eigengaps, silhouette, silhouettes
from wsr.statistics.clustering import average_linkage, dendrogram


def distances(matrix):
    distance = 1 - matrix
    np.fill_diagonal(distance, 0.0)
    return distance


@pytest.mark.parametrize("sizes", [(4, 4), (3, 6, 4), (1, 5, 2)])
def test_silhouettes_are_those_of_scikit_learn(sizes):
    matrix, groups = blocks(sizes)
    expected = silhouette_samples(distances(matrix), groups, metric="precomputed")
    np.testing.assert_allclose(silhouette(matrix, groups), expected, atol=1e-12)
    for clusters, found in silhouettes(matrix).items():
        labels = average_linkage(matrix, clusters)
        assert found == pytest.approx(silhouette_score(distances(matrix), labels, metric="precomputed"))
    assert list(silhouettes(matrix)) == list(range(2, sum(sizes)))


def test_eigengaps_are_those_of_the_random_walk():
    """The eigenvalues of the normalised Laplacian are one minus those of the random walk's matrix."""
    matrix, _ = blocks((3, 6, 4), across=-0.01)
    weights = np.maximum(matrix, 0)
    walk = weights / weights.sum(axis=1, keepdims=True)
    values = np.sort(1 - np.linalg.eigvals(walk).real)
    np.testing.assert_allclose(list(eigengaps(matrix).values()), np.diff(values), atol=1e-10)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 3), (2, 2, 2), (3, 6, 4), (3, 3, 3, 3), (2, 1, 6)])
def test_blocks_are_counted(sizes):
    found = count_clusters(blocks(sizes)[0])
    assert found.by_silhouette == found.by_eigengap == found.used == len(sizes)


def test_a_population_without_clusters_is_one(monkeypatch):
    """Of so many populations of one block at most about 5 % may pass for more than one."""
    monkeypatch.setattr("wsr.statistics.cluster_count.DRAWS", 19)
    runs = 24
    several = sum(count_clusters(blocks((8,), seed=seed)[0]).used > 1 for seed in range(runs))
    assert several <= 4  # more than 4 of 24 at 5 % each have a probability of 0.6 %


@pytest.mark.long
@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("places", ["even", "random"])
def test_a_chain_without_gaps_is_one_cluster(monkeypatch, places, noise):
    """Neighbours are alike and the ends are not; a permutation of all cosines found clusters in most of these."""
    monkeypatch.setattr("wsr.statistics.cluster_count.DRAWS", 39)
    several = 0
    for seed in range(10):
        draw = np.random.default_rng(seed)
        along = np.linspace(0, 1, 20) if places == "even" else np.sort(draw.random(20))
        vectors = np.exp(-0.5 * ((along[:, None] - np.linspace(-0.5, 1.5, 80)) / 0.2) ** 2)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors += noise * draw.standard_normal(vectors.shape) / np.sqrt(vectors.shape[1])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        several += count_clusters(np.clip(vectors @ vectors.T, -1, 1), seed=seed).used > 1
    assert several <= 1


@pytest.mark.parametrize("models", [1, 2, 3])
def test_few_models_have_a_number_too(models):
    found = count_clusters(blocks((models,))[0])
    assert 1 <= found.used <= models
    assert found.p_value is None


def test_a_model_like_no_other_is_a_cluster_of_the_eigengap():
    matrix, _ = blocks((4, 4))
    alone = np.eye(9)
    alone[:8, :8] = matrix
    assert count_clusters(alone).by_eigengap == 3


@pytest.mark.parametrize("seed", range(3))
def test_the_dendrogram_is_that_of_scipy_and_its_cuts_those_of_average_linkage(seed):
    vectors = np.random.default_rng(seed).normal(size=(9, 12))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    matrix = vectors @ vectors.T
    tree = dendrogram(matrix)
    rows = linkage(squareform(distances(matrix), checks=False), "average")
    np.testing.assert_allclose([merge.height for merge in tree.merges], rows[:, 2])
    for clusters in range(1, 10):
        labels = tree.cut(clusters)
        assert sorted(set(labels)) == list(range(clusters))
        assert adjusted_rand_score(labels, average_linkage(matrix, clusters)) == 1
        at_height = fcluster(rows, tree.height_of(clusters), "distance")
        assert adjusted_rand_score(labels, at_height) == 1
    # Neighbours in the order are neighbours in the tree: every branch is a run of the order.
    place = np.argsort(tree.order)
    for branch in range(9, 17):
        inside = np.sort(place[tree.models_of(branch)])
        np.testing.assert_array_equal(inside, np.arange(inside[0], inside[0] + len(inside)))


def test_a_tree_of_one_model():
    tree = dendrogram(np.eye(1))
    assert tree.order == [0]
    assert tree.cut(1).tolist() == [0]
    assert tree.height_of(1) == 0
