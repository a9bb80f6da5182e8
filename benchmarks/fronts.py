"""The front of ``wsr pareto`` beside members, soups, merge methods and NSGA-II with real evaluations, by hypervolume.

python -m benchmarks.fronts --out=FILE [--store=STORE] [--precision=bfloat16] [--pairs=NAME+NAME,...]

Everybody chooses on the probe and validation splits of two datasets with the same probes. The test splits give the
hypervolume below the worst losses of members and centroid, with intervals over their texts. The same on the validation
splits, on which everybody chose, tells what of a difference is a better search, and what is overfitting. NSGA-II gets
as many seconds as the whole call of ``wsr.pareto`` took, scores on the test splits included. It needs pymoo (`pip
install pymoo==0.6.2`); without it, its rows are missing. Rows of finished pairs are kept in FILE: after an
interruption, the same command resumes. The smoke preset trains nothing: it takes made-up members of the tiny encoder.
"""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from absl import app, flags, logging
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.front import hypervolume, non_dominated
from wsr.engine.hull_polynomial import design_of, exact_scores
from wsr.engine.hull_search import SUPPORT, search_hull
from wsr.engine.objective import on_validation
from wsr.engine.settings import Settings
from wsr.merging.method import made
from wsr.merging.run import merge
from wsr.merging.soups import greedy_soup
from wsr.models.load import load
from wsr.models.precision import Precision
from wsr.region.exposure import unexposed
from wsr.region.learned import learned_region
from wsr.region.made_up import made_up_region
from wsr.region.region import Region, from_params
from wsr.report.explorer.pareto import pareto
from wsr.runtime import seeds
from wsr.runtime.compilation import use_persistent_cache
from wsr.statistics.resampling import mean_weights
from wsr.store import Store
from wsr.store.results import Results, read_rows, write_rows

FRONT, NSGA2 = "wsr pareto", "NSGA-II"
RESAMPLES = 1000
METHODS = ("task_arithmetic", "multislerp", "ties", "dare_ties", "della", "breadcrumbs", "sce", "model_stock")

Points = Float[np.ndarray, "points members"]


@dataclass(frozen=True)
class Preset:
    """What is compared, and on how much."""

    pairs: tuple[tuple[str, str], ...]
    sizes: Mapping[str, int]
    max_length: int
    points: int
    """Points that ``wsr.pareto`` scores for its polynomials on each dataset."""
    front: int
    """Points of the front, and the population of NSGA-II."""
    methods: tuple[str, ...]
    precision: Precision = "float32"
    """Precision in which all models are scored."""


PRESETS = {
    "smoke": Preset(
        (("made_up_a1", "made_up_b1"),), {"probe": 30, "validation": 30, "test": 40}, 48, 70, 5, ("task_arithmetic",)
    ),
    "packaged": Preset(
        (
            ("vader_nyt", "newsgroups_comp"),
            ("vader_movie", "newsgroups_rec_sci"),
            ("vader_amazon", "reuters_r8"),
            ("vader_tweets", "election_tweets"),
        ),
        {"probe": 300, "validation": 300, "test": 1000},
        32,
        250,
        24,
        METHODS,
    ),
}


def main(arguments: list[str]) -> None:
    """Compares on each pair that has no rows yet, and prints the table."""
    logging.set_verbosity(logging.WARNING)
    use_persistent_cache()
    preset = PRESETS[flags.FLAGS.preset]
    pairs = tuple((first, second) for first, _, second in (own.partition("+") for own in flags.FLAGS.pairs))
    preset = replace(preset, pairs=pairs or preset.pairs, precision=flags.FLAGS.precision)
    population = made_up_region(3) if flags.FLAGS.preset == "smoke" else learned_region(Store.open(flags.FLAGS.store))
    print("\n".join(table(run(population, preset, Path(flags.FLAGS.out)))))


