"""Leaves of 768 x 3,072 entries of eight members, merged by every method that needs neither texts nor scores."""

from functools import partial
from statistics import median

import numpy as np
from jaxtyping import Float32

from benchmarks.harness import Mark, Result, side_by_side
from wsr.errors import WsrError
from wsr.geometry.low_rank import Factors, OpenLowRank
from wsr.merging.ingredients import Ingredients, OpenLeaf, ReadPiece
from wsr.merging.method import METHODS, Method, find
from wsr.merging.run import assigned, merge_leaves
from wsr.runtime.cores import usable_cores

SHAPE, MEMBERS, REPEATS = (768, 3072), 8, 3
MOST_SECONDS = 1.0
OF_ADAPTERS, RANK = ("knots", "core_space"), 16
"""Methods that are made for adapters merge adapters of this rank, all others full fine-tunes."""

Matrix = Float32[np.ndarray, "inputs outputs"]


def run() -> list[Result]:
    """Merges one leaf a core at once, as in a merge of whole models; the time of one leaf is the result."""
    paths = [f"layers/{number}/kernel" for number in range(usable_cores())]
    draw = np.random.default_rng(0)
    factors = [_factors(draw) for _ in range(MEMBERS)]
    adapters = [OpenLowRank(partial(_same, own)) for own in factors]
    members = [_opened(np.asarray(own.a @ own.b) + _drawn(draw, 1e-3, SHAPE)) for own in factors]
    base = _opened(_drawn(draw, 0.02, SHAPE))
    results = []
    for name in METHODS:
        kind = find(name)
        if kind.needs or kind.members[0] > MEMBERS:
            continue
        some = (adapters if name in OF_ADAPTERS else members)[: kind.members[1] or MEMBERS]
        names = tuple(f"m{number}" for number in range(len(some)))
        ingredients = Ingredients(names, dict.fromkeys(paths, SHAPE), base, tuple(some))
        try:
            merge = partial(_merge, ingredients, kind())
            merge()
        except (WsrError, TypeError):  # a method that needs an option
            continue
        seconds = side_by_side({name: merge}, repeats=REPEATS, warm_up=False)
        what = f"{len(some)} adapters of rank {RANK}" if name in OF_ADAPTERS else f"{len(some)} members"
        mark = Mark("seconds for a leaf", median(seconds[name]) / len(paths), MOST_SECONDS, at_most=True)
        told = f"merges {len(paths)} leaves of {what}"
        results.append(Result(f"leaf, {name}", told, name, seconds, units=len(paths), unit="leaf", marks=(mark,)))
    return results


def _merge(ingredients: Ingredients, method: Method) -> None:
    merge_leaves(ingredients, assigned(ingredients.shapes, method, ()), lambda leaf, out: None)


def _factors(draw: np.random.Generator) -> Factors:
    return Factors(_drawn(draw, 0.01, (SHAPE[0], RANK)), _drawn(draw, 0.1, (RANK, SHAPE[1])))


def _drawn(draw: np.random.Generator, scale: float, shape: tuple[int, int]) -> Matrix:
    return draw.normal(0, scale, shape).astype(np.float32)


def _same(factors: Factors, path: str) -> Factors:
    return factors


def _opened(leaf: Matrix) -> OpenLeaf:
    flat = leaf.reshape(-1)

    def read(start: int, out: np.ndarray) -> None:
        out[:] = flat[start : start + out.size]

    def open_leaf(path: str) -> ReadPiece:
        return read

    return open_leaf
