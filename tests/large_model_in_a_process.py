"""A tiny Llama shared by eight devices, in a process of its own, run by tests: prints what they compare as JSON.

python tests/large_model_in_a_process.py MESH...    where a MESH is devices by points, texts and model, such as 2x1x4
"""

import json
import sys
from dataclasses import replace
from functools import partial

import jax
import numpy as np
from worlds import made_up

from benchmarks.ahead_of_time import programs
from benchmarks.ahead_of_time.compiled import partners
from wsr import models
from wsr.engine import region_features
from wsr.engine.language_model import with_losses
from wsr.engine.region_features import plan_features
from wsr.engine.region_features import region_features as features_of
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry import low_rank, sampling
from wsr.geometry.low_rank import Factors
from wsr.geometry.trees import flatten
from wsr.models import llama, load
from wsr.models.cuts import bytes_on_each
from wsr.planning import memory as planning_memory
from wsr.planning.encoder import Encoder
from wsr.planning.hardware import Chip, Hardware
from wsr.planning.memory import evaluation_memory
from wsr.region import region as region_module
from wsr.region.region import Member, Region, from_params
from wsr.runtime.devices import memory_budget, mesh_for, mesh_of
from wsr.types import Params

dataset = made_up(load("tiny"), "made_up_a1")
rows = sampling.convex_hull(np.random.default_rng(1), 3, 3)
sizes = {"vocab_size": 112, "hidden_size": 32, "num_attention_heads": 8, "num_key_value_heads": 1}
model = models.build("llama", {**llama.EXAMPLE, **sizes, "intermediate_size": 48})


def made(model: models.Model) -> Region:
    """Two members and an adapter near random parameters."""
    base = jax.tree.map(np.array, model.init(jax.random.key(0)))
    draw = np.random.default_rng(2)

    def drawn(scale: float, *shape: int) -> np.ndarray:
        return (scale * draw.normal(size=shape)).astype(np.float32)

    factors = {
        path: Factors(drawn(0.1, len(leaf), 2), drawn(0.1, 2, leaf.shape[1]))
        for path, leaf in flatten(base).items()
        if path.endswith("kernel") and "layers" in path
    }
    adapter = Member("adapter", "d", "f", "adapter", partial(low_rank.add, base, factors), load_factors=lambda: factors)
    members = {f"m{number}": jax.tree.map(lambda leaf: leaf + drawn(0.05, *leaf.shape), base) for number in range(2)}
    return from_params(model, base, members).joined([adapter])


region, spied = made(model), {}
encode = region_features.point_features


def spy(model: models.Model, points: dict, *more: object) -> jax.Array:
    """Notes the shape of each leaf on one device."""
    spied.update({path: list(leaf.addressable_shards[0].data.shape) for path, leaf in flatten(points).items()})
    return encode(model, points, *more)


region_features.point_features = spy
split = {"test": dataset.splits["test"]}
found: dict = {"features": {}, "losses": {}, "shapes": {}}
for name in sys.argv[1:]:
    settings = Settings(mesh=mesh_of(*map(int, name.split("x"))), chunk=1, rows=2, row_length=48)
    for what, own in (("features", region), ("losses", with_losses(region))):
        by_point = {}
        for points, features in features_of(own, rows, split, settings=settings):
            # The last chunk is filled up.
            by_point |= zip(points, np.asarray(features["test"]).tolist(), strict=False)
        found[what][name] = [by_point[point] for point in range(len(rows))]
    found["shapes"][name] = dict(spied)
shared = mesh_of(2, 2, 2)
encoding = programs.encoding(model, shared, points=1, rows=2, length=16, precision="float32", slots=8)
found["partners"] = {
    "encoding": partners(encoding.compile().as_text()),
    "mixing": partners(programs.mixing(model, shared, points=1).compile().as_text()),
}


def planned(budget_gib: float) -> list:
    """The devices along each axis, or why there are none, and the memory needed; and what ``wsr plan`` says."""
    settings = Settings(mesh=mesh_for(2, devices=jax.devices()), memory_budget_gib=budget_gib)
    planning_memory.memory_budget = partial(memory_budget, budget_gib)
    ahead, parts = evaluation_memory(encoder, eight, 2, len(split["test"]), 10)
    try:
        layout = plan_features(region, rows[:2], split, settings=settings)
    except WsrError as error:
        return [str(error), 0, ahead.fits, parts]
    return [list(layout.mesh.shape.values()), layout.needed_bytes, ahead.fits, parts]


def mixed_in_parts() -> dict:
    """Whether eight devices mix the point that one does, and whether matrices lie whole on a device meanwhile."""
    cut = {leaf.shape for path, leaf in flatten(region.base).items() if bytes_on_each({path: leaf}, 8) < leaf.nbytes}
    whole: list = []

    def watching(member: Member) -> Params:
        parts = [shard.data.shape for array in jax.live_arrays() for shard in array.addressable_shards]
        whole.append([shape for shape in parts if shape in cut])
        return member.load()

    watched = region.with_members(replace(own, load=partial(watching, own)) for own in region.members[:2])
    points = []
    for number in (8, 1):  # in this order, because the parameters of a point may keep its arrays alive
        region_module.own_devices = partial(jax.devices().__getitem__, slice(number))
        points.append(flatten(watched.params(rows[0, :2])))
    return {
        "equal": all(np.array_equal(leaf, points[1][path]) for path, leaf in points[0].items()),
        "whole": [len(shapes) > 0 for shapes in whole],
    }


found["point"] = mixed_in_parts()
region_features.encoding_bytes = lambda *_, **__: 10_000  # nothing is compiled
encoder = Encoder(0, 0, model=model, params=region.base)
eight = Hardware("eight", Chip("cpu", 1.0, 1.0, 0.0, 0.0, "made up", chips_a_host=8), 8)
plans = [planned(1.0)]
while isinstance(plans[-1][0], list):  # each time a little less than the last plan needs
    plans.append(planned((plans[-1][1] - 1) / 2**30))
found["plans"] = plans
print(json.dumps(found))
