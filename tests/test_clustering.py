from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, f1_score

from wsr.errors import WsrError
from wsr.statistics.clustering import (
    average_linkage,
    check_similarity,
    lifted,
    normalised_cut,
    scores,
    spectral,
    spectral_clipped,
    tsne,
)

METHODS = [spectral, spectral_clipped, average_linkage]


def blocks(sizes, within=0.3, across=0.02, seed=0):
    """Similarities of groups of models in a shuffled order, with a little noise; returns them and the groups."""
    generator = np.random.default_rng(seed)
    groups = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    matrix = np.where(groups[:, None] == groups[None, :], within, across)
    noise = 0.02 * generator.normal(size=matrix.shape)
    matrix = matrix + (noise + noise.T) / 2
    np.fill_diagonal(matrix, 1.0)
    return matrix, groups


def names_of(groups):
    return [f"group{group}" for group in groups]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("sizes", "across"), [((5, 5), 0.02), ((3, 6, 4), 0.02), ((3, 3, 3, 3), -0.1)])
def test_blocks_are_recovered(method, sizes, across):
    matrix, groups = blocks(sizes, across=across)
    found = method(matrix, len(sizes))
    assert adjusted_rand_score(groups, found) == 1
    result = scores(names_of(groups), found)
    assert result.one_to_one_accuracy == result.majority_accuracy == 1
    assert result.adjusted_rand == pytest.approx(1)
    assert set(result.f1.values()) == {1.0}


def test_negative_similarities_are_mapped_as_the_paper_does():
    matrix, _ = blocks((4, 4), across=-0.1)
    assert matrix.min() < 0
    np.testing.assert_array_equal(spectral(matrix, 2), spectral((matrix + 1) / 2, 2))


# Mean cosines of members of eight datasets in families of one, three and four (packaged preset of task_clusters).
DATASETS = """
    .169 .012 .024 .017 .011 .013 .011 .022
    .012 .209 .064 .026 .008 .002 .005 .008
    .024 .064 .225 .050 .007 .003 .006 .019
    .017 .026 .050 .197 .006 .007 .009 .014
    .011 .008 .007 .006 .193 .052 .037 .059
    .013 .002 .003 .007 .052 .165 .046 .047
    .011 .005 .006 .009 .037 .046 .183 .033
    .022 .008 .019 .014 .059 .047 .033 .209
"""


def families():
    """Cosines of five models of each dataset, one of them negative so that all are lifted; and the families."""
    datasets = np.repeat(np.arange(8), 5)
    matrix = np.array(DATASETS.split(), float).reshape(8, 8)[np.ix_(datasets, datasets)]
    matrix[0, 39] = matrix[39, 0] = -0.01
    np.fill_diagonal(matrix, 1.0)
    return matrix, np.array([0, 1, 1, 1, 2, 2, 2, 2])[datasets]


def test_lifting_makes_sizes_count_and_clipping_does_not():
    matrix, of = families()
    assert scores(names_of(of), spectral(matrix, 3)).one_to_one_accuracy < 1
    assert scores(names_of(of), spectral_clipped(matrix, 3)).one_to_one_accuracy == 1
    assert normalised_cut(lifted(matrix), spectral(matrix, 3)) < normalised_cut(lifted(matrix), of)


def test_a_normalised_cut_is_that_of_its_definition():
    matrix, groups = blocks((3, 4, 5))
    affinity = np.abs(matrix)
    models = range(len(groups))
    wanted = 0.0
    for group in set(groups.tolist()):
        inside = [k for k in models if groups[k] == group]
        cut = sum(affinity[i, j] for i in inside for j in models if groups[j] != group)
        wanted += cut / sum(affinity[i, j] for i in inside for j in models)
    assert normalised_cut(affinity, groups) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("models", [1, 2, 5])
def test_one_cluster_and_a_cluster_a_model(method, models):
    matrix, _ = blocks((models,))
    np.testing.assert_array_equal(method(matrix, 1), np.zeros(models))
    assert sorted(method(matrix, models)) == list(range(models))


@pytest.mark.parametrize("method", METHODS)
def test_the_matrix_of_the_caller_is_not_changed(method):
    matrix, _ = blocks((3, 3), across=-0.1)
    before = matrix.copy()
    method(matrix, 2)
    tsne(matrix)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize("seed", range(5))
