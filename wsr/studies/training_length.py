"""How long must members be trained until they lie on the rim of their region, and points between them are better?

One population a training length, of the same datasets and seeds. At each length and on each target: In, the target's
own members; In', points of their convex hull; their centroid; the points past them, as seen from the centroid; Ex, the
pretrained model and random directions as long as the task vectors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsr.engine.early import Group
from wsr.engine.evaluate import EXACT, Evaluation
from wsr.geometry import sampling
from wsr.geometry.gram import norms
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.better import Comparison, probability_better
from wsr.statistics.chord import ChordDifference, chord_difference
from wsr.statistics.difference import Difference, holm, mean_difference
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import result_row
from wsr.studies.chords import CANNOT_SAY
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.told import nats
from wsr.studies.harness.verdict import NO_EFFECT_NATS, above, below, power_told, verdict

REPORTED = {"member": "In", "interior": "In'", "exterior": "Ex", "centroid": "centroid", "past": "past the members"}


@dataclass(frozen=True)
class LengthSizes:
    """How many points are drawn at each length and target."""

    interior: int
    random_directions: int
    reach: float = 2.0
    """How far past a member is looked, in distances of the member from the centroid."""


@dataclass(frozen=True, eq=False)
class _Found:
    """What one length came to on one target."""

    groups: dict[str, Evaluation]
    half: Comparison
    as_losses: Comparison
    gain: ChordDifference
    """Loss of In' minus that of its chords, the losses of In weighted as the points are."""
    rise: Difference
    """Loss past the members minus that of the members."""
    ratio: float
    """Mean distance of the members from their centroid over the mean length of their task vectors."""


@dataclass(frozen=True)
class _Means:
    """Means over the targets of one length, with t intervals: what another dataset might show."""

    targets: int
    half: Interval
    """P_B(In' > In), ties as half."""
    gain: Interval
    """Loss of In' minus that of its chords."""
    rise: Interval
    """Loss past the members minus that of the members."""
    ratio: float

    def rows(self, epochs: float) -> list[dict]:
        """Returns a row for each mean."""
        values = (
            ("interior > member", "P_B, ties as half", self.half),
            ("interior - chord", "difference of losses", self.gain),
            ("past - member", "difference of losses", self.rise),
        )
        return [
            result_row(
                group,
                "mean over targets",
                metric,
                own.value,
                texts=self.targets,
                how=EXACT,
                interval=(own.low, own.high),
                study="training length",
                epochs=epochs,
            )
            for group, metric, own in values
        ]


def training_length(populations: Mapping[float, Context], sizes: LengthSizes) -> tuple[list[dict], Section]:
    """Compares populations by the epochs of their members.

    All members count, learned or not: lengths then differ in nothing but training. A target needs two of them.
    """
    found = {
        (epochs, target): own
        for epochs, context in sorted(populations.items())
        for target, own in _of_length(context, epochs, sizes).items()
    }
    adjusted = _adjusted(found)
    rows = [row for place, own in found.items() for row in _rows(*place, own, adjusted[place])]
    means = {epochs: _means(found, epochs) for epochs in sorted({epochs for epochs, _ in found})}
    rows += [row for epochs, own in means.items() for row in own.rows(epochs)]
    if len(means) > 1:
        rows.append(_lengthening_row(_lengthening(found, list(means)), means))
    return rows, _section(populations, found, adjusted, means, sizes)


def _of_length(context: Context, epochs: float, sizes: LengthSizes) -> dict[str, _Found]:
    requests = []
    for target in context.targets:
        requests += _draw(context, target, epochs, sizes)
    groups: dict[str, dict[str, Evaluation]] = {}
    for request, own in zip(requests, score_all(context, f"{epochs:g} epochs", requests), strict=True):
        groups.setdefault(request.target, {})[request.group] = own
    return {target: _found(context, target, epochs, own) for target, own in groups.items()}


def _draw(context: Context, target: str, epochs: float, sizes: LengthSizes) -> list[Request]:
    inside = context.region.where(lambda member: member.dataset == target)
    count = len(inside)
    if count < 2:
        return []
    corners, centre = sampling.corners(count), inside.centroid()
    hull = sampling.convex_hull(context.generator("length", target, f"{epochs:g}"), sizes.interior, count)
    norm, base = float(norms(inside.gram).mean()), inside.base
    outside = inside.emptied().joined(
        context.random_member(number, norm, lambda: base, "base") for number in range(sizes.random_directions)
    )
    directions = sampling.corners(len(outside))
    return [
        Request("member", inside, corners, target),
        Request("interior", inside, hull, target),
        Request("centroid", inside, centre[None], target),
        Request("past", inside, centre + sizes.reach * (corners - centre), target),
        # The pretrained model itself is the row of zeros.
        Request("exterior", outside, np.concatenate([np.zeros((1, len(outside))), directions]), target),
    ]


