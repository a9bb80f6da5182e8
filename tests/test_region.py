"""What a user holds: members, centroid, radius, and the rule that a start never saw its target."""

import jax
import numpy as np
import pytest

from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.merging.method import made
from wsr.merging.run import merge
from wsr.region.region import Member, Region, from_params


def member(tiny, name, dataset, family, seed, scale=0.1):
    generator = np.random.default_rng(seed)
    params = jax.tree.map(
        lambda leaf: (leaf + scale * generator.normal(size=leaf.shape)).astype(np.float32), tiny.params
    )
    return Member(name, dataset, family, f"hash of {name}", lambda: params)


@pytest.fixture
def region(tiny):
    described = [
        ("a0", "sst2", "sentiment"),
        ("a1", "sst2", "sentiment"),
        ("b0", "sst5", "sentiment"),
        ("c0", "trec_fine", "topic"),
    ]
    members = [member(tiny, name, dataset, family, seed) for seed, (name, dataset, family) in enumerate(described)]
    return Region(tiny.model, tiny.params, members, base_sha256="base")


def flat(params):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in flatten(params).values()])


def test_centroid_is_the_mean_of_the_members(region):
    found = flat(region.params(region.centroid()))
    np.testing.assert_allclose(found, np.mean([flat(m.load()) for m in region.members], axis=0), atol=1e-6)
    np.testing.assert_allclose(flat(merge(region, made("uniform", {}))), found, atol=1e-6)


def test_radius_and_similarity_against_flattened_weights(region):
    vectors = np.stack([flat(m.load()) - flat(region.base) for m in region.members])
    expected = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).mean()
    assert region.radius() == pytest.approx(expected, rel=1e-4)
    cosine = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    np.testing.assert_allclose(region.similarity(), cosine, atol=1e-4)


def test_a_part_takes_its_gram_matrix_from_the_whole(region):
    whole = region.gram
    part = region.where(lambda m: m.name in ("a1", "c0"))
    np.testing.assert_array_equal(part.gram, whole[np.ix_([1, 3], [1, 3])])
    fresh = Region(region.model, region.base, part.members, base_sha256="base").gram
    np.testing.assert_allclose(part.gram, fresh, rtol=1e-5)


def test_leaving_a_dataset_out_leaves_out_those_that_share_its_texts(region):
    assert region.without_dataset("sst2").names == ("c0",)
    assert region.without_dataset("trec_coarse").names == ("a0", "a1", "b0")
    assert region.without_dataset("newsgroups").names == region.names


def test_nobody_left_is_an_error(region):
    with pytest.raises(WsrError, match="all 2 members were trained on sst2"):
        region.where(lambda m: m.dataset == "sst2").without_dataset("sst2")


def test_names_must_be_unique(tiny):
    twice = [member(tiny, "x", "d", "f", 0)] * 2
    with pytest.raises(WsrError, match="two members have the same name: x"):
        Region(tiny.model, tiny.params, twice, base_sha256="base")


def test_the_only_point_of_an_empty_region_is_the_base(tiny):
    nobody = from_params(tiny.model, tiny.params, {})
    np.testing.assert_array_equal(flat(nobody.params(np.zeros(0))), flat(tiny.params))


def test_a_store_too_large_to_keep_is_read_leaf_by_leaf_and_gives_the_same(tiny, region, tmp_path, monkeypatch):
    from wsr.store import MemberRecord, Store

    config = dict(tiny.model.config)
    store = Store.create(
        tmp_path / "store", model_name="tiny", model_config=config, base_name="tiny", base_params=tiny.params
    )
    for number, own in enumerate(region.members):
        record = MemberRecord(
            name=own.name,
            dataset=own.dataset,
            family=own.family,
            seed=number,
            mode="full",
            size=1,
            hyperparameters={},
            metrics={},
            jaxlib="",
            device_kind="",
            threads=1,
            group_size=1,
        )
        store.save(record, own.load(), {})
    kept = Region.from_store(store, tiny.model)
    np.testing.assert_allclose(kept.gram, region.gram, rtol=1e-6)
    whole = []
    monkeypatch.setattr(Store, "load", lambda *args: whole.append(args))
    streamed = Region.from_store(store, tiny.model, keep_gib=0.0)
    np.testing.assert_array_equal(streamed.gram, kept.gram)
    assert not whole
    assert streamed.datasets == region.datasets
