"""How does the loss run along the line between two members, and past them?"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from wsr.engine.evaluate import Evaluation
from wsr.geometry import sampling
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.barrier import barrier_interval, barriers
from wsr.statistics.bootstrap import bootstrap_mean
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import above, below, power_told, verdict

KINDS = ("same dataset", "same family", "across families")
NO_BARRIER_NATS = 0.02
"""Up to which a barrier counts as none."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two members whose connecting line is looked at, scored on a dataset."""

    kind: str
    region: Region
    target: str

    @property
    def name(self) -> str:
        """The two ends."""
        return " – ".join(self.region.names)


def lines(context: Context, *, alphas: Float[np.ndarray, " points"], pairs_a_kind: int) -> tuple[list[dict], Section]:
    """Scores the lines between members of the same dataset, of the same family and of different families."""
    pairs = draw_pairs(context, pairs_a_kind)
    evaluations = _score_pairs(context, "lines", pairs, alphas)
    rows, cells = [], []
    for pair, evaluation in zip(pairs, evaluations, strict=True):
        height = barrier_interval(alphas, evaluation.losses, generator=context.generator("barrier", pair.name))
        rows += _rows(evaluation, "lines", pair, alphas)
        rows.append(_interval_row("lines", pair.kind, pair.region.names, pair.target, "barrier", height, evaluation))
        loss = evaluation.generalised_loss
        best = int(loss.argmin())
        gain = float(loss[best] - min(loss[0], loss[-1]))
        ends = interval_cell(height.low, height.high)
        cells.append((pair.kind, pair.name, height.value, ends, float(alphas[best]), gain))
    found = {kind: _of_kind(context, kind, pairs, evaluations, alphas) for kind in KINDS}
    found = {kind: own for kind, own in found.items() if own}
    rows += [
        _interval_row("lines", kind, [], "", f"{what}, mean over pairs", interval, evaluations[0])
        for kind, own in found.items()
        for what, interval in own.items()
    ]
    between = {kind: [0 < cell[4] < 1 for cell in cells if cell[0] == kind] for kind in found}
    section = Section(
        "Between two models the loss stays low",
        "Is the loss between two members as low as at the members themselves?",
        "On the line between two models the loss is as low as at its ends, often lowest strictly between "
        "(10 MNLI–MNLI, 25 MNLI–ESNLI, 25 MNLI–SST2).",
        "; ".join(
            f"{kind}: mean barrier {_told(own['barrier'])}, middle against the ends {_told(own['middle'])}, "
            f"lowest strictly between in {sum(between[kind])} of {len(between[kind])}"
            for kind, own in found.items()
        ),
        verdict(below(own["barrier"], NO_BARRIER_NATS) for own in found.values()),
        text=(
            f"The claim counts as holding for a kind of pair when the interval of its mean barrier ends at "
            f"{NO_BARRIER_NATS} nats or less. A barrier is a maximum, so noise alone makes it positive; the loss in "
            "the middle minus the mean of the ends has no such bias, and is negative where the line sags.",
        ),
        figures=(_curves("Loss along the line", pairs, evaluations, alphas, "linear", "0 and 1 are members."),),
        tables=(
            Table(
                "Kinds of pairs",
                ("pair", "pairs", "quantity (nats)", "mean", INTERVAL),
                tuple(
                    (kind, len(between[kind]), what, interval.value, interval_cell(interval.low, interval.high))
                    for kind, own in found.items()
                    for what, interval in own.items()
                ),
                "Barrier: the largest rise of the loss over the straight line between the ends' losses; 0 means none. "
                "Middle: the loss at alpha 0.5 (or next to it) minus that line. Intervals: bootstrap over the pairs of "
                "each target and its test texts; pairs that share a member count as separate.",
            ),
            Table(
                "Barriers",
                ("pair", "members", "barrier", INTERVAL, "best alpha", "best minus better end"),
                tuple(cells),
                "In nats, scored on the dataset of the first member. Interval: bootstrap over test texts, pair by "
                "pair; not corrected for the number of pairs.",
            ),
        ),
        command=context.command,
        headline=_between_told({kind: own["barrier"] for kind, own in found.items()}),
        paper_short="as low as at the models, often lower",
        measured_short=f"mean barrier at most {_highest(found):.3f} nats" if found else "no pair",
        power=power_told({kind: own["barrier"] for kind, own in found.items()}),
    )
    return rows, section


