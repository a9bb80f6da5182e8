"""How often the statistics of similarities are wrong: simulated populations with a known truth.

Each row of benchmarks/results/similarity_coverage.jsonl is a design with its measured rate.

python -m benchmarks.similarity_coverage [--only=cosines,accuracies,clusters] [--runs=200]
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags
from jaxtyping import Float

from wsr.statistics.cluster_count import count_clusters
from wsr.studies.harness.clustered import METHODS, Clustered, cluster, member_draws, relate, same

RESULTS = Path(__file__).parent / "results" / "similarity_coverage.jsonl"
DIMENSION = 60
RESAMPLES = 400

_RUNS = flags.DEFINE_integer("runs", 200, "Simulated populations of each design.")
_ONLY = flags.DEFINE_list("only", ["cosines", "accuracies", "clusters"], "Which simulations.")

Similarity = Float[np.ndarray, "models models"]
Centres = Float[np.ndarray, "datasets dimension"]
Labels = Mapping[str, Sequence[str]]
Row = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Runs the simulations and writes their rows in place of earlier ones of the same kind."""
    kept = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    rows = [row for row in kept if row["simulation"] not in _ONLY.value]
    for name in _ONLY.value:
        for row in SIMULATIONS[name](_RUNS.value):
            print(json.dumps(row), flush=True)
            rows.append({"simulation": name, **row})
    rows.sort(key=lambda row: row["simulation"])
    RESULTS.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def cosines(runs: int) -> Iterator[Row]:
    """How often the 95 % interval of a mean cosine contains the mean cosine of very many members."""
    for datasets, seeds in ((2, 3), (4, 3), (8, 3), (8, 5), (14, 5), (4, 10), (14, 20)):
        centres = np.random.default_rng(0).normal(size=(datasets, DIMENSION))
        many = [str(dataset) for dataset in range(datasets) for _ in range(150)]
        large = [_members(np.random.default_rng(seed), centres, many) for seed in range(4)]
        labels = [str(dataset) for dataset in range(datasets) for _ in range(seeds)]
        for relation, pairs, all_pairs in (
            ("same dataset", same(labels), same(many)),
            ("other dataset", ~same(labels), ~same(many)),
        ):
            truth = np.mean([own[np.triu(all_pairs, 1)].mean() for own in large])
            covered = 0
            for run in range(runs):
                draw = np.random.default_rng([1, run])
                matrix = _members(draw, centres, labels)
                (found,) = relate(matrix, {relation: pairs}, member_draws(labels, draw, RESAMPLES))
                covered += found.mean.low <= truth <= found.mean.high
            yield {
                "design": f"{datasets} datasets, {seeds} seeds, {relation}",
                "runs": runs,
                "nominal": 0.95,
                "covered": round(covered / runs, 3),
            }


def accuracies(runs: int) -> Iterator[Row]:
    """How often the 95 % interval of a clustering's accuracy contains the mean accuracy of populations of its size."""
    for datasets, seeds, noise in ((8, 3, 0.6), (8, 3, 1.0), (14, 5, 0.6), (14, 5, 1.0)):
        centres = np.random.default_rng(0).normal(size=(datasets, DIMENSION))
        labels = {"dataset": [str(dataset) for dataset in range(datasets) for _ in range(seeds)]}

        def found(
            *key: int, draws: bool, centres: Centres = centres, labels: Labels = labels, noise: float = noise
        ) -> list[Clustered]:
            generator = np.random.default_rng(key)
            matrix = _members(generator, centres, labels["dataset"], noise)
            return cluster(matrix, labels, member_draws(labels["dataset"], generator) if draws else None)

        others = [found(3, run, draws=False) for run in range(4 * runs)]
        own = [found(4, run, draws=True) for run in range(runs)]
        for number, method in enumerate(METHODS):
            truth = float(np.mean([other[number].scores.one_to_one_accuracy for other in others]))
            intervals = [one[number].intervals["one_to_one_accuracy"] for one in own]
            yield {
                "design": f"{datasets} datasets, {seeds} seeds, noise {noise}, {method}",
                "runs": runs,
                "nominal": 0.95,
                "accuracy": round(truth, 3),
                "covered": round(float(np.mean([one.low <= truth <= one.high for one in intervals])), 3),
                "width": round(float(np.mean([one.high - one.low for one in intervals])), 3),
            }


