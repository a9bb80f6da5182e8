"""Which start is best to fine-tune from, and which rule finds it before anything is trained?

Each dataset is the newcomer in turn: a new user's few labelled examples. The starts are the pretrained model and the
centroids of all other members, of each family and of each dataset, none of which saw the newcomer. The encoder is
fine-tuned from every start, so that a rule's choice can be compared with all others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from wsr.data.table import find, overlapping
from wsr.engine.suggest import against_the_best, starts
from wsr.region.region import Member, Region
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.runtime.progress import progress
from wsr.statistics.interval import Interval, mean_interval, share_interval
from wsr.store.row import Row, result_row
from wsr.studies.few_shot import FewShot, Start, kept_predictions, right_answers
from wsr.studies.harness.context import Context
from wsr.studies.harness.told import points
from wsr.studies.harness.verdict import NO_EFFECT_SHARE, above, power_told, verdict
from wsr.studies.newcomer import (
    CENTROID,
    PRETRAINED,
    RANDOM,
    RULES,
    Newcomer,
    behind_the_best,
    best_is_named,
    equal_starts,
    near_the_best,
    score_of,
)
from wsr.studies.start_rules import LEARNED, Judge, Judged, choices
from wsr.training import Mode, Recipe

MODES: tuple[Mode, ...] = ("head", "bitfit", "full")
CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)
"""Confidences at which ``wsr suggest`` names the starts that may be the best."""

Case: TypeAlias = tuple[Mode, int]
"""A way to train and a number of examples."""


@dataclass(frozen=True)
class Plan:
    """How starts are compared."""

    sizes: tuple[int, ...]
    """Numbers of examples."""
    seeds: int
    """Number of trainings from each start, each on its own examples."""
    bitfit: Recipe
    full: Recipe
    inverse_l2: float | None = None
    """Inverse of the L2 penalty (C) of all probes; None: chosen by cross-validation."""

    def few_shot(self, mode: Mode, size: int) -> FewShot:
        """Returns how the encoder is trained in one mode on one number of examples."""
        recipe = self.full if mode == "full" else self.bitfit
        return FewShot(size, self.seeds, recipe, inverse_l2=self.inverse_l2)


def which_start(context: Context, plan: Plan) -> tuple[list[Row], Section]:
    """Fine-tunes every target from every start, and compares the rules that choose one.

    Args:
      context: the population and the targets.
      plan: numbers of examples, seeds and recipes.
    """
    found: dict[Case, dict[str, Newcomer]] = {(mode, size): {} for size in plan.sizes for mode in MODES}
    starts_on = {target: _starts(context, target) for target in context.targets}
    total = sum(map(len, starts_on.values())) * len(found) * plan.seeds
    with progress("fine-tuning from every start", total, "runs") as counter:
        for target, regions in starts_on.items():

            def advance(note: str = target) -> None:
                counter.advance(note=note)

            for case, own in _newcomer(context, target, regions, plan, advance).items():
                found[case][target] = own
    return _rows(found, plan), _section(context, found, plan)


def count_starts(target: str, datasets: Sequence[str], seeds: int) -> int:
    """Returns the number of starts for a target if every member learned its dataset.

    Args:
      target: name of the target.
      datasets: names of the members' datasets.
      seeds: number of members of each dataset.
    """
    others = sorted(set(datasets) - overlapping(target))
    families: dict[str, list[str]] = {}
    for name in others:
        families.setdefault(find(name).family, []).append(name)
    groups = {tuple(others), *map(tuple, families.values()), *((name,) for name in others if seeds > 1)}
    return 1 + sum(len(group) * seeds > 1 for group in groups)


def _starts(context: Context, target: str) -> dict[str, Region]:
    """Returns the members that each start averages, by its name."""
    others = context.region.without_dataset(target)
    found = {"pretrained": others.emptied()}
    for start in starts(others):
        averaged = [others.names[k] for k in np.flatnonzero(start.coefficients)]
        if len(averaged) > 1:
            found[start.name] = others.where(_named_in(averaged))
    order = ("pretrained", "centroid of all members")
    return {name: found[name] for name in (*order, *(name for name in found if name not in order))}


def _named_in(names: Sequence[str]) -> Callable[[Member], bool]:
    return lambda member: member.name in names


def _newcomer(
    context: Context, target: str, regions: Mapping[str, Region], plan: Plan, advance: Callable[[], None]
) -> dict[Case, Newcomer]:
    """Returns what is found about a target, by case; ``regions`` are the members that each start averages."""
    dataset = context.datasets[target]
    pretrained = Start(regions["pretrained"], plan.bitfit.precision)
    judges = {
        (size, seed): Judge(context, dataset, seed, plan.few_shot("bitfit", size), pretrained)
        for size in plan.sizes
        for seed in range(plan.seeds)
    }
    judged: dict[tuple[int, int], list[Judged]] = {place: [] for place in judges}
    right: dict[Case, list[np.ndarray]] = {(mode, size): [] for size in plan.sizes for mode in MODES}
    for region in regions.values():
        start = Start(region, plan.bitfit.precision)  # its parameters are loaded once, and only if a result is missing
        for place, judge in judges.items():
            judged[place].append(judge.judge(start))
        for mode, size in right:
            each = []
            for seed in range(plan.seeds):
                predictions = kept_predictions(context, start, dataset, mode, seed, plan.few_shot(mode, size))
                each.append(right_answers(dataset, predictions))
                advance()
            right[mode, size].append(np.stack(each))
    found = {}
    for mode, size in right:
        by_seed = [judged[size, seed] for seed in range(plan.seeds)]
        chosen = [choices(own) for own in by_seed]
        found[mode, size] = Newcomer(
            tuple(regions),
            np.stack(right[mode, size]),
            {rule: [own[rule] for own in chosen] for rule in LEARNED},
            _named(context, target, size, by_seed),
        )
    return found


def _named(
    context: Context, target: str, size: int, by_seed: Sequence[Sequence[Judged]]
) -> dict[float, list[list[int]]]:
    """Returns the starts that ``wsr suggest`` names for each confidence and seed."""
    named: dict[float, list[list[int]]] = {confidence: [] for confidence in CONFIDENCES}
    for seed, judged in enumerate(by_seed):
        losses = np.stack([own["probe"] for own in judged])
        for confidence, own in named.items():
            draw = context.generator("named starts", target, size, seed)
            _, low, _ = against_the_best(losses, confidence, draw)
            own.append(np.flatnonzero(low <= 0).tolist())
    return named


@dataclass(frozen=True)
class _Measured:
    """Means over targets of one rule in one case."""

    gain: Interval
    """Score minus that from the pretrained model."""
    over_centroid: Interval
    """Score minus that from the centroid of all members."""
    behind: Interval
    """Score of the best start minus that of the choice, by halves of the texts."""
    near: Interval
    """How often the choice is within half a point of the best start."""


def _measured(found: Mapping[str, Newcomer], rule: str) -> _Measured:
    def over(measure: Callable[[Newcomer], float]) -> np.ndarray:
        return np.array([measure(own) for own in found.values()])

    return _Measured(
        mean_interval(over(lambda own: score_of(own, rule) - score_of(own, PRETRAINED))),
        mean_interval(over(lambda own: score_of(own, rule) - score_of(own, CENTROID))),
        mean_interval(over(lambda own: behind_the_best(own, rule, np.random.default_rng(0)))),
        share_interval(over(lambda own: near_the_best(own, rule))),
    )


def _rows(found: Mapping[Case, Mapping[str, Newcomer]], plan: Plan) -> list[Row]:
    rows: list[Row] = []
    for (mode, size), own in found.items():
        of_case: list[Row] = []
        for target, newcomer in own.items():
            of_case += [
                result_row(
                    name,
                    target,
                    "score",
                    newcomer.right[number].mean(),
                    texts=newcomer.right.shape[2],
                    how=f"{mode} on {size} examples, mean of {plan.seeds} seeds",
                )
                for number, name in enumerate(newcomer.names)
            ]
        for rule in RULES:
            measured = _measured(own, rule)
            of_case += [
                _mean_row(rule, "gain over pretrained", measured.gain, own),
                _mean_row(rule, "gain over centroid", measured.over_centroid, own),
                _mean_row(rule, "behind the best", measured.behind, own),
                _mean_row(rule, "within half a point", measured.near, own),
            ]
        of_case.append(_mean_row("equal starts", "within half a point", _by_luck(own), own))
        for confidence in CONFIDENCES:
            held, share = _reliability(own, confidence)
            of_case.append(_mean_row("named", "best start is named", held, own) | {"confidence": confidence})
            of_case.append(_mean_row("named", "share of starts", share, own) | {"confidence": confidence})
        rows += [{"study": "which start", "mode": mode, "examples": size} | row for row in of_case]
    return rows


def _mean_row(group: str, metric: str, value: Interval, found: Mapping[str, Newcomer]) -> Row:
    return result_row(
        group,
        "mean over targets",
        metric,
        value.value,
        texts=len(found),
        how="fine-tuned from every start",
        interval=(value.low, value.high),
    )


def _by_luck(found: Mapping[str, Newcomer]) -> Interval:
    """Returns how often a random choice would seem near the best start if all starts were equally good."""
    generator = np.random.default_rng(0)
    shares = [
        np.mean([near_the_best(equal_starts(own, generator), RANDOM) for _ in range(100)]) for own in found.values()
    ]
    return share_interval(np.array(shares))


def _reliability(found: Mapping[str, Newcomer], confidence: float) -> tuple[Interval, Interval]:
    held, share = zip(*(best_is_named(own, confidence) for own in found.values()), strict=True)
    return share_interval(np.array(held)), share_interval(np.array(share))


def _section(context: Context, found: Mapping[Case, Mapping[str, Newcomer]], plan: Plan) -> Section:
    measured = {(case, rule): _measured(own, rule) for case, own in found.items() for rule in RULES}
    over_centroid = {case: measured[case, "probe"].over_centroid for case in found}
    best = max(RULES, key=lambda rule: np.mean([measured[case, rule].gain.value for case in found]))
    near = np.mean([measured[case, "probe"].near.value for case in found])
    luck = np.mean([_by_luck(own).value for own in found.values()])
    gains = {rule: float(np.mean([measured[case, rule].gain.value for case in found])) for rule in RULES}
    counts = sorted({len(own.names) for case in found.values() for own in case.values()})
    told = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
    return Section(
        "The probe finds a start that beats the centroid",
        "Is the start that `wsr suggest` names first a good one to fine-tune from?",
        "Not in the paper, which starts from the centroid.",
        "; ".join(f"{_case_told(case)}: {points(value)} over the centroid" for case, value in over_centroid.items()),
        verdict([above(value, margin=NO_EFFECT_SHARE) for value in over_centroid.values()]),
        text=(
            f"Each target is fine-tuned from {told} starts: the pretrained model and the centroids of all members, of "
            "each family and of each dataset, without members that saw the target. The rules see the examples only. "
            "`probe` is the order of `wsr suggest`. Means and intervals are over targets (Student's t; for shares "
            "Clopper and Pearson).",
            f"If all starts were equally good, noise alone would put a random choice within half a point of the best "
            f"in {100 * luck:.0f} % of cases.",
        ),
        figures=(
            Figure(
                "intervals",
                "What each rule's choice adds",
                "Score after fine-tuning from the chosen start minus that from the pretrained model; whiskers: 95 % "
                "intervals over targets.",
                {
                    "rows": [
                        {
                            "name": _case_told(case),
                            "series": [
                                _series(rule, measured[case, rule].gain) for rule in RULES if rule != PRETRAINED
                            ],
                        }
                        for case in found
                    ],
                    "x_label": "gain over the pretrained model",
                },
            ),
            Figure(
                "curves",
                "How often the best start is named",
                "The starts that `wsr suggest` names at a confidence should hold the best one that often. Diagonal: "
                "exactly as promised.",
                {
                    "series": [
                        *(_curve(case, own) for case, own in found.items()),
                        {"name": "as promised", "x": list(CONFIDENCES), "y": list(CONFIDENCES)},
                    ],
                    "x_label": "confidence",
                    "y_label": "the best start is named",
                },
            ),
        ),
        tables=(_table(found, measured),),
        command=context.command,
        headline=(
            f"The start with the lowest probe loss is within half a point of the best one in {100 * near:.0f} % of "
            f"cases and adds {100 * gains['probe']:+.1f} points to the pretrained model (always the centroid: "
            f"{100 * gains[CENTROID]:+.1f}); the best rule is {best}."
        ),
        paper_short="not in the paper",
        measured_short=", ".join(
            f"{100 * value.value:+.1f} ({_case_told(case)})" for case, value in over_centroid.items()
        ),
        power=power_told({_case_told(case): value for case, value in over_centroid.items()}, "points", scale=100),
    )


def _table(found: Mapping[Case, Mapping[str, Newcomer]], measured: Mapping[tuple[Case, str], _Measured]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for case in found:
        for rule in RULES:
            own = measured[case, rule]
            rows.append(
                (
                    *(case[0], case[1], rule),
                    *(own.gain.value, interval_cell(own.gain.low, own.gain.high)),
                    *(own.behind.value, interval_cell(own.behind.low, own.behind.high)),
                    own.near.value,
                )
            )
    columns = (
        "training",
        "examples",
        "rule",
        "gain over pretrained",
        INTERVAL,
        "behind the best",
        INTERVAL,
        "near the best",
    )
    return Table(
        "Rules that choose a start",
        columns,
        tuple(rows),
        "Behind the best: found on one half of the test texts, scored on the other. Near the best: share of choices "
        "that score within half a point of the best start.",
    )


def _case_told(case: Case) -> str:
    mode, size = case
    return f"{mode}, {size} examples"


def _series(name: str, value: Interval) -> dict:
    return {"name": name, "mean": value.value, "low": value.low, "high": value.high}


def _curve(case: Case, found: Mapping[str, Newcomer]) -> dict:
    held = [_reliability(found, confidence)[0].value for confidence in CONFIDENCES]
    return {"name": _case_told(case), "x": list(CONFIDENCES), "y": held}