def test_scores_against_brute_force(seed):
    generator = np.random.default_rng(seed)
    truth = [f"label{label}" for label in generator.integers(0, 4, 25)]
    clusters = generator.integers(0, 4, 25)
    result = scores(truth, clusters)
    names = sorted(set(truth))
    accuracies = [
        np.mean([names[order[cluster]] == label for cluster, label in zip(clusters, truth, strict=True)])
        for order in permutations(range(len(names)))
    ]
    assert result.one_to_one_accuracy == pytest.approx(max(accuracies))
    majority = {}
    for cluster in set(clusters.tolist()):
        inside = [label for label, c in zip(truth, clusters, strict=True) if c == cluster]
        majority[cluster] = max(names, key=inside.count)
    predicted = [majority[cluster] for cluster in clusters.tolist()]
    assert result.majority_accuracy == pytest.approx(np.mean([p == t for p, t in zip(predicted, truth, strict=True)]))
    assert result.adjusted_rand == pytest.approx(adjusted_rand_score(truth, clusters))
    expected = f1_score(truth, predicted, labels=names, average=None, zero_division=0)
    np.testing.assert_allclose([result.f1[name] for name in names], expected)


def test_one_to_one_and_majority_differ_where_two_clusters_hold_one_label():
    result = scores(["a"] * 6 + ["b"] * 2, np.array([0, 0, 0, 1, 1, 1, 1, 1]))
    assert result.majority_accuracy == 6 / 8  # both clusters are called a
    assert result.one_to_one_accuracy == 5 / 8
    assert result.f1 == {"a": pytest.approx(12 / 14), "b": 0.0}


def test_scores_do_not_depend_on_order_or_on_the_numbers_of_clusters():
    generator = np.random.default_rng(0)
    truth = np.array([f"label{label}" for label in generator.integers(0, 3, 30)])
    clusters = generator.integers(0, 5, 30)
    expected = scores(list(truth), clusters)
    order = generator.permutation(30)
    assert scores(list(truth[order]), clusters[order]) == expected
    renamed = scores(list(truth), np.array([70, -3, 8, 2, 5])[clusters])
    assert renamed.one_to_one_accuracy == expected.one_to_one_accuracy
    assert renamed.adjusted_rand == pytest.approx(expected.adjusted_rand)
    assert renamed.f1 == expected.f1


def test_scores_need_a_label_a_model():
    with pytest.raises(WsrError, match="found 2 labels and 3 models"):
        scores(["a", "b"], np.array([0, 1, 1]))


def test_tsne_keeps_neighbours_together_and_is_reproducible():
    matrix, groups = blocks((8, 8), within=0.6)
    places = tsne(matrix)
    assert places.shape == (16, 2)
    np.testing.assert_array_equal(places, tsne(matrix))
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1) + np.where(np.eye(16), np.inf, 0)
    np.testing.assert_array_equal(groups[distance.argmin(axis=1)], groups)


@pytest.mark.parametrize("models", [1, 2, 3, 4, 5])
def test_a_map_of_few_models(models):
    matrix, _ = blocks((models,))
    places = tsne(matrix)
    assert places.shape == (models, 2)
    assert np.all(np.isfinite(places))
    if models < 4:  # exact there: any three distances that keep the triangle inequality lie in a plane
        distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
        np.testing.assert_allclose(distance, 1 - matrix, atol=1e-6)


@pytest.mark.parametrize(
    ("cell", "value", "message"),
    [
        ((0, 1), np.nan, "must be finite, found nan at row 0, column 1"),
        ((2, 2), 0.9, "the diagonal must be 1, found 0.9 at row 2, column 2"),
        ((1, 3), 0.9, "must be symmetric"),
    ],
)
def test_a_bad_cell_is_named(cell, value, message):
    matrix, _ = blocks((3, 3))
    matrix[cell] = value
    for method in METHODS:
        with pytest.raises(WsrError, match=message):
            method(matrix, 2)
    with pytest.raises(WsrError, match=message):
        tsne(matrix)


def test_a_bad_matrix_is_refused():
    matrix, _ = blocks((3, 3))
    with pytest.raises(WsrError, match="square, with one row and one column per model; found 5 x 6"):
        check_similarity(matrix[:5])
    with pytest.raises(WsrError, match="6 models cannot form 7 clusters"):
        average_linkage(matrix, 7)
    with pytest.raises(WsrError, match="cannot form 0 clusters"):
        spectral(matrix, 0)
    matrix[0, 1] = matrix[1, 0] = 1.5
    with pytest.raises(WsrError, match=r"between -1 and 1, found 1\.5"):
        spectral(matrix, 2)
    rounded, _ = blocks((3, 3))
    rounded[0, 1] += 5e-5
    rounded[2, 2] = 1.0005
    spectral(rounded, 2)
