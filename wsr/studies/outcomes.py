"""P_B of the groups In, In' and Ex at three levels, and the paper's values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wsr.engine.early import Group
from wsr.engine.evaluate import Evaluation
from wsr.report.document import Cell, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.better import Comparison, mean_probability, probability_better
from wsr.statistics.difference import holm
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.chords import CANNOT_SAY, Scored
from wsr.studies.harness.context import Context

LEVELS = ("dataset", "family", "general")
PAIRS = (("interior", "exterior"), ("interior", "member"), ("member", "exterior"))
DIRECTIONS = "directions"
"""Ex of the general level without the pretrained model. Whether the paper's Ex holds it is not known here."""
COMPARED = dict.fromkeys(LEVELS, PAIRS) | {
    "general": (*PAIRS, ("interior", DIRECTIONS), ("member", DIRECTIONS)),
}
REPORTED = {"member": "In", "interior": "In'", "exterior": "Ex", DIRECTIONS: "Ex without the pretrained model"}
TIES: tuple[Literal["half", "loss"], ...] = ("half", "loss")
PAPER = {
    ("dataset", "interior", "exterior"): "100 %",
    ("dataset", "interior", "member"): "88 %",
    ("dataset", "member", "exterior"): "100 %",
    ("family", "interior", "exterior"): "100 %",
    ("family", "interior", "member"): "96.7 %",
    ("family", "member", "exterior"): "75.3 %",
    ("general", "interior", "exterior"): "100 %",
    ("general", "interior", "member"): "90 %",
    ("general", "member", "exterior"): "89.8 %",
    ("general", "interior", DIRECTIONS): "100 %",
    ("general", "member", DIRECTIONS): "89.8 %",
}
"""P_B in the paper; where it is not known whether Ex holds the pretrained model, both readings have its value."""


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
    """Corrected over targets."""

    @property
    def claim(self) -> tuple[str, str, str]:
        """What is compared, over all targets."""
        return self.level, self.better, self.worse

    @property
    def sure(self) -> bool:
        """Whether the better group is better beyond doubt."""
        return self.half.low > 0.5 and self.p < 0.05


def compare_groups(context: Context, scored: Scored) -> list[Outcome]:
    """Returns every comparison at every level on every target that has both groups."""
    outcomes = []
    for level in LEVELS:
        for better, worse in COMPARED[level]:
            found = []
            for target in context.targets:
                own = _with_directions(scored[target, level], level)
                if better in own and worse in own:
                    half, strict = (
                        probability_better(
                            own[better].losses_by_draw,
                            own[worse].losses_by_draw,
                            sources_a=Group(own[better].region, own[better].coefficients).sources,
                            sources_b=Group(own[worse].region, own[worse].coefficients).sources,
                            ties=ties,
                            generator=context.generator("P_B", target, level, better),
                        )
                        for ties in TIES
                    )
                    found.append((target, half, strict))
            adjusted = holm([half.p_value for _, half, _ in found])
            outcomes += [
                Outcome(target, level, better, worse, half, strict, float(p))
                for (target, half, strict), p in zip(found, adjusted, strict=True)
            ]
    return outcomes


def _with_directions(scored: Mapping[str, Evaluation], level: str) -> Mapping[str, Evaluation]:
    """Returns the groups, at the general level also Ex without its first point, which is the pretrained model."""
    if level != "general" or len(scored["exterior"].coefficients) < 2:
        return scored
    whole = scored["exterior"]
    alone = replace(
        whole,
        coefficients=whole.coefficients[1:],
        losses_by_draw=whole.losses_by_draw[:, 1:],
        predictions_by_draw=whole.predictions_by_draw[:, 1:],
        how=whole.how[1:],
        inverse_l2=None,
        converged=None,
    )
    return {**scored, DIRECTIONS: alone}


def mean_probabilities(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], Interval]:
    """Returns P_B of each comparison, as a mean over targets."""
    return {claim: mean_probability([own.half for own in found]) for claim, found in by_claim(outcomes).items()}


def by_claim(outcomes: Sequence[Outcome]) -> dict[tuple[str, str, str], list[Outcome]]:
    """Returns the outcomes of each comparison, by level and groups."""
    found: dict[tuple[str, str, str], list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.claim, []).append(outcome)
    return found


def mean_rows(
    context: Context, means: Mapping[tuple[str, str, str], Interval], chords: Mapping[str, Interval]
) -> list[dict]:
    found = [
        (f"{REPORTED[better]} > {REPORTED[worse]}", "P_B, mean over targets", level, own)
        for (level, better, worse), own in means.items()
    ]
    found += [("In' - chord", "difference of losses, mean over targets", level, own) for level, own in chords.items()]
    return [
        result_row(
            group,
            "all targets",
            metric,
            own.value,
            texts=len(context.targets),
            how="mean over targets, with an interval over targets",
            interval=(own.low, own.high),
            study="groups",
            level=level,
        )
        for group, metric, level, own in found
    ]


def outcome_rows(outcome: Outcome, scored: Scored) -> list[dict]:
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


def mean_table(means: Mapping[tuple[str, str, str], Interval]) -> Table:
    return Table(
        "P_B, mean over targets",
        ("level", "P_B of", "P_B", INTERVAL, "paper"),
        tuple(
            (level, f"{REPORTED[better]} > {REPORTED[worse]}", own.value, _ends(own), PAPER.get(claim, "not reported"))
            for claim, own in means.items()
            for level, better, worse in [claim]
        ),
        "Intervals are over targets.",
    )


def _ends(interval: Interval | Comparison) -> str | None:
    return interval_cell(interval.low, interval.high)


def outcome_cells(outcome: Outcome, scored: Scored) -> tuple[Cell, ...]:
    own = _with_directions(scored[outcome.target, outcome.level], outcome.level)
    means = (f"{own[group].generalised_loss.mean():.3f}" for group in (outcome.better, outcome.worse))
    return (
        outcome.target,
        outcome.level,
        f"{REPORTED[outcome.better]} > {REPORTED[outcome.worse]}",
        " against ".join(means),
        outcome.half.probability,
        CANNOT_SAY if outcome.half.reason else _ends(outcome.half),
        outcome.p,
        outcome.strict.probability,
        PAPER.get(outcome.claim, "not reported"),
    )
