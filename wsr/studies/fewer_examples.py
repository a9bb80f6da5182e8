"""Is the gain of the centroid as a start larger where examples are fewer?"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import Row, result_row
from wsr.studies.centroid_start import CAVEAT, MODES
from wsr.studies.harness.context import Context
from wsr.studies.harness.told import points
from wsr.studies.harness.verdict import NO_EFFECT_SHARE, above, power_told, verdict


def fewer_examples(context: Context, rows: Sequence[Row]) -> tuple[list[Row], Section]:
    """Compares the gains of the centroid on the smallest and on the largest number of examples, target by target.

    Args:
      context: the study's input.
      rows: those that ``centroid_start`` found for each number of examples.
    """
    gains = {(row["group"], row["examples"], row["dataset"]): row["value"] for row in rows if row["metric"] == "gain"}
    sizes = sorted({examples for _, examples, _ in gains}, key=lambda own: np.inf if own == "all" else own)
    few, many = sizes[0], sizes[-1]

    def of(mode: str, examples: int | str) -> Float64[np.ndarray, " targets"]:
        return np.array([gains[f"gain, {mode}", examples, target] for target in context.targets])

    found: dict[str, Interval] = {mode: mean_interval(of(mode, few) - of(mode, many)) for mode in MODES}
    means = {(mode, examples): mean_interval(of(mode, examples)) for mode in MODES for examples in sizes}
    section = Section(
        f"The gain is larger on {few} examples than on {many}",
        "Does the centroid help more when examples are few?",
        "+10.66 points with at most 1,000 examples, +3.06 with all data. " + CAVEAT,
        "; ".join(f"{mode}: {points(own)} more" for mode, own in found.items()),
        verdict(above(own, margin=NO_EFFECT_SHARE) for own in found.values()),
        text=("Gains are compared target by target. The intervals are over targets (Student's t).",),
        figures=(
            Figure(
                "intervals",
                "Gain of the centroid by number of examples",
                "Mean over targets with its 95 % interval; dots are targets.",
                {
                    "rows": [
                        {
                            "name": f"{examples} examples",
                            "series": [
                                {
                                    "name": mode,
                                    "mean": means[mode, examples].value,
                                    "low": means[mode, examples].low,
                                    "high": means[mode, examples].high,
                                    "values": of(mode, examples).tolist(),
                                }
                                for mode in MODES
                            ],
                        }
                        for examples in sizes
                    ],
                    "x_label": "gain, in the share of right answers",
                },
            ),
        ),
        tables=(
            Table(
                "Mean gain by number of examples",
                ("training", "examples", "gain", INTERVAL),
                tuple(
                    (mode, str(examples), own.value, interval_cell(own.low, own.high))
                    for (mode, examples), own in means.items()
                ),
                "Gain: in the share of right answers; interval over targets.",
            ),
        ),
        command=context.command,
        headline=f"The centroid adds {points(found['bitfit'])} more on {few} examples than on {many}.",
        paper_short="+10.66 against +3.06 points (perhaps on unequal data)",
        measured_short=", ".join(f"{100 * own.value:+.1f} points ({mode})" for mode, own in found.items()),
        power=power_told(found, "points", scale=100),
    )
    return [_row(mode, own, few, many, len(context.targets)) for mode, own in found.items()], section


def _row(mode: str, difference: Interval, few: int | str, many: int | str, targets: int) -> Row:
    return result_row(
        f"gain, {mode}",
        "mean over targets",
        "gain on fewer examples minus gain on more",
        difference.value,
        texts=targets,
        how="target by target",
        interval=(difference.low, difference.high),
        study="fewer examples",
        examples=f"{few} and {many}",
    )
