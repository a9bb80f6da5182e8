"""Are the models between fine-tuned models better than they are, and both better than models outside?

In: models that share a trait. In': points sampled from their convex hull. Ex: models without the trait. Three traits:
the same dataset, the same family (the target's own members left out), any language task (likewise).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from wsr.engine.evaluate import Evaluation
from wsr.geometry import sampling
from wsr.geometry.gram import norms
from wsr.region.region import Region
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.better import Comparison, probability_better
from wsr.statistics.difference import holm
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import above, verdict

LEVELS = ("dataset", "family", "general")
PAIRS = (("interior", "exterior"), ("interior", "member"), ("member", "exterior"))
REPORTED = {"member": "In", "interior": "In'", "exterior": "Ex"}
TIES: tuple[Literal["half", "loss"], ...] = ("half", "loss")
PAPER = {
    ("dataset", "interior", "exterior"): "100 %",
    ("dataset", "interior", "member"): "88 %",
    ("family", "interior", "exterior"): "100 %",
    ("family", "interior", "member"): "96.7 %",
    ("family", "member", "exterior"): "75.3 %",
    ("general", "interior", "exterior"): "100 %",
    ("general", "interior", "member"): "90 %",
}


@dataclass(frozen=True)
class Sizes:
    """How many points are drawn."""

    interior: int = 4
    """In' points of a level; 0: as many as there are members, as in the paper."""
    random_directions: int = 4
    """Ex of the general level, besides the pretrained model."""


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
    outcomes = _compare(context, scored)
    rows += [row for outcome in outcomes for row in _outcome_rows(outcome, scored)]
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
        tuple(_cells(outcome, scored) for outcome in outcomes),
        "P_B(A > B): the probability that a model drawn from A has a lower generalised loss than one from B, ties as "
        "half; beside it with ties as losses, as in the released code. Interval: bootstrap over models and test texts; "
        "with few models it is too narrow (in a simulation with groups one standard deviation apart it held the truth "
        "in 79 % of draws of three models a group, 92 % of ten), and it has no width where groups do not overlap. p: "
        "the larger of that of the bootstrap and that of a two-sided Mann-Whitney test over the models, whose "
        "statistic is P_B; Holm's correction over the targets of a comparison. Points of one hull share its corners "
        "and are taken for independent draws from it. The target's own members are left out of In at the levels "
        "family and general.",
    )
    section = Section(
        "Mixtures beat members, members outsiders",
        "Are points in the hull of fine-tuned models better than those models, and both better than models outside?",
        "In' beats Ex in 100 % of pairs at all three levels; In' beats In in 88 % (dataset), 96.7 % (task), 90 % "
        "(general); In beats Ex in 75.3 % (task).",
        _measured(outcomes),
        _verdict(outcomes),
        text=_reasons(outcomes, context),
        figures=tuple(figures),
        tables=(table,),
        command=context.command,
        headline=f"A random mixture of models beats {_beaten(outcomes)}.",
        paper_short="88 to 97 % of members, 100 % of outsiders",
        measured_short=_short(outcomes),
    )
    return rows, section


@dataclass(frozen=True)
class Outcome:
    """One comparison of two groups on one target."""

    target: str
    level: str
    better: str
    worse: str
    half: Comparison
    """Ties as half."""
    strict: Comparison
    """Ties as losses of the group that should be better."""
    p: float
    """The larger of two, that of the bootstrap and that of a Mann-Whitney test, corrected over targets."""

    @property
    def claim(self) -> tuple[str, str, str]:
        """What is compared, over all targets."""
        return self.level, self.better, self.worse

    @property
    def sure(self) -> bool:
        """Whether the better group is better beyond doubt in models and in texts."""
        return self.half.low > 0.5 and self.p < 0.05