def clusters(runs: int) -> Iterator[Row]:
    """How often a population is said to have more than one cluster, and how often the right number."""
    for design, (draw, truth) in POPULATIONS.items():
        found = np.array([count_clusters(draw(np.random.default_rng([2, run])), seed=run).used for run in range(runs)])
        yield {
            "design": design,
            "runs": runs,
            "clusters": truth,
            "more than one": round(float((found > 1).mean()), 3),
            "right": round(float((found == truth).mean()), 3),
        }


def _members(generator: np.random.Generator, centres: Centres, labels: Sequence[str], scale: float = 1.0) -> Similarity:
    """Cosines of members around the centres of their datasets; some members and datasets are noisier than others."""
    own = [int(label) for label in labels]
    noise = (
        2.0 * scale * np.exp(0.5 * np.sin(np.arange(len(centres))))[own] * np.exp(0.3 * generator.normal(size=len(own)))
    )
    vectors = centres[own] / np.linalg.norm(centres[own], axis=1, keepdims=True)
    vectors = vectors + noise[:, None] * generator.normal(size=vectors.shape) / np.sqrt(DIMENSION)
    return _cosines(vectors)


def _chain(generator: np.random.Generator, models: int, noise: float, *, even: bool) -> Similarity:
    """Models along one line, each like the next."""
    places = np.linspace(0, 1, models) if even else np.sort(generator.random(models))
    vectors = np.exp(-0.5 * ((places[:, None] - np.linspace(-0.5, 1.5, DIMENSION)) / 0.2) ** 2)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return _cosines(vectors + noise * generator.normal(size=vectors.shape) / np.sqrt(DIMENSION))


def _groups(generator: np.random.Generator, sizes: tuple[int, ...], noise: float) -> Similarity:
    """Groups without anything in common; no sizes but one: no group at all."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    vectors = np.eye(len(sizes), 200)[labels] if len(sizes) > 1 else np.zeros((len(labels), 200))
    return _cosines(vectors + noise * generator.normal(size=vectors.shape) / np.sqrt(200))


def _cosines(vectors: Float[np.ndarray, "models dimension"]) -> Similarity:
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.clip(units @ units.T, -1, 1)


POPULATIONS: Mapping[str, tuple[Callable[[np.random.Generator], Similarity], int]] = {
    **{
        f"chain of {models}, {'even' if even else 'random'} places, noise {noise}": (
            partial(_chain, models=models, noise=noise, even=even),
            1,
        )
        for models in (12, 20, 40)
        for even in (True, False)
        for noise in (0.0, 0.5)
    },
    "20 models with nothing in common": (partial(_groups, sizes=(20,), noise=1.0), 1),
    **{
        f"groups of {' and '.join(map(str, sizes))}, cosine {1 / (1 + noise**2):.2f} within": (
            partial(_groups, sizes=sizes, noise=noise),
            len(sizes),
        )
        for sizes, noise in (
            ((4, 4, 4), 1.0),
            ((4, 4, 4), 2.0),
            ((12, 4, 3), 2.0),
            ((20, 20), 3.0),
            ((3,) * 8, 2.0),
            ((5,) * 8, 2.0),
        )
    },
}
SIMULATIONS: Mapping[str, Callable[[int], Iterator[Row]]] = {
    "cosines": cosines,
    "accuracies": accuracies,
    "clusters": clusters,
}


if __name__ == "__main__":
    app.run(main)
