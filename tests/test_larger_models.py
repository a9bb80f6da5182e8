"""Models cut over several devices: the results of one device, the rule of the cuts, how many devices share a model."""

import json
import re
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
from test_sharding import on_eight_devices
from transformers import CONFIG_MAPPING

from benchmarks.ahead_of_time.compiled import partners
from wsr import models
from wsr.models import cuts
from wsr.runtime.devices import mesh_of
from wsr.training import Division, Job, Recipe
from wsr.training.memory import division_for_training, member_bytes, shared_bytes

HERE = Path(__file__).parent
MESHES = {"1x1x1": 1, "1x1x8": 8, "2x2x2": 2}
"""Devices by points, texts and model, and how many share a model."""


@pytest.fixture(scope="module")
def found():
    """What a tiny Llama gives on each mesh."""
    return json.loads(on_eight_devices(HERE / "large_model_in_a_process.py", *MESHES).splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("what", ["features", "losses"])
def test_models_shared_by_devices_give_what_one_gives(found, what):
    one, *shared = (np.array(found[what][mesh]) for mesh in MESHES)
    assert one.shape[:2] == (3, 40)
    for values in shared:
        np.testing.assert_allclose(values, one, atol=1e-5)


@pytest.mark.long
def test_a_device_holds_its_part_of_each_matrix(found):
    """The key's 4 outputs do not divide by 8: it lies whole there."""
    for mesh, parts in MESHES.items():
        shapes = found["shapes"][mesh]
        assert shapes["layers/0/attention/query/kernel"] == [1, 32, 32 // parts]
        assert shapes["layers/1/attention/key/kernel"] == [1, 32, 4 // parts if parts < 8 else 4]
        assert shapes["layers/0/attention/output/kernel"] == [1, 32 // parts, 32]
        assert shapes["layers/0/feed_forward/gate/kernel"] == [1, 32, 48 // parts]
        assert shapes["layers/0/feed_forward/down/kernel"] == [1, 48 // parts, 32]
        assert shapes["norm/scale"] == [1, 32]
        assert shapes["token/embedding"] == [1, 112 // parts, 32]
        assert shapes["head/kernel"] == [1, 32, 112 // parts]


@pytest.mark.long
def test_a_point_is_mixed_in_parts(found):
    """Bit for bit as on one device; no device of eight holds a whole matrix while either member is read."""
    assert found["point"] == {"equal": True, "whole": [False, False, True, True]}


@pytest.mark.long
def test_devices_communicate_only_with_those_that_share_their_model(found):
    assert {tuple(sorted(group)) for group in found["partners"]["encoding"]} == {(0, 1), (2, 3), (4, 5), (6, 7)}
    assert found["partners"]["mixing"] == []


@pytest.mark.long
def test_the_smallest_share_that_fits_is_chosen(found):
    """Two points on eight devices, each time with a little less memory than the last plan needs."""
    *plans, (refusal, *_) = found["plans"]
    shapes = [shape for shape, *_ in plans]
    assert list(dict.fromkeys(map(tuple, shapes))) == [(2, 4, 1), (2, 2, 2), (2, 1, 4), (1, 1, 8)]
    assert re.fullmatch(
        r"1 points at a time need 0.00 GiB on a device with each model cut over 8 devices, but the budget is 0.00 GiB; "
        r"give --memory_budget_gib=MORE or use a device with more memory",
        refusal,
    )


@pytest.mark.long
def test_a_plan_cuts_models_over_as_many_devices_as_the_engine(found):
    *plans, refused = found["plans"]
    assert refused[2:] == [False, 8]
    for shape, _, fits, parts in plans:
        assert (fits, parts) == (True, shape[2])


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"])
def test_kernels_are_cut_as_in_the_plan_of_transformers(name):
    plan = {
        re.compile(pattern.replace(".", r"\.").replace("*", r"\d+")): how
        for pattern, how in CONFIG_MAPPING[name].base_model_tp_plan.items()
        if how in ("colwise", "rowwise")
    }
    architecture = models.architectures()[name]
    model = models.build(name, architecture.example)
    mesh = mesh_of(1, 1, 2, devices=2 * jax.devices())
    specs = _by_path(model, mesh)
    compared = set()
    for theirs, ours, _ in architecture.counterpart.modules(model.config):
        for pattern, how in plan.items():
            if pattern.fullmatch(theirs):
                expected = (None, "model") if how == "colwise" else ("model",)
                assert specs[f"{ours}/kernel"] == expected, theirs
                compared.add(pattern)
    assert compared == set(plan)


def test_one_device_cuts_nothing():
    model = models.build("llama", models.architectures()["llama"].example)
    assert set(_by_path(model, mesh_of(1)).values()) == {()}


@pytest.mark.long
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_shared_members_train_as_on_one_device(mode, tmp_path):
    """Two members: both on one device, then each on a group of four."""
    on_eight_devices(HERE / "large_model_training_in_a_process.py", tmp_path / "found.npz", mode, 1, 4)
    found = np.load(tmp_path / "found.npz")
    assert found["4 held"].tolist() == [32, 32 // 4]
    assert (len(found["1 whole"]) > 0) == (mode == "full")  # factors are no matrices of the model
    assert found["4 whole"].tolist() == []
    assert {tuple(sorted(group)) for group in found["4 partners"].tolist()} == {(0, 1, 2, 3), (4, 5, 6, 7)}
    assert found["1 partners"].size == 0
    assert found["4 compiled"] == found["1 compiled"] == 1
    for parts in (1, 4):
        assert 0.8 < found[f"{parts} predicted"] / found[f"{parts} used"] < 2
    alone = [name for name in found.files if re.match("1 [01] ", name)]
    assert len(alone) == 2 * (len(_leaves_of_llama()) + 2)
    for name in alone:
        np.testing.assert_allclose(found[name.replace("1 ", "4 ", 1)], found[name], atol=1e-5, err_msg=name)


@pytest.mark.long
def test_as_few_devices_share_a_member_as_fit_it(tiny, dataset):
    recipe = Recipe(mode="lora", lora_rank=2, batch_size=16, epochs=1.0, warmup=0.006)
    jobs, devices = [Job(dataset, 0, recipe)], 4 * jax.devices()[:1]
    needed = {
        parts: shared_bytes(tiny.params, jobs[0], parts)
        + min(
            member_bytes(tiny.model, tiny.params, jobs[0], Division(pieces, shared_by=parts))
            for pieces in (1, 2, 4, 8, 16)
        )
        for parts in (1, 2, 4)
    }
    assert needed[1] > needed[2] > needed[4]
    chosen = partial(division_for_training, tiny.model, tiny.params, jobs)
    for parts, least in needed.items():
        for budget, expected in ((least, parts), (least - 1, min(2 * parts, 4))):
            assert chosen(memory_budget_gib=budget / 2**30, devices=devices).shared_by == expected
    assert chosen(memory_budget_gib=1e-9, devices=devices[:1]).shared_by == 1


@pytest.mark.long
def test_every_architecture_gives_its_features_where_four_devices_share_it():
    found = json.loads(on_eight_devices(HERE / "architectures_on_four.py").splitlines()[-1])
    assert set(found) == {*models.architectures(), "llama, long rows"}
    for name, (difference, share) in found.items():
        assert difference < 1e-5, name
        assert share == 0.25, name


@pytest.mark.parametrize(
    ("written", "groups"),
    [
        ("%a = f32[2] all-reduce(%b), replica_groups={{0,1},{2,3}}, to_apply=%c", {(0, 1), (2, 3)}),
        ("%a = f32[2] all-gather-start(%b), replica_groups=[2,2]<=[4], dimensions={0}", {(0, 1), (2, 3)}),
        ("%a = f32[2] all-gather(%b), replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}", {(0, 2), (1, 3)}),
        ("%a = f32[2] collective-permute(%b), source_target_pairs={{1,0},{3,2}}", {(1, 0), (3, 2)}),
        ("%a = f32[2] all-reduce(%b), replica_groups=mesh['x'=2,'y'=2] {'y'}, to_apply=%c", {(0, 1), (2, 3)}),
        ("%a = f32[2] all-reduce(%b), replica_groups=mesh['x'=2,'y'=2] {'x'}, to_apply=%c", {(0, 2), (1, 3)}),
        ("%a = f32[2] add(%b, %c)", set()),
    ],
)
def test_the_partners_of_a_collective_are_read_however_they_are_written(written, groups):
    assert set(partners(written)) == groups


def test_a_collective_of_unknown_partners_is_not_passed_over():
    with pytest.raises(ValueError, match="unknown partners"):
        partners("%a = f32[2] all-reduce(%b), replica_groups=everyone, to_apply=%c")


def _leaves_of_llama():
    model = models.build("llama", models.architectures()["llama"].example)
    return jax.tree.leaves(jax.eval_shape(model.init, jax.random.key(0)))


def _by_path(model, mesh):
    """The mesh axis of each dimension of each leaf up to the one that is cut, by path."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(cuts.shardings(shapes, mesh))
    return {"/".join(entry.key for entry in path): tuple(own.spec) for path, own in leaves}
