"""How often ``wsr lineage`` is wrong: independent models, and trees of models, that are trained here.

Each row of benchmarks/results/lineage.jsonl is a design with its rates. Independent models are drawn from their own
seeds, and then trained on the same texts, so that they have everything in common but their initial weights.

python -m benchmarks.lineage [--simulations=independent,power,trees] [--independent=80] [--trees=20]
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import app, flags

import wsr
from wsr.exchange.lineage import LEAST_SHARE, LEVEL, Leaves, in_another_order_p_value, in_order_p_value, lineage_of
from wsr.geometry.trees import flatten, nest
from wsr.models import Model, architectures, build
from wsr.models.permutations import permutable
from wsr.models.tiny import drawn, tokenizer
from wsr.runtime.compilation import use_persistent_cache

RESULTS = Path(__file__).parent / "results" / "lineage.jsonl"
_MODELS = flags.DEFINE_integer("independent", 80, "Independent models of each design; every pair is tested.")
_TREES = flags.DEFINE_integer("trees", 20, "Trees of related models.")
_ONLY = flags.DEFINE_list("simulations", ["independent", "power", "trees"], "Which simulations.")

TRAININGS: dict[str, dict[str, float] | None] = {
    "not trained": None,
    "trained on the same texts": {"epochs": 20.0, "learning_rate": 0.003},
    "trained longer on the same texts": {"epochs": 60.0, "learning_rate": 0.01},
}
"""How independent models are trained."""
POWER_PAIRS = 30
"""Pairs of a model and its start, in each design of ``power``."""

Row = dict[str, Any]
Params = Mapping[str, Any]


QUOTED = (
    *("base and child", "base and adapted", "base and noised", "base and pruned", "child and permuted"),
    *("base and permuted", "child and grandchild", "base and grandchild", "child and sibling"),
    *("sibling and grandchild", "child and other"),
)
"""Pairs of the trees that the documentation quotes."""


def main(arguments: list[str]) -> None:
    """Runs the simulations and writes their rows in place of earlier ones of the same kind."""
    use_persistent_cache()
    for name in _ONLY.value:
        rows = []
        for row in SIMULATIONS[name]():
            print(json.dumps(row), flush=True)
            rows.append({"simulation": name, **row})
        kept = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
        rows += [row for row in kept if row["simulation"] != name]
        RESULTS.write_text("".join(f"{json.dumps(row)}\n" for row in sorted(rows, key=lambda row: row["simulation"])))


def independent() -> Iterator[Row]:
    """How often a common origin is found among models that have none."""
    for name in ("bert", "llama"):
        for training, settings in TRAININGS.items():
            models = [_from_scratch(name, seed, settings) for seed in range(_MODELS.value)]
            moved = _distance(models[0], _from_scratch(name, 0, None))
            units = permutable(_model(name))
            pairs = list(combinations(models, 2))
            in_order = np.array([in_order_p_value(*pair, units)[0] for pair in pairs])
            other = [in_another_order_p_value(*pair, units) for pair in pairs]
            another = np.array([p_value for p_value, _, _ in other])
            share = np.array([agreeing / size for _, agreeing, size in other])
            found = (2 * in_order <= LEVEL) | ((2 * another <= LEVEL) & (share >= LEAST_SHARE))
            yield {
                "design": f"{name}, {training}",
                "moved by training, relative": round(moved, 3),
                "pairs": len(pairs),
                "common origin found": int(found.sum()),
                **{f"in order, p up to {level:g}": _rate(in_order <= level) for level in (0.05, 0.01, 0.001)},
                **{f"in another order, p up to {level:g}": _rate(another <= level) for level in (0.05, 0.01, 0.001)},
                "largest share in another order": round(float(share.max()), 3),
            }


def power() -> Iterator[Row]:
    """How often a common origin is found, in order and in another order, after light and after heavy training."""
    for name in ("bert", "llama"):
        units = permutable(_model(name))
        for training, settings in TRAININGS.items():
            if settings is None:
                continue
            starts = [_from_scratch(name, 9000 + seed, None) for seed in range(POWER_PAIRS)]
            ends = [_from_scratch(name, 9000 + seed, settings) for seed in range(POWER_PAIRS)]
            copies = [_permuted(end, np.random.default_rng(seed), name) for seed, end in enumerate(ends)]
            in_order = [in_order_p_value(*pair, units)[0] for pair in zip(starts, ends, strict=True)]
            another = [in_another_order_p_value(*pair, units) for pair in zip(starts, copies, strict=True)]
            yield {
                "design": f"{name}, {training}",
                "moved by training, relative": round(float(np.mean([*map(_distance, ends, starts)])), 3),
                "pairs": POWER_PAIRS,
                "found in order": sum(2 * p_value <= LEVEL for p_value in in_order),
                "found in another order": sum(
                    2 * p_value <= LEVEL and agreeing >= LEAST_SHARE * size for p_value, agreeing, size in another
                ),
            }


def trees() -> Iterator[Row]:
    """How often a relation is found, missed, or mistaken for another, in trees with a known base and without one."""
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(_TREES.value):
        models, truth = _tree(seed)
        for known in (True, False):
            found = lineage_of(models, "base" if known else None)
            for pair in found.pairs:
                design = f"{truth[pair.names]}, base {'known' if known else 'not known'}"
                told = pair.relation if pair.parent is None else f"{pair.relation}, {_place(pair.parent, pair.names)}"
                for what in (f"{pair.origin}, {pair.change or 'no change told'}", told):
                    counts[design, what] += 1
    for design in sorted({design for design, _ in counts}):
        found_for = {what: count for (other, what), count in sorted(counts.items()) if other == design}
        yield {"design": design, "trees": _TREES.value, **found_for}


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Returns the lines that docs/lineage.md quotes: of trees, those of the pairs in ``QUOTED``."""
    found = []
    trees_of = {row["design"]: row for row in rows if row["simulation"] == "trees"}
    for row in rows:
        first = f"| {row['design']} | {row.get('moved by training, relative')} | {row.get('pairs')} |"
        if row["simulation"] == "power":
            found.append(f"{first} {row['found in order']} | {row['found in another order']} |")
        elif row["simulation"] == "independent":
            shares = [row[f"{test}, p up to 0.01"] for test in ("in order", "in another order")]
            shares.append(row["largest share in another order"])
            told = " | ".join(f"{100 * share:.2g} %" for share in shares)
            found.append(f"{first} {row['common origin found']} | {told} |")
    for pair in QUOTED:
        known, unknown = (trees_of[f"{pair}, base {what}"] for what in ("known", "not known"))
        found.append(f"| {pair} | {_told(known, origin=True)} | {_told(known)} | {_told(unknown)} |")
    return found


