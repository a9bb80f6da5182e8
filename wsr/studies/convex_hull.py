"""Are the models between fine-tuned models better than they are, and both better than models outside?

In: models that share a trait. In': points sampled from their convex hull. Ex: models without the trait. Three traits:
the same dataset, the same family (the target's own members left out), any language task (likewise).

In' against In is judged by the loss of each point minus that of its chord (``wsr.statistics.chord``), the others by
P_B. Intervals count datasets, or members of one dataset, as independent, and not models. A claim is about the mean over
targets; single targets are details.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsr.data.load import spec_of
from wsr.data.table import overlapping
from wsr.engine.evaluate import Evaluation
from wsr.geometry import sampling
from wsr.geometry.gram import norms
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL
from wsr.statistics.interval import Interval
from wsr.studies.chords import Chord, chord_rows, chord_table, find_chords, mean_chords
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import NO_EFFECT_NATS, above, below, power_told, verdict
from wsr.studies.outcomes import (
    COMPARED,
    LEVELS,
    PAPER,
    REPORTED,
    Outcome,
    by_claim,
    compare_groups,
    mean_probabilities,
    mean_rows,
    mean_table,
    outcome_cells,
    outcome_rows,
)


@dataclass(frozen=True)
class Sizes:
    """How many points are drawn."""

    interior: int = 4
    """In' points of a level; 0: as many as there are members, as in the paper."""
    random_directions: int = 4
    """Ex of the general level, besides the pretrained model."""


def interior_points(target: str, datasets: Sequence[str], seeds: int, interior: int) -> int:
    """Returns the number of In' points of all levels on one target, if all members learned.

    Args:
      target: the target.
      datasets: datasets of the members.
      seeds: number of members of each dataset.
      interior: In' points of a level; 0: as many as the level has members.
    """
    others = [name for name in datasets if name not in overlapping(target)]
    family = spec_of(target).family
    inside = (
        seeds * (target in datasets),
        seeds * sum(spec_of(name).family == family for name in others),
        seeds * len(others),
    )
    return sum(interior or members for members in inside if members > 1)


def groups(context: Context, sizes: Sizes) -> tuple[list[dict], Section]:
    """Scores In, In' and Ex at three levels on each target, and compares them."""
    rows: list[dict] = []
    figures = []
    scored = _score(context, sizes)
    for target in context.targets:
        for level in LEVELS:
            for group, evaluation in scored[target, level].items():
                rows += evaluation.rows(group, study="groups", level=level)
        figures.append(
            Figure(
                "groups",
                f"Generalised loss on {target}",
                "One dot a model or point, lower is better; the tick is the mean.",
                {
                    "panels": [_panel(level, scored[target, level]) for level in LEVELS],
                    "y_label": "generalised loss (nats)",
                },
            )
        )
    outcomes = compare_groups(context, scored)
    chords = find_chords(scored)
    rows += [row for outcome in outcomes for row in outcome_rows(outcome, scored)]
    rows += chord_rows(chords, scored)
    means, of_chords = mean_probabilities(outcomes), mean_chords(chords)
    rows += mean_rows(context, means, of_chords)
    table = Table(
        "Generalised loss of the groups, and P_B",
        (
            "target",
            "level",
            "P_B of",
            "mean losses",
            "P_B",
            INTERVAL,
            "p, Holm",
            "P_B, ties as losses",
            "paper",
        ),
        tuple(outcome_cells(outcome, scored) for outcome in outcomes),
        "P_B(A > B): the probability that a model drawn from A has a lower generalised loss than one from B, ties as "
        "half; beside it with ties as losses, as in the released code. Interval: over datasets (members, where all are "
        "of one dataset) and test texts; a point of a hull counts as what its corners are, in the share of its "
        "coefficients. With fewer than three of them in a group there is no interval. p: the smallest error at which "
        "the interval excludes 0.5; Holm's correction over the targets of a comparison. The target's own members are "
        "left out of In at the levels family and general. Ex of the level general is the pretrained model and random "
        "directions from it, and once more the directions alone.",
    )
    section = Section(
        "Mixtures beat members, members outsiders",
        "Are points in the hull of fine-tuned models better than those models, and both better than models outside?",
        "In' beats Ex in 100 % of pairs at all three levels; In' beats In in 88 % (dataset), 96.7 % (task), 90 % "
        "(general); In beats Ex in 100 % (dataset), 75.3 % (task), 89.8 % (general).",
        _measured(outcomes),
        _verdict(means, of_chords),
        text=_reasons(outcomes, chords, of_chords, context),
        figures=tuple(figures),
        tables=(chord_table(chords, of_chords), mean_table(means), table),
        command=context.command,
        headline=f"A random mixture of models beats {_beaten(outcomes)}.",
        paper_short="88 to 97 % of members, 100 % of outsiders",
        measured_short=_short(outcomes),
        power=power_told({f"In' minus chord, {level}": own for level, own in of_chords.items()}),
    )
    return rows, section


def _score(context: Context, sizes: Sizes) -> dict[tuple[str, str], dict[str, Evaluation]]:
    requests, places = [], []
    for target in context.targets:
        for level in LEVELS:
            for group, region, coefficients in _draw(context, sizes, target, level):
                if len(coefficients):
                    requests.append(Request(group, region, coefficients, target))
                    places.append((target, level))
    scored: dict[tuple[str, str], dict[str, Evaluation]] = {}
    for place, request, evaluation in zip(places, requests, score_all(context, "groups", requests), strict=True):
        scored.setdefault(place, {})[request.group] = evaluation
    return scored


