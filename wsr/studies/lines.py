"""How does the loss run along the line between two members, and past them?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from wsr.engine.evaluate import Evaluation
from wsr.geometry import sampling
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.barrier import barrier, barrier_interval, barriers
from wsr.statistics.bootstrap import bootstrap_mean
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import above, below, power_told, verdict
from wsr.studies.pairs import GENERAL, KINDS, Pair, draw_pairs, general_pairs, named_pairs

NO_BARRIER_NATS = 0.02
"""Up to which a barrier counts as none."""
AVERAGE = "average of both"


@dataclass(frozen=True, eq=False)
class Line:
    """A pair and the losses on the line between its members, on the dataset of each."""

    pair: Pair
    on: Mapping[str, Evaluation]

    @property
    def average(self) -> Float[np.ndarray, " points"]:
        """Mean loss over the datasets."""
        return np.mean([own.generalised_loss for own in self.on.values()], axis=0)


def lines(
    context: Context,
    *,
    alphas: Float[np.ndarray, " points"],
    pairs_a_kind: int,
    between: Sequence[str] = (),
) -> tuple[list[dict], Section]:
    """Scores the lines between two members on the datasets of both.

    Args:
      context: the population.
      alphas: the points of a line; they hold 0 and 1.
      pairs_a_kind: largest number of pairs of a kind.
      between: kinds of pairs as ``FIRST:SECOND``, two names of datasets; none: members of the same dataset, of the same
        family and of different families.
    """
    pairs = named_pairs(context, between, pairs_a_kind) if between else draw_pairs(context, pairs_a_kind)
    scored = _score_lines(context, pairs, alphas)
    rows, cells = [], []
    for line in scored:
        for dataset, evaluation in line.on.items():
            height = barrier_interval(
                alphas, evaluation.losses_by_draw, generator=context.generator("barrier", line.pair.name, dataset)
            )
            rows += _rows(evaluation, "lines", line.pair, alphas)
            rows.append(
                _interval_row("lines", line.pair.kind, line.pair.region.names, dataset, "barrier", height, evaluation)
            )
            cells.append(_pair_cells(line, dataset, evaluation.generalised_loss, alphas, height))
        if len(line.on) > 1:
            cells.append(_pair_cells(line, AVERAGE, line.average, alphas, None))
    kinds = {kind: [line for line in scored if line.pair.kind == kind] for kind in dict.fromkeys(p.kind for p in pairs)}
    found = {kind: _of_kind(context, kind, own, alphas) for kind, own in kinds.items()}
    any_points = next(iter(scored[0].on.values())) if scored else None
    for kind, own in found.items():
        for what, interval in own.items():
            assert any_points is not None
            rows.append(_interval_row("lines", kind, [], "", f"{what}, mean over pairs", interval, any_points))
    between_ends = {kind: [_lowest_between(line, alphas) for line in own] for kind, own in kinds.items()}
    section = Section(
        "Between two models the loss stays low",
        "Is the loss between two members as low as at the members themselves?",
        "On the line between two models the loss is as low as at its ends, often lowest strictly between "
        "(10 MNLI–MNLI, 25 MNLI–ESNLI, 25 MNLI–SST2).",
        "; ".join(
            f"{kind}: mean barrier {_told(own['barrier'])}, middle against the ends {_told(own['middle'])}, "
            f"lowest strictly between in {sum(between_ends[kind])} of {len(between_ends[kind])}"
            for kind, own in found.items()
        ),
        verdict(below(own["barrier"], NO_BARRIER_NATS) for own in found.values()),
        text=(
            f"The claim counts as holding for a kind of pair when the interval of its mean barrier ends at "
            f"{NO_BARRIER_NATS} nats or less. A barrier is a maximum, so noise alone makes it positive; the loss in "
            "the middle minus the mean of the ends has no such bias, and is negative where the line sags.",
            "A line is scored on the datasets of both its ends, and the means take both as separate lines. Where the "
            "average of the two losses is lowest strictly between the ends, the line counts as such. The barrier of "
            f"the average, mean over pairs: {_averages_told(kinds, alphas)}.",
        ),
        figures=tuple(_panels(scored, alphas)),
        tables=(
            Table(
                "Kinds of pairs",
                ("pair", "pairs", "quantity (nats)", "mean", INTERVAL),
                tuple(
                    (kind, len(kinds[kind]), what, interval.value, interval_cell(interval.low, interval.high))
                    for kind, own in found.items()
                    for what, interval in own.items()
                ),
                "Barrier: the largest rise of the loss over the straight line between the ends' losses; 0 means none. "
                "Middle: the loss at alpha 0.5 (or next to it) minus that line. Intervals: bootstrap over the pairs of "
                "each target and its test texts; pairs that share a member count as separate.",
            ),
            Table(
                "Barriers",
                ("pair", "members", "scored on", "barrier", INTERVAL, "best alpha", "best minus better end"),
                tuple(cells),
                "In nats. Interval: bootstrap over test texts, pair by pair; not corrected for the number of pairs; "
                "none for the average, whose texts are those of two datasets.",
            ),
        ),
        command=context.command,
        headline=_between_told({kind: own["barrier"] for kind, own in found.items()}),
        paper_short="as low as at the models, often lower",
        measured_short=f"mean barrier at most {_highest(found):.3f} nats" if found else "no pair",
        power=power_told({kind: own["barrier"] for kind, own in found.items()}),
    )
    return rows, section


def _averages_told(kinds: Mapping[str, Sequence[Line]], alphas: np.ndarray) -> str:
    means = {kind: np.mean([barrier(alphas, line.average) for line in own]) for kind, own in kinds.items()}
    return ", ".join(f"{kind} {mean:+.3f}" for kind, mean in means.items())


def _pair_cells(
    line: Line, dataset: str, loss: Float[np.ndarray, " points"], alphas: np.ndarray, height: Interval | None
) -> tuple[Cell, ...]:
    best = int(loss.argmin())
    gain = float(loss[best] - min(loss[0], loss[-1]))
    value = barrier(alphas, loss) if height is None else height.value
    ends = None if height is None else interval_cell(height.low, height.high)
    return line.pair.kind, line.pair.name, dataset, value, ends, float(alphas[best]), gain


def _lowest_between(line: Line, alphas: np.ndarray) -> bool:
    return bool(0 < alphas[line.average.argmin()] < 1)


def extrapolation(
    context: Context,
    *,
    alphas: Float[np.ndarray, " points"],
    pairs_a_kind: int = 1,
    kinds: Sequence[str] = KINDS[:2],
) -> tuple[list[dict], Section]:
    """Scores the lines past the members, both ways; alphas ascend and hold 0 and 1.

    A line is scored on the dataset of its first member, at the general level (``GENERAL``) on one that neither member
    was trained on.
    """
    pairs = [pair for pair in draw_pairs(context, pairs_a_kind) if pair.kind in kinds]
    pairs += general_pairs(context, pairs_a_kind) if GENERAL in kinds else []
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
                [
                    (pair, f"on {pair.target}", own.generalised_loss)
                    for pair, own in zip(pairs, evaluations, strict=True)
                ],
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


def _score_pairs(context: Context, what: str, pairs: list[Pair], alphas: np.ndarray) -> list[Evaluation]:
    rows = sampling.line(alphas)
    return score_all(context, what, [Request(pair.kind, pair.region, rows, pair.target) for pair in pairs])


def _score_lines(context: Context, pairs: Sequence[Pair], alphas: np.ndarray) -> list[Line]:
    """Scores each line on the datasets of both its ends."""
    rows = sampling.line(alphas)
    requests = [Request(pair.kind, pair.region, rows, dataset) for pair in pairs for dataset in pair.datasets]
    found = iter(score_all(context, "lines", requests))
    return [Line(pair, {dataset: next(found) for dataset in pair.datasets}) for pair in pairs]


def _of_kind(context: Context, kind: str, own: Sequence[Line], alphas: np.ndarray) -> dict[str, Interval]:
    """Returns the mean barrier and middle over lines and datasets, and over the datasets of first and second ends."""
    units = [(place, dataset, found) for line in own for place, (dataset, found) in enumerate(line.on.items())]
    groups = {"": units}
    if any(place for place, _, _ in units):
        for place, told in enumerate((" on the first's dataset", " on the second's dataset")):
            groups[told] = [unit for unit in units if unit[0] == place]
    return {
        what + told: bootstrap_mean(
            [found.losses_by_draw for _, _, found in group],
            [dataset for _, dataset, _ in group],
            statistic,
            generator=context.generator("lines", kind, what + told),
        )
        for told, group in groups.items()
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


def _panels(scored: Sequence[Line], alphas: np.ndarray) -> Iterator[Figure]:
    """Yields a figure for the datasets of the first ends, of the second ends, and their average."""
    sides = [
        ("on the first's dataset", [(line, *next(iter(line.on.items()))) for line in scored]),
        ("on the second's dataset", [(line, *list(line.on.items())[1]) for line in scored if len(line.on) > 1]),
    ]
    for title, own in sides:
        if own:
            curves = [(line.pair, f"on {dataset}", found.generalised_loss) for line, dataset, found in own]
            yield _curves(f"Loss along the line, {title}", curves, alphas, "linear", "0 and 1 are members.")
    both = [(line.pair, f"on {' and '.join(line.on)}", line.average) for line in scored if len(line.on) > 1]
    if both:
        yield _curves(f"Loss along the line, {AVERAGE}", both, alphas, "linear", "0 and 1 are members.")


def _curves(
    title: str,
    curves: Sequence[tuple[Pair, str, Float[np.ndarray, " points"]]],
    alphas: np.ndarray,
    scale: str,
    caption: str,
) -> Figure:
    return Figure(
        "curves",
        title,
        f"Generalised loss; {caption}",
        {
            "series": [
                {"name": f"{pair.name} {where}", "group": pair.kind, "x": alphas, "y": loss}
                for pair, where, loss in curves
            ],
            "x_label": "alpha",
            "y_label": "generalised loss (nats)",
            "x_scale": scale,
            "marks": [{"x": 0.0, "label": "first member"}, {"x": 1.0, "label": "second member"}],
        },
    )
