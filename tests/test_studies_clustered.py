"""What the studies of similarity share, against counts by hand, and their own maths."""

import itertools

import numpy as np
import pytest

from wsr.region.region import from_params
from wsr.studies.harness.clustered import (
    METHODS,
    cluster,
    cosine_difference,
    member_draws,
    relate,
    same,
    together_told,
)

DATASETS = ["a", "a", "a", "b", "b", "b", "c", "c", "c"]


def similarity(spread, seed=0):
    draw = np.random.default_rng(seed)
    vectors = np.repeat(np.eye(3, 30), 3, axis=0) + spread * draw.standard_normal((9, 30))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.clip(vectors @ vectors.T, -1, 1)


def test_members_are_drawn_within_their_stratum():
    draws = member_draws(DATASETS, np.random.default_rng(0), 500)
    assert draws.shape == (500, 9)
    for first in (0, 3, 6):
        assert (draws[:, first : first + 3].sum(axis=1) == 2).all()
    assert draws.mean() == pytest.approx(2 / 3)


def test_a_stratum_of_one_is_always_drawn_and_two_members_give_no_interval():
    draws = member_draws(["a", "b", "b"], np.random.default_rng(0), 50)
    assert (draws[:, 0] == 1).all()
    (found,) = relate(np.full((3, 3), 0.5), {"same": same(["a", "b", "b"])}, draws)
    assert (found.mean.value, found.mean.low, found.mean.high) == (0.5, -np.inf, np.inf)


def test_an_interval_of_a_mean_cosine_covers_it():
    # Members are their dataset's direction plus noise, so the expected cosine is known without a bootstrap.
    draw, covered, trials = np.random.default_rng(0), 0, 150
    noise, dimension, labels = 1.0, 40, [name for name in "abcdef" for _ in range(3)]

    def matrix(own):
        centres = np.eye(6, dimension)[["abcdef".index(name) for name in own]]
        vectors = centres + noise * draw.standard_normal((len(own), dimension)) / dimension**0.5
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors @ vectors.T

    many = [name for name in "abcdef" for _ in range(100)]
    truth = matrix(many)[np.triu(~same(many), 1)].mean()
    for _ in range(trials):
        draws = member_draws(labels, draw, 300)
        (found,) = relate(matrix(labels), {"other dataset": ~same(labels)}, draws)
        covered += found.mean.low <= truth <= found.mean.high
    assert covered / trials >= 0.92  # 0.95 less twice the standard error of 150 trials; drawing as many: 0.85


def test_a_mean_cosine_is_that_of_the_pairs_and_its_interval_that_of_drawn_pairs():
    matrix, pairs = similarity(0.3), same(DATASETS)
    draws = member_draws(DATASETS, np.random.default_rng(0), 300)
    (found,) = relate(matrix, {"same dataset": pairs}, draws)
    by_hand = [matrix[i, j] for i, j in itertools.combinations(range(9), 2) if DATASETS[i] == DATASETS[j]]
    assert sorted(found.cosines) == sorted(by_hand)
    assert found.mean.value == pytest.approx(np.mean(by_hand))
    drawn = []
    for counts in draws:
        chosen = np.repeat(np.arange(9), counts)
        own = [matrix[i, j] for i, j in itertools.combinations(chosen, 2) if i != j and DATASETS[i] == DATASETS[j]]
        if own:
            drawn.append(np.mean(own))
    assert (found.mean.low, found.mean.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))


def test_a_difference_is_paired_and_widens_with_comparisons():
    matrix, own = similarity(0.3), same(DATASETS)
    draws = member_draws(DATASETS, np.random.default_rng(0))
    alone = cosine_difference(matrix, own & ~np.eye(9, dtype=bool), ~own, draws)
    assert alone.low < alone.value < alone.high
    assert alone.low > 0
    nothing = cosine_difference(matrix, ~own, ~own, draws)
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)
    together = cosine_difference(matrix, own & ~np.eye(9, dtype=bool), ~own, draws, comparisons=20)
    assert together.low < alone.low < alone.high < together.high


def test_clear_clusters_are_sure_and_noise_is_not():
    draws = member_draws(DATASETS, np.random.default_rng(0), 40)
    for found in cluster(similarity(0.01), {"dataset": DATASETS}, draws):
        interval = found.intervals["one_to_one_accuracy"]
        assert (interval.value, interval.low, interval.high) == (1.0, 1.0, 1.0)
    noise = cluster(similarity(3.0), {"dataset": DATASETS}, draws)
    assert all(own.intervals["one_to_one_accuracy"].low < 0.9 for own in noise)