def _found(context: Context, target: str, epochs: float, groups: dict[str, Evaluation]) -> _Found:
    losses = {group: own.losses_by_draw for group, own in groups.items()}
    names, region = (target, f"{epochs:g}"), groups["member"].region
    half, as_losses = (
        probability_better(
            losses["interior"],
            losses["member"],
            sources_a=Group(region, groups["interior"].coefficients).sources,
            sources_b=Group(region, groups["member"].coefficients).sources,
            ties=ties,
            generator=context.generator("length P_B", *names),
        )
        for ties in ("half", "loss")
    )
    return _Found(
        groups,
        half,
        as_losses,
        chord_difference(losses["interior"], losses["member"], groups["interior"].coefficients, sources=region.names),
        mean_difference(
            losses["past"], losses["member"], paired=True, generator=context.generator("length rise", *names)
        ),
        region.radius() / float(norms(region.gram).mean()),
    )


def _adjusted(found: Mapping[tuple[float, str], _Found]) -> dict[tuple[float, str], tuple[float, float]]:
    """P-values of gain and rise, adjusted for the number of targets of a length."""
    adjusted = {}
    for epochs in {epochs for epochs, _ in found}:
        places = [place for place in found if place[0] == epochs]
        gains = holm([found[place].gain.p_value for place in places])
        rises = holm([found[place].rise.p_value for place in places])
        for place, gain, rise in zip(places, gains, rises, strict=True):
            adjusted[place] = (float(gain), float(rise))
    return adjusted


def _means(found: Mapping[tuple[float, str], _Found], epochs: float) -> _Means:
    own = list(_of(found, epochs).values())

    def over(measure: Callable[[_Found], float]) -> Interval:
        return mean_interval(np.array([measure(result) for result in own]))

    return _Means(
        len(own),
        over(lambda result: result.half.probability),
        over(lambda result: result.gain.mean),
        over(lambda result: result.rise.mean),
        float(np.mean([result.ratio for result in own])),
    )


def _lengthening(found: Mapping[tuple[float, str], _Found], lengths: Sequence[float]) -> Interval:
    """How much lower In' lies under its chords after the longest training than after the shortest, by target."""
    short, long = (_of(found, epochs) for epochs in (lengths[0], lengths[-1]))
    return mean_interval(
        np.array([long[target].gain.mean - short[target].gain.mean for target in long if target in short])
    )


def _lengthening_row(difference: Interval, means: Mapping[float, _Means]) -> dict:
    return result_row(
        "interior - chord",
        "mean over targets",
        "difference of losses, longest minus shortest training",
        difference.value,
        texts=min(own.targets for own in means.values()),
        how=EXACT,
        interval=(difference.low, difference.high),
        study="training length",
        epochs=max(means),
    )


def _of(found: Mapping[tuple[float, str], _Found], epochs: float) -> dict[str, _Found]:
    """Returns what one length came to, by target."""
    return {target: result for (length, target), result in found.items() if length == epochs}


def _rows(epochs: float, target: str, own: _Found, p_holm: tuple[float, float]) -> list[dict]:
    rows = [
        row
        for group, evaluation in own.groups.items()
        for row in evaluation.rows(group, study="training length", epochs=epochs)
    ]
    region = own.groups["member"].region
    values: list[tuple[str, str, float, Comparison | ChordDifference | Difference | None, dict]] = [
        ("interior > member", "P_B, ties as half", own.half.probability, own.half, {}),
        ("interior > member", "P_B, ties as losses", own.as_losses.probability, own.as_losses, {}),
        ("interior - chord", "difference of losses", own.gain.mean, own.gain, {"p_holm": p_holm[0]}),
        ("past - member", "difference of losses", own.rise.mean, own.rise, {"p_holm": p_holm[1]}),
        ("member", "radius over length of the task vectors", own.ratio, None, {}),
    ]
    return rows + [
        result_row(
            group,
            target,
            metric,
            value,
            texts=own.half.texts,
            how=EXACT,
            members=region.names,
            interval=(ends.low, ends.high) if ends else None,
            study="training length",
            epochs=epochs,
            **dict[str, Any](more, p_value=ends.p_value) if ends else more,
        )
        for group, metric, value, ends, more in values
    ]