def run(population: Region, preset: Preset, out: Path) -> list[dict[str, Any]]:
    """Returns the rows of all pairs; measures and writes those that the file lacks.

    Args:
      population: the members.
      preset: what is compared.
      out: JSONL file of the rows.
    """
    rows = read_rows(out) if out.exists() else []
    processor = load("tiny").processor if population.store is None else population.store.processor()
    for pair in preset.pairs:
        if any((tuple(row["datasets"]), row["precision"]) == (pair, preset.precision) for row in rows):
            continue
        datasets, region = [], population
        for name in pair:
            own = load_dataset(name, processor, max_length=preset.max_length, sizes=dict(preset.sizes), at_most=True)
            datasets.append(own)
            _, region = unexposed(region, own, ("probe", "validation", "test"))
        rows += compared(region, datasets, preset)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_rows(out, rows)
        print(f"{' and '.join(pair)}: {len(region)} members", flush=True)
    return [row for row in rows if tuple(row["datasets"]) in preset.pairs and row["precision"] == preset.precision]


def compared(region: Region, datasets: Sequence[Dataset], preset: Preset) -> list[dict[str, Any]]:
    """Returns a row for each way to make models.

    Args:
      region: the members.
      datasets: the datasets between which they compromise.
      preset: the numbers of points.
    """
    began = time.perf_counter()
    found = pareto(
        region, datasets, front=preset.front, points=preset.points, settings=Settings(precision=preset.precision)
    )
    took = time.perf_counter() - began
    protocols = [own for own in found.protocols if own]
    design = design_of(min(len(region), SUPPORT), points=preset.points)
    models: dict[str, Points] = {FRONT: found.points}
    cost: dict[str, dict[str, Any]] = {FRONT: {"seconds": took, "evaluations": len(design.points)}}
    models["members"] = np.eye(len(region))
    models["members and centroid"] = np.concatenate([np.eye(len(region)), region.centroid()[None]])
    settings = Settings(results=Results.in_memory(), precision=preset.precision)
    soups = [greedy_soup(region, own, its, settings) for own, its in zip(datasets, protocols, strict=True)]
    models["greedy soups"] = np.stack([*soups, region.centroid()])
    models["learned coefficients"] = np.stack(
        [
            search_hull(region, chosen, settings=settings).coefficients
            for chosen in ([datasets[0]], [datasets[1]], datasets)
        ]
    )
    if importlib.util.find_spec("pymoo"):
        judged = [on_validation(own) for own in datasets]
        models[NSGA2], cost[NSGA2] = _by_nsga2(region, judged, protocols, preset, took)
    else:
        print("NSGA-II is left out: pymoo is not installed", flush=True)
    merged = from_params(region.model, region.base, {own: merge(region, made(own, {})) for own in preset.methods})
    whole = region.joined(merged.members)
    wide = {name: np.pad(rows, ((0, 0), (0, len(merged)))) for name, rows in models.items()}
    wide["merge methods"] = np.eye(len(whole))[len(region) :]
    ends = np.cumsum([len(rows) for rows in wide.values()])
    parts = dict(zip(wide, np.split(np.arange(ends[-1]), ends[:-1]), strict=True))

    def volumes(judged: Sequence[Dataset]) -> dict[str, Float[np.ndarray, " draws"]]:
        points = np.concatenate(list(wide.values()))
        losses = [
            evaluate(whole, points, own, protocol=its, settings=settings).losses
            for own, its in zip(judged, protocols, strict=True)
        ]
        return _volumes(losses, parts)

    test, validation = volumes(datasets), volumes([on_validation(own) for own in datasets])
    return [
        {
            "datasets": [own.name for own in datasets],
            "way": name,
            "members": len(region),
            "points": len(wide[name]),
            "inverse_l2": [own.inverse_l2 for own in protocols],
            "precision": preset.precision,
            **cost.get(name, {}),
            **_interval("volume", test[name]),
            **_interval("below_the_front", test[FRONT] - test[name]),
            "validation_volume": float(validation[name][0]),
            "validation_below_the_front": float((validation[FRONT] - validation[name])[0]),
        }
        for name in wide
    ]


