"""In' against its chords: how much better points of a hull are than the members they lie between.

A chord is the mean loss of the members, weighted by a point's coefficients (``wsr.statistics.chord``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsr.engine.evaluate import Evaluation
from wsr.report.document import Cell, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.chord import ChordDifference, chord_difference
from wsr.statistics.difference import holm
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import result_row

CANNOT_SAY = "cannot say"
"""What a table shows in place of an interval."""
Scored = Mapping[tuple[str, str], Mapping[str, Evaluation]]
"""By target and level, the evaluation of each group."""


@dataclass(frozen=True)
class Chord:
    """In' against its chords on one target."""

    target: str
    level: str
    found: ChordDifference
    p: float
    """Corrected over targets."""


def find_chords(scored: Scored) -> list[Chord]:
    """Returns In' against its chords, at each level and on each target that has points of a hull."""
    chords = []
    for level in dict.fromkeys(level for _, level in scored):
        found = {}
        for (target, of_level), own in scored.items():
            if of_level == level and "interior" in own:
                region, datasets = own["member"].region, own["member"].region.datasets
                found[target] = chord_difference(
                    own["interior"].losses_by_draw,
                    own["member"].losses_by_draw,
                    own["interior"].coefficients,
                    sources=datasets if len(set(datasets)) > 1 else region.names,
                )
        adjusted = holm([own.p_value for own in found.values()])
        chords += [
            Chord(target, level, own, float(p)) for (target, own), p in zip(found.items(), adjusted, strict=True)
        ]
    return chords


def mean_chords(chords: Sequence[Chord]) -> dict[str, Interval]:
    """Returns In' minus chord at each level, as a mean over targets."""
    means = {}
    for level in dict.fromkeys(own.level for own in chords):
        found = [own.found for own in chords if own.level == level]
        means[level] = mean_interval(np.array([own.mean for own in found]), influences=[own.influence for own in found])
    return means


def chord_rows(chords: Sequence[Chord], scored: Scored) -> list[dict]:
    return [
        result_row(
            "In' - chord",
            own.target,
            "difference of losses",
            own.found.mean,
            texts=scored[own.target, own.level]["interior"].losses.shape[1],
            how=scored[own.target, own.level]["interior"].how[0],
            interval=(own.found.low, own.found.high),
            study="groups",
            level=own.level,
            p_holm=own.p,
            points_below=own.found.below,
            points=own.found.points,
        )
        for own in chords
    ]


def chord_table(chords: Sequence[Chord], means: Mapping[str, Interval]) -> Table:
    lines: list[tuple[Cell, ...]] = []
    for level, mean in means.items():
        own = [chord for chord in chords if chord.level == level]
        below, points = (sum(getattr(chord.found, what) for chord in own) for what in ("below", "points"))
        lines.append(
            ("mean over targets", level, f"{below} of {points}", mean.value, interval_cell(mean.low, mean.high), None)
        )
        for chord in own:
            told = f"{chord.found.below} of {chord.found.points}"
            ends = CANNOT_SAY if chord.found.reason else interval_cell(chord.found.low, chord.found.high)
            lines.append((chord.target, level, told, chord.found.mean, ends, chord.p))
    return Table(
        "In' against its chords",
        ("target", "level", "points below", "In' minus chord (nats)", INTERVAL, "p, Holm"),
        tuple(lines),
        "The loss of each point minus the mean loss of the members, weighted by the point's coefficients: how good the "
        "members are cancels. Below 0 the points are better. Interval of a target: over datasets (members, where all "
        "are of one dataset), points and test texts. Interval of the mean: over targets (Student's t), widened where "
        "the same members stand behind several targets.",
    )
