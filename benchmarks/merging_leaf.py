"""One leaf of 768 x 3,072 entries of eight members, merged by every method that needs neither texts nor scores."""

from statistics import median

import numpy as np

import wsr
from benchmarks.harness import Mark, Result, side_by_side
from wsr.errors import WsrError
from wsr.merging.method import METHODS, find

SHAPE, MEMBERS, REPEATS = (768, 3072), 8, 3
MOST_SECONDS = 1.0
RANK = 16
"""Rank of the task vectors, as of LoRA adapters; KnOTS and Core Space are made for these."""


def run() -> list[Result]:
    """Merges the leaf by each method in turn; every method is called once before it is timed."""
    draw = np.random.default_rng(0)
    base = {"layer/kernel": draw.normal(0, 0.02, SHAPE).astype(np.float32)}
    members = {}
    for number in range(MEMBERS):
        moved = draw.normal(0, 0.01, (SHAPE[0], RANK)) @ draw.normal(0, 0.1, (RANK, SHAPE[1]))
        noise = draw.normal(0, 1e-3, SHAPE)
        members[f"m{number}"] = {"layer/kernel": base["layer/kernel"] + (moved + noise).astype(np.float32)}
    results = []
    for name in METHODS:
        method = find(name)
        if method.needs or method.members[0] > MEMBERS:
            continue
        some = dict(list(members.items())[: method.members[1] or MEMBERS])

        def merge(method: type = method, some: dict = some) -> None:
            wsr.merge(some, method(), base=base)

        try:
            merge()
        except (WsrError, TypeError):  # a method that needs an option
            continue
        seconds = side_by_side({name: merge}, repeats=REPEATS, warm_up=False)
        mark = Mark(f"seconds for a leaf of {len(some)}", median(seconds[name]), MOST_SECONDS, at_most=True)
        results.append(Result(f"leaf, {name}", f"merges {len(some)} members", name, seconds, marks=(mark,)))
    return results
