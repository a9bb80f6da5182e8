"""How well few points give the losses of a hull of many members: errors of the polynomials at fresh random points.

python -m benchmarks.many_members --out=FILE [--store=STORE] [--target=NAME] [--members=30] [--points=FOLDER]

Each row is a number of scored points. The errors are those of the mean loss at random points of lines, triangles and
larger hulls, which played no part in the fit. With --points, finished points are kept: after an interruption, the same
command resumes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine.evaluate import Protocol
from wsr.engine.hull_polynomial import design_of, draw_faces, exact_scores, fit_hull_polynomial, one_penalty
from wsr.engine.settings import Settings
from wsr.region.exposure import unexposed
from wsr.region.learned import learned_region
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.runtime.compilation import use_persistent_cache
from wsr.store import Store
from wsr.store.results import Results, write_rows

TOLERANCE = 0.01
"""The tolerance of ``wsr.evaluate_hull``."""
FRESH = 60


def main(arguments: list[str]) -> None:
    """Measures each number of points, prints the table and writes the rows."""
    logging.set_verbosity(logging.WARNING)
    use_persistent_cache()
    store = Store.open(flags.FLAGS.store)
    sizes = {"probe": 300, "validation": 1, "test": 300}
    dataset = load_dataset(flags.FLAGS.target, store.processor(), max_length=32, sizes=sizes, at_most=True)
    _, region = unexposed(learned_region(store), dataset)
    few = set(region.names[: flags.FLAGS.members])
    region = region.where(lambda member: member.name in few)
    settings = Settings(
        results=Results.on_disk(Path(flags.FLAGS.points)) if flags.FLAGS.points else Results.in_memory()
    )
    print(
        "| members | scored points | degree | mean error | largest | within 0.01 | over bound | range of the losses |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rows = []
    for row in measured(region, dataset, [int(own) for own in flags.FLAGS.budgets], settings):
        rows.append(row)
        write_rows(Path(flags.FLAGS.out), rows)
        print(
            f"| {row['members']} | {row['scored_points']} | {row['degree']} | {row['mean_error']:.4f} "
            f"| {row['largest_error']:.4f} | {100 * row['within_tolerance']:.0f} % | {100 * row['over_bound']:.0f} % "
            f"| {row['range_of_losses']:.3f} |",
            flush=True,
        )


def measured(
    region: Region, dataset: Dataset, budgets: Sequence[int], settings: Settings, fresh: int = FRESH
) -> Iterator[dict[str, Any]]:
    """Yields a row for each number of scored points.

    Args:
      region: the members.
      dataset: the target; its probe and test splits are used.
      budgets: the numbers of points.
      settings: chunk size, memory, devices, precision and cache of results.
      fresh: number of points at which errors are measured.
    """
    protocol = Protocol(inverse_l2=one_penalty(region, dataset, settings=settings))
    points = draw_faces(seeds.generator(0, "fresh points of many members"), fresh, len(region))
    exact, _ = exact_scores(region, points, dataset, protocol=protocol, settings=settings)
    for budget in budgets:
        design = design_of(len(region), points=budget)
        found = fit_hull_polynomial(region, dataset, design, protocol=protocol, settings=settings)
        errors = np.abs(found.losses_at(points) - exact)
        yield {
            "target": dataset.name,
            "members": len(region),
            "names": list(region.names),
            "scored_points": len(design.points),
            "nodes": len(design.nodes),
            "degree": found.interpolation.degree,
            "inverse_l2": protocol.inverse_l2,
            "fresh_points": fresh,
            "mean_error": float(errors.mean()),
            "largest_error": float(errors.max()),
            "tolerance": TOLERANCE,
            "within_tolerance": float((errors <= TOLERANCE).mean()),
            "over_bound": float((errors > found.bounds_at(points)[0]).mean()),
            "range_of_losses": float(np.ptp(exact)),
        }


if __name__ == "__main__":
    flags.DEFINE_string("store", "runs/demo/store", "The store of the population.")
    flags.DEFINE_string("target", "vader_nyt", "The dataset to score on.")
    flags.DEFINE_integer("members", 30, "Number of members, the first of the store.")
    flags.DEFINE_list("budgets", ["100", "150", "200", "250", "300"], "Numbers of scored points.")
    flags.DEFINE_string("points", None, "Where finished points are kept; by default in memory.")
    flags.DEFINE_string("out", None, "A JSONL file for the rows.", required=True)
    app.run(main)