def _section(
    populations: Mapping[float, Context],
    found: Mapping[tuple[float, str], _Found],
    adjusted: Mapping[tuple[float, str], tuple[float, float]],
    means: Mapping[float, _Means],
    sizes: LengthSizes,
) -> Section:
    lengths = list(means)
    context = next(iter(populations.values()))
    losses: list[tuple[Cell, ...]] = [
        (epochs, target, *(float(own.groups[group].generalised_loss.mean()) for group in REPORTED), own.ratio)
        for (epochs, target), own in found.items()
    ]
    differences: list[tuple[Cell, ...]] = [
        (
            epochs,
            target,
            own.half.probability,
            CANNOT_SAY if own.half.reason else interval_cell(own.half.low, own.half.high),
            own.gain.mean,
            adjusted[epochs, target][0],
            own.rise.mean,
            adjusted[epochs, target][1],
        )
        for (epochs, target), own in found.items()
    ]
    return Section(
        "Long training puts models on the rim",
        "How long must members be trained until points between them are better than they are?",
        "Not in the paper, whose members are trained for up to 10 epochs: there In' beats In (88 % on one dataset), "
        "and the loss rises fast past the members.",
        _measured(found, means),
        _verdict(found, means) if means else "not tested",
        text=(
            *_left_out(populations),
            f"Past the members: {sizes.reach:g} times as far from the centroid as they. Means are over targets, with "
            "t intervals.",
        ),
        figures=_figures(lengths, found, means),
        tables=(
            Table(
                "Losses by length and target",
                ("epochs", "target", *REPORTED.values(), "radius over length"),
                tuple(losses),
                "Mean generalised losses (nats). Radius: mean distance of the members from their centroid, over the "
                "mean length of their task vectors.",
            ),
            Table(
                "Between and past the members, by length and target",
                (
                    "epochs",
                    "target",
                    "P_B(In' > In)",
                    INTERVAL,
                    "In' minus chord",
                    "p, Holm",
                    "past minus In",
                    "p, Holm ",
                ),
                tuple(differences),
                "P_B: ties as half. Differences of mean generalised losses (nats); a chord is the loss of the members, "
                "weighted by a point's coefficients. Intervals and p: over members and texts, and not where a target "
                "has fewer than three members. Holm: p adjusted for the targets of a length.",
            ),
        ),
        command=context.command,
        headline=_headline(means),
        paper_short="88 % on one dataset, 10 epochs or less",
        measured_short=f"{100 * means[lengths[-1]].half.value:.0f} % after {lengths[-1]:g} epochs" if means else "",
        power=power_told({f"{epochs:g} epochs": own.gain for epochs, own in means.items()}),
    )


def _headline(means: Mapping[float, _Means]) -> str:
    if not means:
        return "No length of training left two models of one dataset."
    short, long = min(means), max(means)
    rarely, mostly = (f"{100 * means[epochs].half.value:.0f} %" for epochs in (short, long))
    return (
        f"A mixture of models of one dataset beats these models in {rarely} of comparisons after {short:g} epochs of "
        f"training and in {mostly} after {long:g}; just past the models the loss then changes by "
        f"{means[long].rise.value:+.3f} nats."
    )


def _figures(
    lengths: list[float], found: Mapping[tuple[float, str], _Found], means: Mapping[float, _Means]
) -> tuple[Figure, ...]:
    loss = [
        {
            "name": told,
            "x": lengths,
            "y": [
                float(np.mean([own.groups[group].generalised_loss.mean() for own in _of(found, epochs).values()]))
                for epochs in lengths
            ],
        }
        for group, told in REPORTED.items()
    ]
    differences = [
        {
            "name": f"{epochs:g} epochs",
            "series": [
                {
                    "name": told,
                    "mean": mean.value,
                    "low": mean.low,
                    "high": mean.high,
                    "values": [of(result) for result in _of(found, epochs).values()],
                }
                for told, mean, of in (
                    ("In' minus its chords", own.gain, lambda result: result.gain.mean),
                    ("past the members minus In", own.rise, lambda result: result.rise.mean),
                )
            ],
        }
        for epochs, own in means.items()
    ]
    return (
        Figure(
            "curves",
            "Loss by training length",
            "Mean generalised loss of each group over all targets.",
            {"series": loss, "x_label": "epochs", "y_label": "generalised loss (nats)", "x_scale": "log"},
        ),
        Figure(
            "intervals",
            "Between and past the members",
            "Below 0: better than the members. Means over targets with 95 % intervals; dots are targets.",
            {"rows": differences, "x_label": "difference of mean losses (nats)"},
        ),
    )


def _measured(found: Mapping[tuple[float, str], _Found], means: Mapping[float, _Means]) -> str:
    parts = [
        f"{epochs:g} epochs: P_B(In' > In) {100 * own.half.value:.0f} %, In' minus its chords {nats(own.gain)}, loss "
        f"{nats(own.rise)} just past the members, radius {own.ratio:.2f} of the length"
        for epochs, own in means.items()
    ]
    if len(means) > 1:
        more = nats(_lengthening(found, list(means)))
        parts.append(f"In' minus its chords, {max(means):g} epochs minus {min(means):g}: {more}")
    return "; ".join(parts) or "fewer than two members of each target at any length"


def _verdict(found: Mapping[tuple[float, str], _Found], means: Mapping[float, _Means]) -> str:
    """After the longest training In' beats In, more so than after the shortest, and the loss rises past the members."""
    last = means[max(means)]
    parts = [below(last.gain, margin=NO_EFFECT_NATS), above(last.rise, margin=NO_EFFECT_NATS)]
    if len(means) > 1:
        parts.append(below(_lengthening(found, list(means)), margin=NO_EFFECT_NATS))
    return verdict(parts)


def _left_out(populations: Mapping[float, Context]) -> list[str]:
    return [
        f"At {epochs:g} epochs {target} is left out: it has {count} members."
        for epochs, context in populations.items()
        for target in context.targets
        if (count := context.region.datasets.count(target)) < 2
    ]
