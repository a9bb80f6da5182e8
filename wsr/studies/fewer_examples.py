"""Is the gain of the centroid as a start larger where examples are fewer?"""

from collections.abc import Sequence

import numpy as np

from wsr.report.document import Section
from wsr.store.row import Row
from wsr.studies.centroid_start import CAVEAT
from wsr.studies.compared_gains import Asked, compare_gains, difference_row, gains_of
from wsr.studies.harness.context import Context


def fewer_examples(context: Context, rows: Sequence[Row]) -> tuple[list[Row], Section]:
    """Compares the gains of the centroid on the smallest and on the largest number of examples, target by target.

    Args:
      context: the study's input.
      rows: those that ``centroid_start`` found for each number of examples.
    """
    sizes = sorted(
        {row["examples"] for row in rows if row["metric"] == "gain"}, key=lambda own: np.inf if own == "all" else own
    )
    few, many = sizes[0], sizes[-1]
    found, section = compare_gains(
        {f"{size} examples": gains_of([row for row in rows if row["examples"] == size]) for size in sizes},
        context.targets,
        larger=f"{few} examples",
        smaller=f"{many} examples",
        asked=Asked(
            f"The gain is larger on {few} examples than on {many}",
            "Does the centroid help more when examples are few?",
            "+10.66 points with at most 1,000 examples, +3.06 with all data. " + CAVEAT,
            "+10.66 against +3.06 points (perhaps on unequal data)",
            condition="number of examples",
            more=f"on {few} examples",
            less=f"on {many}",
        ),
        command=context.command,
    )
    return [
        difference_row(
            mode,
            own,
            len(context.targets),
            metric="gain on fewer examples minus gain on more",
            study="fewer examples",
            examples=f"{few} and {many}",
        )
        for mode, own in found.items()
    ], section