def _told(row: Row, *, origin: bool = False) -> str:
    """Returns how often each answer was given."""
    kept = [
        (what, count)
        for what, count in row.items()
        if isinstance(count, int)
        and what != "trees"
        and (what.startswith("in ") or what.endswith("no change told")) == origin
    ]
    return "; ".join(f"{count} {what.removesuffix(', no change told')}" for what, count in kept)


def _place(parent: str, names: tuple[str, str]) -> str:
    return "first older" if parent == names[0] else "second older"


def _tree(seed: int) -> tuple[dict[str, tuple[Model, Leaves]], dict[tuple[str, str], str]]:
    """A base, models trained from it and from one another, copies of all kinds, and a model of another origin."""
    model = _model("bert")
    random = np.random.default_rng(seed)
    base = _from_scratch("bert", 1000 + seed, TRAININGS["trained on the same texts"])
    child = _trained(base, "made_up_b1", seed)
    found = {
        "base": base,
        "child": child,
        "sibling": _trained(base, "made_up_b2", seed + 1),
        "grandchild": _trained(child, "made_up_a2", seed + 2),
        "adapted": _trained(base, "made_up_a2", seed + 3, mode="lora", lora_rank=2, learning_rate=0.01),
        "noised": {path: _noised(leaf, random) for path, leaf in base.items()},
        "pruned": {path: _pruned(leaf) for path, leaf in base.items()},
        "permuted": _permuted(child, random),
        "other": _from_scratch("bert", 5000 + seed, TRAININGS["trained on the same texts"]),
    }
    names = list(found)
    truth = {pair: " and ".join(pair) for pair in combinations(names, 2)}
    return {name: (model, leaves) for name, leaves in found.items()}, truth


