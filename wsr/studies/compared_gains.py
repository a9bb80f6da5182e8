"""By how much the gain of the centroid as a start differs between two conditions, target by target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float64

from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import Row, result_row
from wsr.studies.centroid_start import MODES
from wsr.studies.harness.told import points
from wsr.studies.harness.verdict import NO_EFFECT_SHARE, above, power_told, verdict

Gains: TypeAlias = Mapping[tuple[str, str], float]
"""The gain of the centroid by way of training and target, in the share of right answers."""


@dataclass(frozen=True)
class Asked:
    """What is asked of two conditions, in words."""

    title: str
    question: str
    paper: str
    """What the paper says."""
    paper_short: str
    condition: str
    """What the conditions differ in, as in "number of examples"."""
    more: str
    """The condition in which the gain should be larger, as in "on 32 examples"."""
    less: str
    """The other condition."""


def gains_of(rows: Sequence[Row]) -> Gains:
    """Returns the gains among the rows that ``centroid_start`` found for one number of examples.

    Args:
      rows: the rows; those of other metrics are left out.
    """
    return {
        (row["group"].removeprefix("gain, "), row["dataset"]): row["value"] for row in rows if row["metric"] == "gain"
    }


def compare_gains(
    gains: Mapping[str, Gains], targets: Sequence[str], *, larger: str, smaller: str, asked: Asked, command: str
) -> tuple[dict[str, Interval], Section]:
    """Returns the mean difference of gains for each way of training, with its interval over targets, and a section.

    Args:
      gains: by the condition's name, in the order of the figure.
      targets: names of the targets.
      larger: the condition in which the gain should be larger.
      smaller: the condition with which it is compared.
      asked: the words.
      command: command line that reproduces the study.
    """

    def of(mode: str, condition: str) -> Float64[np.ndarray, " targets"]:
        return np.array([gains[condition][mode, target] for target in targets])

    found: dict[str, Interval] = {mode: mean_interval(of(mode, larger) - of(mode, smaller)) for mode in MODES}
    means = {(mode, condition): mean_interval(of(mode, condition)) for mode in MODES for condition in gains}
    section = Section(
        asked.title,
        asked.question,
        asked.paper,
        "; ".join(f"{mode}: {points(own)} more" for mode, own in found.items()),
        verdict(above(own, margin=NO_EFFECT_SHARE) for own in found.values()),
        text=("Gains are compared target by target. The intervals are over targets (Student's t).",),
        figures=(
            Figure(
                "intervals",
                f"Gain of the centroid by {asked.condition}",
                "Mean over targets with its 95 % interval; dots are targets.",
                {
                    "rows": [
                        {
                            "name": condition,
                            "series": [
                                {
                                    "name": mode,
                                    "mean": means[mode, condition].value,
                                    "low": means[mode, condition].low,
                                    "high": means[mode, condition].high,
                                    "values": of(mode, condition).tolist(),
                                }
                                for mode in MODES
                            ],
                        }
                        for condition in gains
                    ],
                    "x_label": "gain, in the share of right answers",
                },
            ),
        ),
        tables=(
            Table(
                f"Mean gain by {asked.condition}",
                ("training", asked.condition, "gain", INTERVAL),
                tuple(
                    (mode, condition, own.value, interval_cell(own.low, own.high))
                    for (mode, condition), own in means.items()
                ),
                "Gain: in the share of right answers; interval over targets.",
            ),
        ),
        command=command,
        headline=f"The centroid adds {points(found['bitfit'])} more {asked.more} than {asked.less}.",
        paper_short=asked.paper_short,
        measured_short=", ".join(f"{100 * own.value:+.1f} points ({mode})" for mode, own in found.items()),
        power=power_told(found, "points", scale=100),
    )
    return found, section


def difference_row(mode: str, difference: Interval, targets: int, *, metric: str, **more: Any) -> Row:
    """Returns the row of a mean difference of gains.

    Args:
      mode: the way of training.
      difference: the mean over targets, with its interval.
      targets: number of targets.
      metric: what is subtracted from what.
      **more: further values of the row.
    """
    return result_row(
        f"gain, {mode}",
        "mean over targets",
        metric,
        difference.value,
        texts=targets,
        how="target by target",
        interval=(difference.low, difference.high),
        **more,
    )
