"""Surrogate evaluation of points of a hull against our own exact mode, with its error at points that it did not check.

Five members are first fine-tuned from MiniLM, each on another dataset, by the demo's recipe. Exact evaluation of all
the points would take too long: it is timed on a few of them, and the time of a point is multiplied.
"""

from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np

from benchmarks.harness import Mark, Result, side_by_side
from wsr.data.load import load_dataset
from wsr.engine.evaluate import EXACT, evaluate
from wsr.engine.surrogate import HullEvaluation, evaluate_hull
from wsr.geometry import sampling
from wsr.models import Checkpoint, load
from wsr.region.region import Region, from_params
from wsr.runtime import seeds
from wsr.studies.demo import PRESETS
from wsr.training import Job, finetune

DATASETS = ("vader_movie", "vader_amazon", "newsgroups_rec_sci", "reuters_r8", "election_tweets")
TARGET, TEXTS = "vader_nyt", 300  # no member saw it
TOLERANCE = 0.01  # of a point
REPEATS, EXACT_POINTS = 2, 5  # exact points a repeat
WANTED = {200: 8.0, 2000: 40.0}


def run() -> list[Result]:
    """Two requests: of 200 and of 2,000 points."""
    checkpoint = load("minilm")
    region = fine_tuned(checkpoint)
    sizes = {"probe": TEXTS, "test": TEXTS}
    dataset = load_dataset(TARGET, checkpoint.processor, max_length=64, sizes=sizes)
    points = sampling.convex_hull(seeds.generator(0, "points", "benchmark"), max(WANTED), len(region))
    surrogate = partial(evaluate_hull, region, dataset=dataset, tolerance=TOLERANCE)
    surrogate(points[: min(WANTED)])  # compiles
    results = []
    for count, wanted in WANTED.items():
        found: list[HullEvaluation] = []
        losses: list[np.ndarray] = []

        def exactly(losses: list[np.ndarray] = losses) -> None:
            part = points[EXACT_POINTS * len(losses) :][:EXACT_POINTS]
            losses.append(evaluate(region, part, dataset).generalised_loss)

        def by_surrogate(count: int = count, found: list[HullEvaluation] = found) -> None:
            found.append(surrogate(points[:count]))

        seconds = side_by_side({"wsr surrogate": by_surrogate, "wsr exact": exactly}, repeats=REPEATS, warm_up=False)
        seconds["wsr exact"] = [count / EXACT_POINTS * each for each in seconds["wsr exact"]]
        result = Result(
            f"surrogate, {count} points",
            f"MiniLM, K = {len(region)}, uniform points of the hull, {TARGET}: {TEXTS} probe and {TEXTS} test texts, "
            f"linear probe; exact evaluation is timed on {EXACT_POINTS} points, times {count // EXACT_POINTS}",
            "wsr surrogate",
            seconds,
            units=count,
            unit="point",
        )
        results.append(_judged(result, found[-1], np.concatenate(losses), wanted))
    return results


def fine_tuned(checkpoint: Checkpoint) -> Region:
    """Members of the demo's kind."""
    plan = PRESETS["packaged"]
    jobs = [
        Job(
            load_dataset(name, checkpoint.processor, max_length=plan.max_length, sizes=plan.split_sizes), 0, plan.recipe
        )
        for name in DATASETS
    ]
    members = {
        member.job.dataset.name: member.params
        for member in finetune(checkpoint.model, checkpoint.params, jobs, chunk=1)
    }
    return from_params(checkpoint.model, checkpoint.params, members)


def _judged(result: Result, found: HullEvaluation, exact: np.ndarray, wanted: float) -> Result:
    """Adds where the time goes, and the errors at points that are neither nodes nor held out."""
    check, point_seconds = found.checks[-1], median(result.seconds["wsr exact"]) / result.units
    apart = [number for number in range(len(exact)) if found.how[number] != EXACT]
    errors = np.abs(found.generalised_loss[apart] - exact[apart])
    seconds, passes = median(result.seconds["wsr surrogate"]), check.nodes + found.how.count(EXACT)
    figures: dict[str, float | int | str] = {
        "rows of the surrogate": result.units - found.how.count(EXACT),
        "degree": check.degree,
        "forward passes": passes,
        "seconds of an exact point": point_seconds,
        "share of the time that so many exact points take": passes * point_seconds / seconds,
        "reported mean error": check.error,
        "reported bound of the mean error": found.mean_error_bound,
        "largest bound of a point": float(found.error_bounds.max()),
        "points of the validation": len(apart),
        "mean error there": float(errors.mean()) if apart else "none is of the surrogate",
        "largest error there": float(errors.max()) if apart else "none is of the surrogate",
        "range of the exact losses there": float(np.ptp(exact)),
    }
    marks = [Mark("times as fast as exact evaluation", result.ratio("wsr exact"), wanted)]
    if apart:
        marks.append(Mark("largest absolute error of the loss", float(errors.max()), TOLERANCE, at_most=True))
    return replace(result, figures=figures, marks=tuple(marks))