def _noised(leaf: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return np.asarray(leaf + 0.05 * leaf.std() * random.standard_normal(leaf.shape), np.float32)


def _pruned(leaf: np.ndarray) -> np.ndarray:
    return np.where(np.abs(leaf) < np.quantile(np.abs(leaf), 0.3), 0, leaf) if leaf.ndim == 2 else leaf


def _permuted(leaves: Leaves, random: np.random.Generator, name: str = "bert") -> Leaves:
    """The same function with hidden units and the residual stream in another order."""
    units, found = permutable(_model(name)), {path: leaf.copy() for path, leaf in leaves.items()}
    groups = [((*own.into, *own.out), own.size) for own in units.feed_forwards] + [(units.stream, units.hidden)]
    for axes, size in groups:
        order = random.permutation(size)
        for axis in axes:
            leaf = np.moveaxis(found[axis.path], axis.axis, 0)
            leaf[axis.start : axis.start + size] = leaf[axis.start : axis.start + size][order]
    return found


def _model(name: str) -> Model:
    config = {**architectures()[name].example, "vocab_size": len(tokenizer()), "pooling": "mean"}
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if name == "bert" else {}
    config |= {"max_position_embeddings": 64} | ({"attention_dropout": 0.0} if name == "llama" else {})
    return build(name, config)


def _from_scratch(name: str, seed: int, settings: Mapping[str, float] | None) -> Leaves:
    """A model drawn from its own seed and trained on the same texts as all others, in an order of its own."""
    model = _model(name)
    shapes = drawn(model, 0.0)
    random = np.random.default_rng(seed)
    start = {
        path: np.asarray(leaf + (0.2 * random.standard_normal(leaf.shape) if np.ndim(leaf) >= 2 else 0), np.float32)
        for path, leaf in flatten(shapes).items()
    }
    return start if settings is None else _trained(start, "made_up_a1", seed, name=name, **settings)


_DATASETS: dict[str, wsr.Dataset] = {}


def _trained(start: Leaves, dataset: str, seed: int, *, name: str = "bert", **settings: Any) -> Leaves:
    if dataset not in _DATASETS:
        sizes = {"finetune": 64, "probe": 40, "validation": 24, "test": 40}
        _DATASETS[dataset] = wsr.load_dataset(dataset, tokenizer(), max_length=48, sizes=sizes)
    recipe = wsr.Recipe(**{"learning_rate": 0.003, "batch_size": 16, "epochs": 4.0, "warmup": 0.006, **settings})
    job = wsr.Job(_DATASETS[dataset], seed, recipe)
    (member,) = wsr.finetune(_model(name), jax.tree.map(np.asarray, nest(start)), [job], chunk=1)
    return {path: np.asarray(leaf) for path, leaf in flatten(member.params).items()}


def _distance(model: Leaves, start: Leaves) -> float:
    """Norm of what training changed, relative to the norm of the start."""
    both = [np.concatenate([own[path].ravel() for path in start]) for own in (model, start)]
    return float(np.linalg.norm(both[0] - both[1]) / np.linalg.norm(both[1]))


def _rate(found: np.ndarray) -> float:
    return round(float(found.mean()), 5)


SIMULATIONS: Mapping[str, Callable[[], Iterator[Row]]] = {
    "independent": independent,
    "power": power,
    "trees": trees,
}


if __name__ == "__main__":
    app.run(main)
