"""A small evaluation in a process of its own, run by tests: prints what they compare as JSON.

python tests/evaluation_in_a_process.py [MESH...]    where a MESH is devices by points and texts, such as 4x2
"""

import json
import sys
from functools import partial

import jax
import numpy as np
from jax import monitoring

from wsr.runtime.compilation import use_persistent_cache

counted = {"compile_requests_use_cache": 0, "cache_hits": 0}


def count(event: str, **_: object) -> None:
    """Counts the events of JAX's compilation cache; what was asked for and not found was compiled."""
    name = event.rsplit("/", 1)[-1]
    if name in counted:
        counted[name] += 1


monitoring.register_event_listener(count)
use_persistent_cache()

from worlds import made_up, three_near  # noqa: E402

from wsr.engine import evaluate as evaluate_module  # noqa: E402
from wsr.engine import region_features  # noqa: E402
from wsr.engine.evaluate import evaluate  # noqa: E402
from wsr.engine.settings import Settings  # noqa: E402
from wsr.geometry import low_rank, sampling  # noqa: E402
from wsr.geometry.low_rank import Factors  # noqa: E402
from wsr.geometry.trees import flatten  # noqa: E402
from wsr.models import load  # noqa: E402
from wsr.region.region import Member  # noqa: E402
from wsr.runtime import placement  # noqa: E402
from wsr.runtime.devices import mesh_for, mesh_of  # noqa: E402

tiny = load("tiny")
dataset = made_up(tiny, "made_up_a1")
draw = np.random.default_rng(2)
factors = {
    path: Factors(*(0.1 * draw.normal(size=shape).astype(np.float32) for shape in ((len(leaf), 2), (2, leaf.shape[1]))))
    for path, leaf in flatten(tiny.params).items()
    if leaf.ndim == 2
}
adapter = Member(
    "adapter", "d", "f", "adapter", partial(low_rank.add, tiny.params, factors), load_factors=lambda: factors
)
region = three_near(tiny).joined([adapter])
rows = sampling.convex_hull(np.random.default_rng(1), 5, 4)
losses, placed, uploaded, probed = [], {}, {}, {}
encode = region_features.point_features


def spied(model: object, points: dict, *more: object) -> jax.Array:
    """Notes how points lie when they are encoded: in all, on one device, on how many devices."""
    leaf = jax.tree.leaves(points)[0]
    placed[name] = [len(leaf), len(leaf.addressable_shards[0].data), len(leaf.sharding.device_set)]
    return encode(model, points, *more)


fit = evaluate_module.fit_draws


def watched(*arguments: object) -> list:
    """Notes how the fitted probes lie: in all, on one device, on how many devices."""
    draws = fit(*arguments)
    leaf = draws[0].converged
    probed[name] = [len(leaf), len(leaf.addressable_shards[0].data), len(leaf.sharding.device_set)]
    return draws


put = placement.placed


def weighed(tree: object, sharding: object) -> object:
    """Notes how often each array of models is uploaded, before copies are gathered from parts."""
    arrays = put(tree, sharding)
    bytes_there = sum(part.data.nbytes for leaf in jax.tree.leaves(arrays) for part in leaf.addressable_shards)
    bytes_here = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    uploaded.setdefault(name, set()).add(bytes_there / bytes_here)
    return arrays


region_features.point_features, placement.placed, evaluate_module.fit_draws = spied, weighed, watched
for name in sys.argv[1:] or ["1x1"]:
    mesh = mesh_of(*map(int, name.split("x")))
    # Rows of 48 tokens, two at a time: several steps.
    found = evaluate(region, rows, dataset, settings=Settings(mesh=mesh, chunk=1, rows=2, row_length=48))
    losses.append(found.losses.tolist())
print(
    json.dumps(
        {
            "losses": losses,
            "placed": placed,
            "probed": probed,
            "uploaded": {name: sorted(times) for name, times in uploaded.items()},
            "default": list(mesh_for(len(rows)).shape.values()),
            "compiled": counted["compile_requests_use_cache"] - counted["cache_hits"],
            "from_disk": counted["cache_hits"],
        }
    )
)
