"""Evaluations by one of several coupled processes, run by tests: prints what they compare as JSON.

python tests/evaluation_of_several.py FOLDER [COORDINATOR PROCESSES PROCESS]
"""

import json
import sys
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from worlds import made_up, three_near

from wsr.engine import region_features
from wsr.engine.evaluate import evaluate
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry import sampling
from wsr.models import load
from wsr.runtime import hosts
from wsr.runtime.compilation import use_persistent_cache
from wsr.store.results import Results

folder = Path(sys.argv[1])
use_persistent_cache()
if len(sys.argv) > 2:
    hosts.couple(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
process, processes = jax.process_index(), jax.process_count()

tiny = load("tiny")
dataset = made_up(tiny, "made_up_a1")
region = three_near(tiny)
rows = sampling.convex_hull(np.random.default_rng(1), 7, 3)
encoded: list[list[int]] = []
wrote: list[str] = []
encode, put = region_features.point_features, Results.put


def spied_encode(model: object, points: dict, *more: object) -> jax.Array:
    """Notes on how many devices, of how many processes, points are encoded together."""
    devices = jax.tree.leaves(points)[0].sharding.device_set
    encoded.append([len(devices), len({device.process_index for device in devices})])
    return encode(model, points, *more)


def spied_put(self: Results, key: str, **arrays: np.ndarray) -> None:
    """Notes what this process writes."""
    wrote.append(key)
    put(self, key, **arrays)


def refuse(*_: object) -> None:
    """``jax.device_put`` calls this where it sends whole arrays around."""
    raise AssertionError("arrays are sent around to be compared")


region_features.point_features, Results.put = spied_encode, spied_put
multihost_utils.assert_equal = refuse


def scored(some: np.ndarray, points: Results) -> dict:
    """What is compared."""
    encoded.clear()
    wrote.clear()
    # Rows of 48 tokens, two at a time: several steps, an odd number of them.
    found = evaluate(region, some, dataset, settings=Settings(results=points, rows=2, row_length=48))
    return {"losses": found.losses.tolist(), "wrote": list(wrote), "encoded": list(encoded)}


def refused(call: object, *arguments: object, **more: object) -> str:
    """The line of an error."""
    try:
        call(*arguments, **more)
    except WsrError as error:
        return str(error)
    return ""


found = {
    "all": scored(rows, Results.on_disk(folder / "points")),
    "again": scored(rows, Results.on_disk(folder / "points")),
    "one": scored(rows[:1], Results.in_memory()),
    "none": scored(rows[:1], Results.on_disk(folder / "points")),
}
# A process to which everything is known already, among others to which it is not.
known = Results.in_memory() if process else Results.on_disk(folder / "points")
found["half"] = scored(rows, known)
if processes > 1:
    found["others"] = refused(scored, rows[: 1 + process], Results.in_memory())
    hosts._LATE_SECONDS = 0.3
    (folder / f"own of {process}").mkdir()
    found["unshared"] = refused(hosts.refuse_unshared, folder / f"own of {process}")
    found["shared"] = refused(hosts.refuse_unshared, folder)
hosts.exchange(b"")
print(json.dumps(found))
