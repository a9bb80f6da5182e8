"""How long must members be trained until they lie on the rim of their region, and points between them are better?

One population a training length, of the same datasets and seeds. At each length and on each target: In, the target's
own members; In', points of their convex hull; their centroid; the points past them, as seen from the centroid; Ex, the
pretrained model and random directions as long as the task vectors.
"""

from collections.abc import Mapping
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
from wsr.statistics.bootstrap import bootstrap_mean
from wsr.statistics.chord import ChordDifference, chord_difference
from wsr.statistics.difference import Difference, holm, mean_difference
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.chords import CANNOT_SAY
from wsr.studies.harness.context import Context, Request, score_all
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
    rises = _rises(found, populations)
    rows += [_rise_row(epochs, found, rise) for epochs, rise in rises.items()]
    return rows, _section(populations, found, adjusted, rises, sizes)


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


def _rises(found: Mapping[tuple[float, str], _Found], populations: Mapping[float, Context]) -> dict[float, Interval]:
    """The loss past a member minus that at the member, over all members of a length; all intervals hold together."""
    lengths = sorted({epochs for epochs, _ in found})
    rises = {}
    for epochs in lengths:
        own = {target: result.groups for (length, target), result in found.items() if length == epochs}
        pairs = [
            (np.stack([groups["past"].losses_by_draw[:, k], groups["member"].losses_by_draw[:, k]], axis=1), target)
            for target, groups in own.items()
            for k in range(len(groups["member"].coefficients))
        ]
        rises[epochs] = bootstrap_mean(
            [pair for pair, _ in pairs],
            [target for _, target in pairs],
            lambda losses: losses[0] - losses[1],
            generator=populations[epochs].generator("length rise", f"{epochs:g}"),
            confidence=1 - 0.05 / len(lengths),  # Bonferroni
            resamples=10_000,
        )
    return rises


def _rise_row(epochs: float, found: Mapping[tuple[float, str], _Found], rise: Interval) -> dict:
    own = [result for (length, _), result in found.items() if length == epochs]
    return result_row(
        "past - member",
        "all targets",
        "difference of losses",
        rise.value,
        texts=sum(result.half.texts for result in own),
        how=EXACT,
        members=[name for result in own for name in result.groups["member"].region.names],
        interval=(rise.low, rise.high),
        study="training length",
        epochs=epochs,
    )


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
    rises: Mapping[float, Interval],
    sizes: LengthSizes,
) -> Section:
    lengths = sorted({epochs for epochs, _ in found})
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
        _measured(lengths, found, adjusted, rises),
        _verdict(found, adjusted, rises, lengths[-1]) if lengths else "not tested",
        text=(
            *_left_out(populations),
            f"Past the members: {sizes.reach:g} times as far from the centroid as they; its interval is over all "
            "members and texts, and all lengths together (Bonferroni).",
        ),
        figures=_figures(lengths, found),
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
        headline=_headline(lengths, found, rises),
        paper_short="88 % on one dataset, 10 epochs or less",
        measured_short=f"{_mean_probability(found, lengths[-1])} after {lengths[-1]:g} epochs" if lengths else "",
        power=power_told({target: own.gain for (epochs, target), own in found.items() if epochs == lengths[-1]}),
    )


def _headline(lengths: list[float], found: Mapping[tuple[float, str], _Found], rises: Mapping[float, Interval]) -> str:
    if not lengths:
        return "No length of training left two models of one dataset."
    short, long = lengths[0], lengths[-1]
    return (
        f"A mixture of models of one dataset beats these models in {_mean_probability(found, short)} of comparisons "
        f"after {short:g} epochs of training and in {_mean_probability(found, long)} after {long:g}; just past the "
        f"models the loss then changes by {rises[long].value:+.3f} nats."
    )


def _mean_probability(found: Mapping[tuple[float, str], _Found], epochs: float) -> str:
    own = [result.half.probability for (length, _), result in found.items() if length == epochs]
    return f"{100 * np.mean(own):.0f} %"


def _figures(lengths: list[float], found: Mapping[tuple[float, str], _Found]) -> tuple[Figure, ...]:
    targets = list(dict.fromkeys(target for _, target in found))
    loss = [
        {
            "name": f"{told} on {target}",
            "group": told,
            "x": [epochs for epochs in lengths if (epochs, target) in found],
            "y": [
                float(found[epochs, target].groups[group].generalised_loss.mean())
                for epochs in lengths
                if (epochs, target) in found
            ],
        }
        for group, told in REPORTED.items()
        for target in targets
    ]
    gains = [
        {
            "name": f"{epochs:g} epochs",
            "series": [
                {
                    "name": target,
                    "mean": found[epochs, target].gain.mean,
                    **_drawn_ends(found[epochs, target].gain),
                }
                for target in targets
                if (epochs, target) in found
            ],
        }
        for epochs in lengths
    ]
    return (
        Figure(
            "curves",
            "Loss by training length",
            "Mean generalised loss of each group, one line a target.",
            {"series": loss, "x_label": "epochs", "y_label": "generalised loss (nats)", "x_scale": "log"},
        ),
        Figure(
            "intervals",
            "In' minus its chords",
            "Below 0: points between the members are better. Whiskers: 95 % intervals over members and test texts.",
            {"rows": gains, "x_label": "difference of mean losses (nats)"},
        ),
    )


def _drawn_ends(gain: ChordDifference) -> dict[str, float]:
    return {} if gain.reason else {"low": gain.low, "high": gain.high}


def _measured(
    lengths: list[float],
    found: Mapping[tuple[float, str], _Found],
    adjusted: Mapping[tuple[float, str], tuple[float, float]],
    rises: Mapping[float, Interval],
) -> str:
    parts = []
    for epochs in lengths:
        own = {target: result for (length, target), result in found.items() if length == epochs}
        better = sum(result.gain.mean < 0 and adjusted[epochs, target][0] < 0.05 for target, result in own.items())
        probability = 100 * np.mean([result.half.probability for result in own.values()])
        rise = rises[epochs]
        ratio = np.mean([result.ratio for result in own.values()])
        parts.append(
            f"{epochs:g} epochs: P_B(In' > In) {probability:.0f} %, In' better beyond chance on {better} of "
            f"{len(own)}, loss {rise.value:+.3f} nats ({rise.low:+.3f} to {rise.high:+.3f}) just past the members, "
            f"radius {ratio:.2f} of the length"
        )
    return "; ".join(parts) or "fewer than two members of each target at any length"


def _verdict(
    found: Mapping[tuple[float, str], _Found],
    adjusted: Mapping[tuple[float, str], tuple[float, float]],
    rises: Mapping[float, Interval],
    longest: float,
) -> str:
    """At the longest training: whether In' beats In on every target, and the loss rises past the members."""
    own = {place: result.gain for place, result in found.items() if place[0] == longest}
    gains = [below(gain, p=adjusted[place][0], margin=NO_EFFECT_NATS) for place, gain in own.items()]
    return verdict([*gains, above(rises[longest])])


def _left_out(populations: Mapping[float, Context]) -> list[str]:
    return [
        f"At {epochs:g} epochs {target} is left out: it has {count} members."
        for epochs, context in populations.items()
        for target in context.targets
        if (count := context.region.datasets.count(target)) < 2
    ]