def extrapolation(
    context: Context,
    *,
    alphas: Float[np.ndarray, " points"],
    pairs_a_kind: int = 1,
    kinds: Sequence[str] = KINDS[:2],
) -> tuple[list[dict], Section]:
    """Scores the lines past the members, both ways; alphas ascend and hold 0 and 1."""
    pairs = [pair for pair in draw_pairs(context, pairs_a_kind) if pair.kind in kinds]
    evaluations = _score_pairs(context, "extrapolation", pairs, alphas)
    rows = [
        row for pair, own in zip(pairs, evaluations, strict=True) for row in _rows(own, "extrapolation", pair, alphas)
    ]
    outside = [float(alpha) for alpha in alphas if not 0 <= alpha <= 1]
    # All intervals of a kind hold together: Bonferroni over the steps.
    confidence = 1 - 0.05 / max(len(outside), 1)
    cells = []
    rises: dict[str, dict[float, Interval]] = {}
    for kind in kinds:
        own = [(pair, found) for pair, found in zip(pairs, evaluations, strict=True) if pair.kind == kind]
        for alpha in outside if own else []:
            rise = bootstrap_mean(
                [found.losses_by_draw for _, found in own],
                [pair.target for pair, _ in own],
                partial(_rise, alphas, alpha),
                generator=context.generator("extrapolation", kind, repr(alpha)),
                confidence=confidence,
                resamples=4000,
            )
            rises.setdefault(kind, {})[alpha] = rise
            cells.append((kind, len(own), alpha, rise.value, interval_cell(rise.low, rise.high)))
            name = f"rise over the nearer end at alpha {alpha:.4g}"
            rows.append(_interval_row("extrapolation", kind, [], "", name, rise, evaluations[0]))
    table = Table(
        "Past the members",
        ("pair", "pairs", "alpha", "loss minus that of the nearer end (nats)", "interval"),
        tuple(cells),
        f"Intervals: bootstrap over the pairs of each target and its test texts; 95 % for all "
        f"{len(outside)} steps of a kind together (Bonferroni).",
    )
    furthest = {kind: (own[min(own)], own[max(own)]) for kind, own in rises.items()}
    section = Section(
        "Past the models the loss rises",
        "Does the loss rise beyond the members, as it would if they sat on the rim of a basin?",
        "Beyond the fine-tuned models the loss rises fast, in 10 logarithmic steps to alpha 32 and -31.",
        "; ".join(
            f"{kind}: {_told(upper)} nats over the nearer end at alpha {max(rises[kind]):.3g}, {_told(lower)} at "
            f"{min(rises[kind]):.3g}"
            for kind, (lower, upper) in furthest.items()
        ),
        verdict(above(interval) for ends in furthest.values() for interval in ends),
        text=tuple(f"{kind}: {_onset(own)}." for kind, own in rises.items()),
        figures=(
            _curves(
                "Loss past the members",
                pairs,
                evaluations,
                alphas,
                "symlog",
                "0 and 1 are members; alpha on a symmetric log scale.",
            ),
        ),
        tables=(table,),
        command=context.command,
        headline=_past_told(furthest, alphas),
        paper_short="rises fast, up to alpha 32 and -31",
        measured_short=f"{_range_told(furthest)} nats at the furthest points" if furthest else "no pair",
    )
    return rows, section


def _between_told(barriers_of: Mapping[str, Interval]) -> str:
    if not barriers_of:
        return "No pair of models was scored."
    worst = max(barrier.value for barrier in barriers_of.values())
    return f"On the straight line between two models the loss rises by no more than {worst:.3f} nats, mean over pairs."


def _highest(found: Mapping[str, Mapping[str, Interval]]) -> float:
    return max(own["barrier"].value for own in found.values())


def _past_told(furthest: Mapping[str, tuple[Interval, Interval]], alphas: Float[np.ndarray, " points"]) -> str:
    if not furthest:
        return "No pair of models was scored."
    always = min(end.value for ends in furthest.values() for end in ends) > 0
    return (
        f"Past either end of that line the loss {'rises' if always else 'does not always rise'}: "
        f"{_range_told(furthest)} nats at {alphas.max() - 1:.3g} times the distance of the two models."
    )


def _range_told(furthest: Mapping[str, tuple[Interval, Interval]]) -> str:
    values = [end.value for ends in furthest.values() for end in ends]
    return f"{min(values):+.2f} to {max(values):+.2f}"