def _draw(context: Context, sizes: Sizes, target: str, level: str) -> list[tuple[str, Region, np.ndarray]]:
    whole = context.region
    family = context.datasets[target].family
    if level == "dataset":
        inside = whole.where(lambda member: member.dataset == target)
        outside = whole.where(lambda member: member.dataset != target)
    elif level == "family":
        inside = whole.without_dataset(target).where(lambda member: member.family == family)
        outside = whole.where(lambda member: member.family != family)
    else:
        inside = whole.without_dataset(target)
        outside = _random_models(context, inside, sizes.random_directions)
    draws = [("member", inside, sampling.corners(len(inside)))]
    if len(inside) > 1:
        generator = context.generator("hull", target, level)
        drawn = sampling.convex_hull(generator, sizes.interior or len(inside), len(inside))
        draws.append(("interior", inside, drawn))
    exterior = sampling.corners(len(outside))
    if level == "general":  # the pretrained model itself is the row of zeros
        exterior = np.concatenate([np.zeros((1, len(outside))), exterior])
    draws.append(("exterior", outside, exterior))
    return draws


def _random_models(context: Context, inside: Region, count: int) -> Region:
    """The pretrained model plus random directions of the mean length of the task vectors."""
    norm = float(norms(inside.gram).mean())
    base = context.region.base
    return inside.emptied().joined(context.random_member(number, norm, lambda: base, "base") for number in range(count))


def _panel(title: str, own: Mapping[str, Evaluation]) -> dict:
    return {
        "title": title,
        "groups": [
            {
                "name": REPORTED[group],
                "values": own[group].generalised_loss,
                "names": [_point_name(own[group], point) for point in range(len(own[group].coefficients))],
            }
            for group in ("member", "interior", "exterior")
            if group in own
        ],
    }


def _point_name(evaluation: Evaluation, point: int) -> str:
    row = evaluation.coefficients[point]
    used = np.flatnonzero(row)
    if not len(used):
        return "pretrained"
    return evaluation.region.names[used[0]] if len(used) == 1 else f"point {point} between {len(used)} members"


def _measured(outcomes: Sequence[Outcome]) -> str:
    found = by_claim(outcomes)
    parts = []
    for better, worse in COMPARED["general"]:
        means = [
            f"{100 * np.mean([own.half.probability for own in found[level, better, worse]]):.0f} % ({level})"
            for level in LEVELS
            if (level, better, worse) in found
        ]
        if means:
            parts.append(f"P_B({REPORTED[better]} > {REPORTED[worse]}) {', '.join(means)}")
    return "; ".join(parts)


def _mean_probability(outcomes: Sequence[Outcome], better: str, worse: str) -> float | None:
    """Over all levels and targets."""
    own = [one.half.probability for one in outcomes if (one.better, one.worse) == (better, worse)]
    return float(np.mean(own)) if own else None


def _beaten(outcomes: Sequence[Outcome]) -> str:
    inside, outside = (_mean_probability(outcomes, "interior", worse) for worse in ("member", "exterior"))
    told = {"these models": inside, "models from outside": outside}
    parts = [f"{who} in {100 * p:.0f} %" for who, p in told.items() if p is not None]
    return " of comparisons, and ".join(parts) + (" of comparisons" if len(parts) == 1 else "")


def _short(outcomes: Sequence[Outcome]) -> str:
    inside, outside = (_mean_probability(outcomes, "interior", worse) for worse in ("member", "exterior"))
    told = {"of members": inside, "of outsiders": outside}
    return ", ".join(f"{100 * p:.0f} % {who}" for who, p in told.items() if p is not None)


def _verdict(means: Mapping[tuple[str, str, str], Interval], chords: Mapping[str, Interval]) -> str:
    """Whether each claim of the paper holds for the mean over targets: In' against In by chords, the others by P_B.

    At the general level In' and In must beat Ex both with the pretrained model in it and without.
    """
    parts = [above(own, 0.5) for claim, own in means.items() if claim in PAPER and claim[1:] != ("interior", "member")]
    return verdict([*parts, *(below(own, margin=NO_EFFECT_NATS) for own in chords.values())])


def _reasons(
    outcomes: Sequence[Outcome], chords: Sequence[Chord], means: Mapping[str, Interval], context: Context
) -> tuple[str, ...]:
    text = [
        f"Level {level}: {sum(own.found.below for own in chords if own.level == level)} of "
        f"{sum(own.found.points for own in chords if own.level == level)} points lie below their chord, by "
        f"{-mean.value:.3f} nats on average over targets ({-mean.high:.3f} to {-mean.low:.3f})."
        for level, mean in means.items()
    ]
    for (level, better, worse), own in by_claim(outcomes).items():
        if min(outcome.half.probability for outcome in own) <= 0.5:
            told = ", ".join(f"{outcome.half.probability:.2f} on {outcome.target}" for outcome in own)
            text.append(
                f"{REPORTED[better]} does not always beat {REPORTED[worse]} at the level {level}: P_B is {told}."
            )
    text += _lone_sources(context)
    silent = [outcome for outcome in outcomes if outcome.half.reason]
    text.append(
        f"In {sum(outcome.sure for outcome in outcomes)} of {len(outcomes)} comparisons on one target the interval of "
        f"P_B lies above 0.5 and p, corrected over the targets, is under 0.05; in {len(silent)} a group comes from "
        "fewer than three datasets (or members of one dataset), which allows no interval."
    )
    return tuple(text)


def _lone_sources(context: Context) -> list[str]:
    """Targets whose family, without the target itself, is the members of one dataset: no hull of a family."""
    text = []
    for target in context.targets:
        family = context.datasets[target].family
        others = context.region.without_dataset(target).members
        left = {member.dataset for member in others if member.family == family}
        if len(left) == 1:
            text.append(
                f"On {target} the level family is thin: without the target, the family {family} is the members of "
                f"{left.pop()} alone."
            )
    return text
