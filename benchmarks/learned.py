"""Ways to choose coefficients, at equal numbers of forward passes: on polynomials, by gradients, by the greedy soup.

python -m benchmarks.learned --out=FILE [--preset=packaged] [--store=STORE] [--precision=bfloat16] [--targets=NAME,...]

Each target takes the members that never saw it. Its probe and validation splits choose the points, and its test split,
which plays no part in the choice, compares them. Rows of finished targets are kept in FILE: after an interruption, the
same command resumes. It prints a table with intervals over texts for each target and over targets.

A forward pass evaluates one point on the probe and validation texts. The greedy soup of K members takes 2 K - 1. A step
of gradients takes four: one to score, one to encode again, and a backward pass that costs as much as two. "Lowest loss"
is the point of lowest validation loss of the search on polynomials, before cross-validation moves it towards the
centroid. The smoke preset trains nothing: it takes made-up members of the tiny encoder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from absl import app, flags, logging
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine.evaluate import Protocol, evaluate
from wsr.engine.hull_polynomial import one_penalty
from wsr.engine.hull_search import search_hull
from wsr.engine.learned_coefficients import learn_coefficients
from wsr.engine.objective import on_validation
from wsr.engine.settings import Settings
from wsr.geometry.sampling import corners
from wsr.merging.soups import greedy_soup
from wsr.models.load import load
from wsr.models.precision import Precision
from wsr.region.exposure import unexposed
from wsr.region.learned import learned_region
from wsr.region.made_up import made_up_region
from wsr.region.region import Region
from wsr.runtime.compilation import use_persistent_cache
from wsr.statistics.difference import paired_difference
from wsr.statistics.interval import mean_interval
from wsr.store import Store
from wsr.store.results import read_rows, write_rows

PASSES_OF_A_STEP = 4
POLYNOMIALS = "polynomials"


@dataclass(frozen=True)
class Preset:
    """What is compared, and on how much."""

    targets: tuple[str, ...]
    budgets: tuple[int, ...]
    """Forward passes, as multiples of those of the greedy soup."""
    sizes: Mapping[str, int]
    max_length: int
    precision: Precision = "float32"
    """Precision in which all models are scored."""


PRESETS = {
    "smoke": Preset(("made_up_a1",), (1, 2), {"probe": 30, "validation": 30, "test": 40}, 48),
    "packaged": Preset(
        (
            "vader_movie",
            "vader_amazon",
            "vader_nyt",
            "vader_tweets",
            "newsgroups_rec_sci",
            "newsgroups_comp",
            "reuters_r8",
            "election_tweets",
        ),
        (1, 2, 4),
        {"probe": 300, "validation": 300, "test": 1000},
        32,
    ),
}


def main(arguments: list[str]) -> None:
    """Compares on each target that has no rows yet, and prints the table."""
    logging.set_verbosity(logging.WARNING)
    use_persistent_cache()
    preset, out = PRESETS[flags.FLAGS.preset], Path(flags.FLAGS.out)
    preset = replace(preset, targets=tuple(flags.FLAGS.targets) or preset.targets, precision=flags.FLAGS.precision)
    population = made_up_region(3) if flags.FLAGS.preset == "smoke" else learned_region(Store.open(flags.FLAGS.store))
    print("\n".join(table(run(population, preset, out))))


def run(population: Region, preset: Preset, out: Path) -> list[dict[str, Any]]:
    """Returns the rows of all targets; measures and writes those that the file lacks.

    Args:
      population: the members.
      preset: what is compared.
      out: JSONL file of the rows.
    """
    rows = read_rows(out) if out.exists() else []
    processor = load("tiny").processor if population.store is None else population.store.processor()
    for target in preset.targets:
        if any((row["target"], row["precision"]) == (target, preset.precision) for row in rows):
            continue
        dataset = load_dataset(target, processor, max_length=preset.max_length, sizes=dict(preset.sizes), at_most=True)
        _, region = unexposed(population, dataset, ("probe", "validation", "test"))
        rows += compared(region, dataset, preset.budgets, Settings(precision=preset.precision))
        out.parent.mkdir(parents=True, exist_ok=True)
        write_rows(out, rows)
        print(f"{target}: {len(region)} members", flush=True)
    return [row for row in rows if row["target"] in preset.targets and row["precision"] == preset.precision]


def compared(region: Region, dataset: Dataset, budgets: Sequence[int], settings: Settings) -> Iterator[dict[str, Any]]:
    """Yields a row for each way to choose a point and each number of passes.

    All ways use probes with one penalty, which cross-validation chooses at the centroid.

    Args:
      region: the members.
      dataset: the target.
      budgets: forward passes, as multiples of those of the greedy soup.
      settings: precision of all models.
    """
    judged = on_validation(dataset)
    protocol = Protocol(inverse_l2=one_penalty(region, judged, settings=settings))
    soup = 2 * len(region) - 1
    points: dict[tuple[str, int], Float[np.ndarray, " members"]] = {
        ("centroid", 1): region.centroid(),
        ("greedy soup", soup): greedy_soup(region, dataset, protocol, settings),
    }
    alone = evaluate(region, corners(len(region)), judged, protocol=protocol, settings=settings).generalised_loss
    points["best member", len(region)] = corners(len(region))[alone.argmin()]
    taken = {}
    for passes in (own * soup for own in budgets):
        found = search_hull(region, [dataset], points=passes - len(region), protocol=protocol, settings=settings)
        points[POLYNOMIALS, passes], points["lowest loss", passes] = found.coefficients, found.points[found.order[0]]
        taken[POLYNOMIALS, passes] = taken["lowest loss", passes] = len(found.points)
        steps = max(1, (passes - 1) // PASSES_OF_A_STEP)
        points["gradients", passes] = learn_coefficients(
            region, dataset, steps=steps, protocol=protocol, settings=settings
        ).coefficients
        taken["gradients", passes] = 1 + PASSES_OF_A_STEP * steps
    chosen = np.stack(list(points.values()))
    validation = evaluate(region, chosen, judged, protocol=protocol, settings=settings)
    test = evaluate(region, chosen, dataset, protocol=protocol, settings=settings)
    for number, (name, passes) in enumerate(points):
        gain = paired_difference(test.losses[0], test.losses[number])
        yield {
            "target": dataset.name,
            "way": name,
            "passes": taken.get((name, passes), passes),
            "budget": passes / soup,
            "members": len(region),
            "used": int(np.count_nonzero(chosen[number])),
            "inverse_l2": protocol.inverse_l2,
            "precision": settings.precision,
            "validation_loss": float(validation.generalised_loss[number]),
            "test_loss": float(test.generalised_loss[number]),
            "score": float(test.scores[number]),
            "metric": dataset.metric,
            "below_centroid": gain.mean,
            "low": gain.low if number else 0.0,
            "high": gain.high if number else 0.0,
            "test_losses": test.losses[number].astype(float).round(6).tolist(),
        }


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the lines of two tables: each target, and polynomials against each rival over the targets.

    Args:
      rows: the rows of ``compared``.
    """
    lines = [
        "| target | way | passes | members used | validation loss | test loss | score "
        "| below the centroid, test (95 %) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        lines.append(
            f"| {row['target']} | {row['way']} | {row['passes']} | {row['used']} of {row['members']} "
            f"| {row['validation_loss']:.4f} | {row['test_loss']:.4f} | {row['score']:.3f} "
            f"| {row['below_centroid']:+.4f} ({row['low']:+.4f} to {row['high']:+.4f}) |"
        )
    lines += [
        "",
        "| passes / those of the greedy soup | rival | polynomials have a lower test loss on | beyond chance "
        "| a higher one beyond chance | below the rival by, mean over targets (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for budget in sorted({row["budget"] for row in rows if row["way"] == POLYNOMIALS}):
        ours = {row["target"]: row for row in rows if row["way"] == POLYNOMIALS and row["budget"] == budget}
        for rival in ("greedy soup", "gradients", "lowest loss", "best member", "centroid"):
            theirs = {
                row["target"]: row
                for row in rows
                if row["way"] == rival and (rival not in ("gradients", "lowest loss") or row["budget"] == budget)
            }
            gains = [
                paired_difference(np.array(theirs[own]["test_losses"]), np.array(ours[own]["test_losses"]))
                for own in ours
            ]
            better, sure, worse = (
                sum(map(which, gains))
                for which in (lambda own: own.mean > 0, lambda own: own.low > 0, lambda own: own.high < 0)
            )
            mean = mean_interval(np.array([own.mean for own in gains]))
            lines.append(
                f"| {budget:g} | {rival} | {better} of {len(gains)} | {sure} | {worse} "
                f"| {mean.value:+.4f} ({mean.low:+.4f} to {mean.high:+.4f}) |"
            )
    return lines


if __name__ == "__main__":
    flags.DEFINE_enum("preset", "packaged", list(PRESETS), "What is compared.")
    flags.DEFINE_string("store", "runs/demo/store", "The store of the population; smoke needs none.")
    flags.DEFINE_list("targets", [], "Targets in place of those of the preset.")
    flags.DEFINE_enum("precision", "float32", get_args(Precision), "Precision in which all models are scored.")
    flags.DEFINE_string("out", None, "A JSONL file for the rows.", required=True)
    app.run(main)
