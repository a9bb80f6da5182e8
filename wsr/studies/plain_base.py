"""Does the centroid as a start gain more from a checkpoint that was pretrained and nothing else?

A checkpoint that was tuned to embed sentences is a good start already, which may leave less to gain. So the same
trainings start from both kinds of checkpoint and from the centroids of their members.
"""

from dataclasses import replace

from wsr.report.document import Section
from wsr.store.row import Row
from wsr.studies.centroid_start import centroid_start
from wsr.studies.compared_gains import Asked, compare_gains, difference_row, gains_of
from wsr.studies.few_shot import FewShot
from wsr.studies.harness.context import Context

PLAIN, TUNED = "pretrained only", "tuned for sentences"
"""The two kinds of checkpoint."""


def plain_base(
    plain: Context, tuned: Context, plan: FewShot, what: str = ""
) -> tuple[tuple[list[Row], Section], tuple[list[Row], Section]]:
    """Trains from both checkpoints and from the centroids of their members, and compares the gains of the centroids.

    Args:
      plain: the members of a checkpoint that was pretrained and nothing else.
      tuned: the members of a checkpoint that was tuned to embed sentences; the same targets.
      plan: number of examples and recipe.
      what: says what the plain checkpoint is.

    Returns:
      What was found from the plain checkpoint alone, and the comparison.
    """
    (rows, section), (others, _) = (centroid_start(context, plan) for context in (plain, tuned))
    examples = f"{plan.examples or 'all'} examples"
    found, compared = compare_gains(
        {PLAIN: gains_of(rows), TUNED: gains_of(others)},
        plain.targets,
        larger=PLAIN,
        smaller=TUNED,
        asked=Asked(
            f"The gain is larger from a checkpoint that was pretrained only, {examples}",
            "Does the centroid gain more where the checkpoint was not tuned for sentences?",
            "Its checkpoint is RoBERTa-base, which was pretrained only.",
            "not compared",
            condition="checkpoint",
            more="from a checkpoint that was pretrained only",
            less="from one that was tuned for sentences",
        ),
        command=plain.command,
    )
    differences = [
        difference_row(
            mode,
            own,
            len(plain.targets),
            metric="gain from the plain checkpoint minus gain from the tuned one",
            study="plain base",
            examples=str(plan.examples or "all"),
        )
        for mode, own in found.items()
    ]
    section = replace(
        section,
        title=f"{section.title}, from a checkpoint that was {PLAIN}",
        headline=f"From a checkpoint that was {PLAIN}: {section.headline[0].lower()}{section.headline[1:]}",
        text=(*([what] if what else []), *section.text),
    )
    of_base = [row | {"base": name} for name, own in ((PLAIN, rows), (TUNED, others)) for row in own]
    return (of_base, section), (differences, compared)