@pytest.mark.parametrize("noise", [0.5, 1.0, 1.5])
def test_an_interval_of_a_clusterings_score_holds_the_score(noise):
    draws = member_draws(DATASETS, np.random.default_rng(0), 40)
    for found in cluster(similarity(noise), {"dataset": DATASETS}, draws):
        assert all(own.low <= own.value <= own.high for own in found.intervals.values()), found.method


def test_the_datasets_of_each_cluster_are_told_where_labels_are_missed():
    # Two of three datasets are one group in truth, whatever their labels say.
    groups = np.repeat([0, 0, 1], 3)
    matrix = np.where(groups[:, None] == groups[None, :], 0.9, 0.0) + 0.1 * np.eye(9)
    found = cluster(matrix, {"family": ["x"] * 3 + ["y"] * 6}, None)
    told = together_told(found, ["a"] * 3 + ["b"] * 3 + ["c"] * 3, 0.9)
    assert told == [f"Clusters by family ({method}): a, b; c." for method in METHODS]
    assert together_told(found, ["a"] * 3 + ["b"] * 3 + ["c"] * 3, 0.5) == []


def test_the_layers_add_up_to_the_whole_encoder(tiny):
    import jax

    from wsr.studies.layers import grams_by_leaf_group, group_of

    draw = np.random.default_rng(0)
    moved = [jax.tree.map(lambda leaf: leaf + draw.standard_normal(leaf.shape), tiny.params) for _ in range(3)]
    members = {f"m{k}": jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), one) for k, one in enumerate(moved)}
    region = from_params(tiny.model, tiny.params, members)
    grams = grams_by_leaf_group(region)
    np.testing.assert_allclose(sum(grams.values()), region.gram, rtol=1e-5)
    part = grams["layer 2", "feed_forward/output"]
    kernels = [
        (
            one["layers"]["1"]["feed_forward"]["output"]["kernel"]
            - tiny.params["layers"]["1"]["feed_forward"]["output"]["kernel"]
        ).ravel()
        for one in members.values()
    ]
    np.testing.assert_allclose(part, np.array(kernels) @ np.array(kernels).T, rtol=1e-4)
    assert group_of("layers/0/attention/norm/scale") == ("layer 1", "layer norms")
    assert group_of("layers/11/attention/query/bias") == ("layer 12", "biases")
    assert group_of("embeddings/token/embedding") == ("embeddings", "embeddings/token")


def test_two_bases_are_seen_from_their_own_and_from_their_midpoint(tiny):
    import jax

    from wsr.geometry.trees import flatten
    from wsr.studies.two_bases import _grams

    draw = np.random.default_rng(1)

    def near(params):
        return jax.tree.map(lambda leaf: np.asarray(leaf + draw.standard_normal(leaf.shape), np.float32), params)

    bases = [near(tiny.params), near(tiny.params)]
    models = [[near(base) for _ in range(2)] for base in bases]
    regions = [
        from_params(tiny.model, base, {f"m{k}": one for k, one in enumerate(own)})
        for base, own in zip(bases, models, strict=True)
    ]
    own, midpoint, apart = _grams(*regions)

    def flat(params):
        return np.concatenate([leaf.ravel() for leaf in flatten(params).values()]).astype(np.float64)

    first, second = map(flat, bases)
    vectors = [flat(one) - flat(base) for base, of_base in zip(bases, models, strict=True) for one in of_base]
    np.testing.assert_allclose(own, np.array(vectors) @ np.array(vectors).T, rtol=1e-4)
    centred = [flat(one) - (first + second) / 2 for of_base in models for one in of_base]
    np.testing.assert_allclose(midpoint, np.array(centred) @ np.array(centred).T, rtol=1e-4, atol=1e-2)
    assert apart == pytest.approx(np.linalg.norm(second - first), rel=1e-5)


def test_shared_streams_share_head_and_order_across_datasets_and_have_a_name_of_their_own(tiny, dataset):
    from worlds import made_up

    from wsr.training.job import Job, Recipe, initial_head
    from wsr.training.members import member_name

    other = made_up(tiny, "made_up_b1")
    kernels = {
        shared: [initial_head(Job(data, 0, Recipe(), None, shared), 8)["kernel"] for data in (dataset, other)]
        for shared in (False, True)
    }
    np.testing.assert_array_equal(*kernels[True])
    assert np.abs(kernels[False][0] - kernels[False][1]).max() > 1e-3
    names = {member_name(Job(dataset, 0, Recipe(), None, shared)) for shared in (False, True)}
    assert len(names) == 2