def _compare(context: Context, scored: Mapping[tuple[str, str], Mapping[str, Evaluation]]) -> list[Outcome]:
    outcomes = []
    for level in LEVELS:
        for better, worse in PAIRS:
            found = []
            for target in context.targets:
                own = scored[target, level]
                if better in own and worse in own:
                    a, b = own[better].losses, own[worse].losses
                    half, strict = (
                        probability_better(a, b, ties=ties, generator=context.generator("P_B", target, level, better))
                        for ties in TIES
                    )
                    tested = mann_whitney(a.mean(axis=1), b.mean(axis=1))
                    found.append((target, half, strict, max(half.p_value, tested)))
            adjusted = holm([p for *_, p in found])
            outcomes += [
                Outcome(target, level, better, worse, half, strict, float(p))
                for (target, half, strict, _), p in zip(found, adjusted, strict=True)
            ]
    return outcomes


def mann_whitney(a: Float[np.ndarray, " models_a"], b: Float[np.ndarray, " models_b"]) -> float:
    """Returns the two-sided p-value of the Mann-Whitney test, exact for small groups without ties."""
    from scipy.stats import mannwhitneyu

    if np.ptp(np.concatenate([a, b])) == 0:
        return 1.0
    return float(mannwhitneyu(a, b, alternative="two-sided").pvalue)


def _outcome_rows(outcome: Outcome, scored: Mapping[tuple[str, str], Mapping[str, Evaluation]]) -> list[dict]:
    own = scored[outcome.target, outcome.level]
    return [
        result_row(
            f"{REPORTED[outcome.better]} > {REPORTED[outcome.worse]}",
            outcome.target,
            f"P_B, ties as {ties}",
            comparison.probability,
            texts=comparison.texts,
            how=own[outcome.better].how[0],
            interval=(comparison.low, comparison.high),
            study="groups",
            level=outcome.level,
            p_holm=outcome.p,
            models=[comparison.models_a, comparison.models_b],
        )
        for ties, comparison in (("half", outcome.half), ("losses", outcome.strict))
    ]


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


def _cells(outcome: Outcome, scored: Mapping[tuple[str, str], Mapping[str, Evaluation]]) -> tuple[Cell, ...]:
    own = scored[outcome.target, outcome.level]
    means = (f"{own[group].generalised_loss.mean():.3f}" for group in (outcome.better, outcome.worse))
    return (
        outcome.target,
        outcome.level,
        f"{REPORTED[outcome.better]} > {REPORTED[outcome.worse]}",
        " against ".join(means),
        outcome.half.probability,
        interval_cell(outcome.half.low, outcome.half.high),
        outcome.p,
        outcome.strict.probability,
        PAPER.get(outcome.claim, "not reported"),
    )


def _by_claim(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], list[Outcome]]:
    found: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.claim, []).append(outcome)
    return found


def _measured(outcomes: Sequence[Outcome]) -> str:
    found = _by_claim(outcomes)
    parts = []
    for better, worse in PAIRS:
        means = [
            f"{100 * np.mean([own.half.probability for own in found[level, better, worse]]):.0f} % ({level})"
            for level in LEVELS
            if (level, better, worse) in found
        ]
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


def _verdict(outcomes: Sequence[Outcome]) -> str:
    """Of the claims that the paper makes: whether each P_B is above a half on every target."""
    return verdict(above(outcome.half, 0.5, p=outcome.p) for outcome in outcomes if outcome.claim in PAPER)


def _reasons(outcomes: Sequence[Outcome], context: Context) -> tuple[str, ...]:
    text = []
    for (level, better, worse), own in _by_claim(outcomes).items():
        if min(outcome.half.probability for outcome in own) <= 0.5:
            told = ", ".join(f"{outcome.half.probability:.2f} on {outcome.target}" for outcome in own)
            text.append(
                f"{REPORTED[better]} does not always beat {REPORTED[worse]} at the level {level}: P_B is {told}."
            )
    text += _lone_sources(context)
    text.append(
        f"In {sum(outcome.sure for outcome in outcomes)} of {len(outcomes)} comparisons the interval of P_B lies above "
        "0.5 and p, corrected over the targets, is under 0.05."
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
