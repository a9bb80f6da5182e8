"""What products in bfloat16 change on real tasks: mean losses of 200 points between members, and their ranking.

python -m benchmarks.precision --out=FILE [--store=STORE] [--targets=NAME,...] [--points=FOLDER]

Each row is a dataset, scored by the default protocol in float32 and in bfloat16. The points lie on lines, in triangles
and in larger hulls of the members that never saw it. With --points, finished points are kept: after an interruption,
the same command resumes.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags, logging
from scipy.stats import spearmanr

from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine.evaluate import evaluate
from wsr.engine.hull_polynomial import draw_faces
from wsr.engine.settings import Settings
from wsr.region.exposure import unexposed
from wsr.region.learned import learned_region
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.runtime.compilation import use_persistent_cache
from wsr.store import Store
from wsr.store.results import Results, write_rows

POINTS = 200
SIZES = {"probe": 300, "validation": 1, "test": 300}


def main(arguments: list[str]) -> None:
    """Compares on each dataset, prints the table and writes the rows."""
    logging.set_verbosity(logging.WARNING)
    use_persistent_cache()
    store = Store.open(flags.FLAGS.store)
    kept = flags.FLAGS.points
    results = Results.on_disk(Path(kept)) if kept else Results.in_memory()
    print("| dataset | points | largest difference of a mean loss | mean | rank correlation | range of the losses |")
    print("|---|---|---|---|---|---|")
    rows = []
    for name in flags.FLAGS.targets:
        dataset = load_dataset(name, store.processor(), max_length=32, sizes=SIZES, at_most=True)
        _, region = unexposed(learned_region(store), dataset)
        row = compared(region, dataset, results)
        rows.append(row)
        write_rows(Path(flags.FLAGS.out), rows)
        print(
            f"| {name} | {row['points']} | {row['largest_difference']:.5f} | {row['mean_difference']:.5f} "
            f"| {row['rank_correlation']:.4f} | {row['range_of_losses']:.3f} |",
            flush=True,
        )


def compared(region: Region, dataset: Dataset, results: Results, points: int = POINTS) -> dict[str, Any]:
    """Returns the row of a dataset.

    Args:
      region: the members.
      dataset: the target; its probe and test splits are used.
      results: finished points; those of an earlier run are read, not computed again.
      points: number of points.
    """
    coefficients = draw_faces(seeds.generator(0, "points of the benchmark of precision"), points, len(region))
    exact, near = (
        evaluate(
            region, coefficients, dataset, settings=Settings(results=results, precision=precision)
        ).generalised_loss
        for precision in ("float32", "bfloat16")
    )
    differences = np.abs(near - exact)
    return {
        "target": dataset.name,
        "members": len(region),
        "points": points,
        "texts": len(dataset.splits["test"]),
        "largest_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
        "difference_of_means": float(near.mean() - exact.mean()),
        "rank_correlation": float(spearmanr(exact, near).statistic),
        "range_of_losses": float(np.ptp(exact)),
    }


if __name__ == "__main__":
    flags.DEFINE_string("store", "runs/demo/store", "The store of the population.")
    flags.DEFINE_list("targets", ["vader_nyt", "newsgroups_comp"], "The datasets to score on.")
    flags.DEFINE_string("points", None, "Where finished points are kept; by default in memory.")
    flags.DEFINE_string("out", None, "A JSONL file for the rows.", required=True)
    app.run(main)
