"""An evaluation in a process of its own, run by a test: prints the memory that was predicted and that was used.

python tests/memory_in_a_process.py resident|streamed|factored
"""

import gc
import json
import re
import sys
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
from worlds import made_up

from wsr.engine.evaluate import evaluate
from wsr.engine.region_features import plan_features
from wsr.engine.settings import Settings
from wsr.geometry import sampling
from wsr.geometry.low_rank import Factors, LowRank
from wsr.geometry.trees import flatten
from wsr.models import bert, load
from wsr.region.region import Member, Region
from wsr.runtime.compilation import use_persistent_cache

MEMBERS = 6


def bytes_of(what: str) -> int:
    """A figure of the kernel about this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.search(rf"{what}:\s+(\d+)", status)[1]) * 1024


def drawn(seed: int) -> dict:
    """A member near the base, made when it is asked for as if it were read from a disk."""
    generator = np.random.default_rng(seed)

    def near(leaf: np.ndarray) -> np.ndarray:
        moved = generator.standard_normal(leaf.shape, np.float32)
        moved *= 0.01
        moved += leaf
        return moved

    return jax.tree.map(near, base)


def factors(seed: int) -> LowRank | None:
    """Factors of rank 4 of every matrix, in the way "factored" alone."""
    if sys.argv[1] != "factored":
        return None
    generator = np.random.default_rng(seed)

    def thin(*shape: int) -> np.ndarray:
        return 0.01 * generator.standard_normal(shape, np.float32)

    matrices = {path: leaf.shape for path, leaf in flatten(base).items() if leaf.ndim == 2}
    return {path: Factors(thin(rows, 4), thin(4, columns)) for path, (rows, columns) in matrices.items()}


use_persistent_cache()
sizes = {"vocab_size": 40_000, "hidden_size": 192, "num_attention_heads": 4, "intermediate_size": 384}
model = bert.bert({**bert.EXAMPLE, **sizes, "max_position_embeddings": 64})
shapes = jax.eval_shape(model.init, jax.random.key(0))
base = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.01, np.float32), shapes)
dataset = made_up(load("tiny"), "made_up_a1")
keep = cache if sys.argv[1] == "resident" else (lambda read: read)
region = Region(
    model,
    base,
    [
        Member(f"m{n}", "d", "f", str(n), keep(partial(drawn, n)), load_factors=cache(partial(factors, n)))
        for n in range(MEMBERS)
    ],
    base_sha256="base",
)
rows = sampling.convex_hull(np.random.default_rng(0), 3, MEMBERS)
texts = {split: dataset.splits[split] for split in ("probe", "test")}
budget = None
if sys.argv[1] == "streamed":
    budget = 0.8 * plan_features(region, rows, texts).needed_bytes / 2**30
plan = plan_features(region, rows, texts, settings=Settings(memory_budget_gib=budget))
evaluate(region.emptied(), np.zeros((1, 0)), dataset)  # compiles, and brings in what Python needs
drawn(0)
gc.collect()
before = bytes_of("VmRSS")
Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew
evaluate(region, rows, dataset, settings=Settings(memory_budget_gib=budget))
used = bytes_of("VmHWM") - before
print(json.dumps({"resident": plan.resident, "rounds": plan.rounds, "predicted": plan.needed_bytes, "used": used}))