def draw_pairs(context: Context, pairs_a_kind: int) -> list[Pair]:
    """Draws pairs of each kind, each scored on the dataset of its first member, which is a target."""
    region = context.region
    pairs = []
    for kind in KINDS:
        found = [
            Pair(kind, region.with_members((a, b)), target)
            for target in context.targets
            for a, b in itertools.permutations(region.members, 2)
            if a.dataset == target
            and kind == _kind(a.dataset == b.dataset, a.family == b.family)
            and (a.name < b.name or a.dataset != b.dataset)
        ]
        # A stride over the targets: the first pairs of a kind are of different targets.
        order = context.generator("pairs", kind).permutation(len(found))
        chosen: list[Pair] = []
        for wanted in itertools.islice(itertools.cycle(context.targets), pairs_a_kind):
            options = [found[k] for k in order if found[k].target == wanted and found[k] not in chosen]
            chosen += options[:1]
        pairs += chosen
    return pairs


def _kind(same_dataset: bool, same_family: bool) -> str:
    return KINDS[0] if same_dataset else KINDS[1] if same_family else KINDS[2]


def _score_pairs(context: Context, what: str, pairs: list[Pair], alphas: np.ndarray) -> list[Evaluation]:
    rows = sampling.line(alphas)
    return score_all(context, what, [Request(pair.kind, pair.region, rows, pair.target) for pair in pairs])


def _of_kind(
    context: Context, kind: str, pairs: list[Pair], evaluations: list[Evaluation], alphas: np.ndarray
) -> dict[str, Interval]:
    own = [(pair, found) for pair, found in zip(pairs, evaluations, strict=True) if pair.kind == kind]
    if not own:
        return {}
    losses, targets = [found.losses_by_draw for _, found in own], [pair.target for pair, _ in own]
    return {
        what: bootstrap_mean(losses, targets, statistic, generator=context.generator("lines", kind, what))
        for what, statistic in (("barrier", partial(barriers, alphas)), ("middle", partial(_middle, alphas)))
    }


def _middle(alphas: np.ndarray, losses: Float[np.ndarray, "points draws"]) -> Float[np.ndarray, " draws"]:
    """The loss next to alpha 0.5 minus the straight line between the ends."""
    first, last, middle = (int(np.abs(alphas - alpha).argmin()) for alpha in (0.0, 1.0, 0.5))
    alpha = alphas[middle]
    return losses[middle] - ((1 - alpha) * losses[first] + alpha * losses[last])


def _rise(alphas: np.ndarray, alpha: float, losses: Float[np.ndarray, "points draws"]) -> Float[np.ndarray, " draws"]:
    """The loss at ``alpha``, which is past one of the ends, minus the loss at that end."""
    end, there = (int(np.abs(alphas - wanted).argmin()) for wanted in (1.0 if alpha > 1 else 0.0, alpha))
    return losses[there] - losses[end]


def _onset(rises: Mapping[float, Interval]) -> str:
    """From where on the loss is sure to be higher than at the nearer end, on each side."""
    told = []
    for side, way in (("above 1", 1), ("below 0", -1)):
        steps = sorted((alpha for alpha in rises if way * alpha > 0), key=abs)
        last_low = max((number for number, alpha in enumerate(steps) if rises[alpha].low <= 0), default=-1)
        later = steps[last_low + 1 :]
        told.append(f"{side}, from alpha {later[0]:.3g} on" if later else f"{side}, at no alpha up to the furthest")
    return f"the interval of the rise lies above 0 {'; '.join(told)}"


def _told(interval: Interval) -> str:
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def _interval_row(
    study: str, kind: str, names: Sequence[str], target: str, metric: str, interval: Interval, evaluation: Evaluation
) -> dict:
    return result_row(
        kind,
        target,
        metric,
        interval.value,
        texts=evaluation.losses.shape[1],
        how=evaluation.how[0],
        members=names,
        interval=(interval.low, interval.high),
        study=study,
    )


def _rows(evaluation: Evaluation, study: str, pair: Pair, alphas: np.ndarray) -> list[dict]:
    rows = evaluation.rows(pair.kind, study=study)
    return [row | {"alpha": float(alphas[number // 2])} for number, row in enumerate(rows)]


def _curves(
    title: str, pairs: list[Pair], evaluations: list[Evaluation], alphas: np.ndarray, scale: str, caption: str
) -> Figure:
    return Figure(
        "curves",
        title,
        f"Generalised loss; {caption}",
        {
            "series": [
                {
                    "name": f"{pair.name} on {pair.target}",
                    "group": pair.kind,
                    "x": alphas,
                    "y": own.generalised_loss,
                }
                for pair, own in zip(pairs, evaluations, strict=True)
            ],
            "x_label": "alpha",
            "y_label": "generalised loss (nats)",
            "x_scale": scale,
            "marks": [{"x": 0.0, "label": "first member"}, {"x": 1.0, "label": "second member"}],
        },
    )