def _volumes(
    losses: Sequence[Float[np.ndarray, "models _"]], parts: Mapping[str, np.ndarray]
) -> dict[str, Float[np.ndarray, " draws"]]:
    """Hypervolume of each part below the worst loss of members and centroid: of all texts, then of resampled ones."""
    draw = seeds.generator(0, "benchmark of fronts")
    drawn = []
    for own in losses:
        weights = np.concatenate(
            [np.full((1, own.shape[1]), 1 / own.shape[1]), mean_weights(own.shape[1], RESAMPLES, draw)]
        )
        drawn.append(weights @ own.T.astype(np.float64))
    both = np.stack(drawn, axis=-1)  # [draws, models, datasets]
    reference = both[:, parts["members and centroid"]].max(axis=1)
    return {
        name: np.array([hypervolume(own[rows], worst) for own, worst in zip(both, reference, strict=True)])
        for name, rows in parts.items()
    }


def _interval(name: str, draws: Float[np.ndarray, " draws"]) -> dict[str, float]:
    low, high = np.quantile(draws[1:], (0.025, 0.975))
    return {name: float(draws[0]), f"{name}_low": float(low), f"{name}_high": float(high)}


def _by_nsga2(
    region: Region, datasets: Sequence[Dataset], protocols: Sequence[Protocol], preset: Preset, seconds: float
) -> tuple[Points, dict[str, Any]]:
    """Runs NSGA-II with real evaluations for some seconds; coefficients are the variables, divided by their sum.

    The answer is the front of its last generation.

    Args:
      region: the members.
      datasets: the datasets whose test splits are judged.
      protocols: the classifier of each dataset.
      preset: the number of models in a generation, and the precision.
      seconds: a generation begins only before they are over.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2 as Algorithm
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.problems.static import StaticProblem

    problem = Problem(n_var=len(region), n_obj=len(datasets), xl=0.0, xu=1.0)
    algorithm = Algorithm(pop_size=preset.front)
    algorithm.setup(problem, seed=0, verbose=False)
    settings = Settings(results=Results.in_memory(), precision=preset.precision)

    def points_of(variables: Points) -> Points:
        kept = np.maximum(variables, 1e-9)
        return kept / kept.sum(axis=1, keepdims=True)

    began, evaluations = time.perf_counter(), 0
    while not evaluations or time.perf_counter() - began < seconds:
        asked = algorithm.ask()
        rows = points_of(asked.get("X"))
        scored = [
            exact_scores(region, rows, own, protocol=its, settings=settings)[0]
            for own, its in zip(datasets, protocols, strict=True)
        ]
        losses = np.stack(scored, axis=1)
        evaluations += len(rows)
        Evaluator().eval(StaticProblem(problem, F=losses), asked)
        algorithm.tell(infills=asked)
    last = algorithm.pop
    best = non_dominated(last.get("F"))
    taken = time.perf_counter() - began
    return points_of(last.get("X")[best]), {"seconds": taken, "evaluations": evaluations}


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the lines of the table.

    Args:
      rows: the rows of ``compared``.
    """
    lines = [
        "| datasets | way | models | hypervolume, test (95 %) | below the front by (95 %) | the same, validation "
        "| seconds | evaluations |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        chosen_on = f"{row['validation_below_the_front']:.4g}" if "validation_below_the_front" in row else ""
        spent = f"{row['seconds']:.0f} | {row['evaluations']}" if "seconds" in row else " | "
        lines.append(
            f"| {', '.join(row['datasets'])} | {row['way']} | {row['points']} "
            f"| {row['volume']:.4g} ({row['volume_low']:.4g} to {row['volume_high']:.4g}) "
            f"| {row['below_the_front']:.4g} ({row['below_the_front_low']:.4g} to {row['below_the_front_high']:.4g}) "
            f"| {chosen_on} | {spent} |"
        )
    return lines


if __name__ == "__main__":
    flags.DEFINE_enum("preset", "packaged", list(PRESETS), "What is compared.")
    flags.DEFINE_string("store", "runs/demo/store", "The store of the population; smoke needs none.")
    flags.DEFINE_list("pairs", [], "Pairs of datasets, NAME+NAME, in place of those of the preset.")
    flags.DEFINE_enum("precision", "float32", get_args(Precision), "Precision in which all models are scored.")
    flags.DEFINE_string("out", None, "A JSONL file for the rows.", required=True)
    app.run(main)
