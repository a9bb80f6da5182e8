"""The section of a report with each member's score on the test split of the dataset it was fine-tuned on."""

from collections.abc import Mapping, Sequence

import numpy as np

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import EXACT
from wsr.region.learned import learned
from wsr.report.document import Figure, Section, Table
from wsr.store import MemberRecord
from wsr.store.row import result_row
from wsr.studies.harness.verdict import reached, verdict


def members_section(
    records: Sequence[MemberRecord], datasets: Mapping[str, Dataset], *, command: str = ""
) -> tuple[list[dict], Section]:
    """Returns rows of results and a report section with each member's score on its dataset's test split.

    Args:
      records: the members.
      datasets: their datasets, by name.
      command: command line that reproduces the scores.
    """
    rows = [
        result_row(
            record.dataset,
            record.dataset,
            f"own head, {record.hyperparameters['metric']}",
            record.metrics["test_score"],
            texts=int(record.metrics["test_texts"]),
            how=EXACT,
            members=[record.name],
            coefficients=np.ones(1),
            study="members",
        )
        for record in records
    ]
    flagged = [record.name for record in records if not learned(record)]
    by_family = sorted({(record.family, record.dataset) for record in records})
    chart = []
    for _, dataset in by_family:
        own = [record.metrics["test_score"] for record in records if record.dataset == dataset]
        chance = next(record.metrics["chance"] for record in records if record.dataset == dataset)
        chart.append(
            {
                "name": dataset,
                "series": [
                    {"name": "members", "mean": float(np.mean(own)), "values": own},
                    {"name": "most frequent class", "mean": chance},
                ],
            }
        )
    table = Table(
        "Members",
        ("member", "dataset", "family", "seed", "examples", "score", "chance", "learned"),
        tuple(
            (
                record.name,
                record.dataset,
                record.family,
                record.seed,
                record.size,
                record.metrics["test_score"],
                record.metrics["chance"],
                "yes" if learned(record) else "no",
            )
            for record in records
        ),
        "Chance: the share of the most frequent class of the test split (0 for a correlation).",
    )
    left_out = Table(
        "What was left out of the data",
        ("dataset", "what"),
        tuple((dataset.name, note) for dataset in datasets.values() for note in dataset.notes),
    )
    mean = float(np.mean([record.metrics["test_score"] for record in records]))
    flags = f"left out of everything that follows: {', '.join(flagged)}" if flagged else "all of them learned"
    section = Section(
        "Every model learned its dataset",
        "Did each member learn its dataset?",
        "RoBERTa-base, full data: MNLI 86.98, RTE 72.40, SST2 94.12, CoLA 83.53, mean over 36 datasets 76.22. Other "
        "models and datasets: not to be compared number by number.",
        f"mean score {100 * mean:.1f} over {len(records)} members; {flags}",
        verdict(reached(record.name not in flagged) for record in records),
        figures=(
            Figure(
                "intervals",
                "Score of each member on its own test split",
                "One dot a seed; with its own head, on texts it has not seen.",
                {"rows": chart, "x_label": "score on the test split"},
            ),
        ),
        tables=(table, left_out),
        command=command,
        headline=f"{_learned_told(len(records), flagged)}: the mean score on test texts is {100 * mean:.1f} %.",
        paper_short="mean 76.22 % over 36 datasets",
        measured_short=f"{len(records) - len(flagged)} of {len(records)} learned, mean {100 * mean:.1f} %",
    )
    return rows, section


def _learned_told(members: int, flagged: Sequence[str]) -> str:
    if not flagged:
        return f"All {members} models learned their dataset"
    them = ", ".join(flagged) if len(flagged) <= 3 else "the others"
    return f"{members - len(flagged)} of {members} models learned their dataset ({them} left out from here on)"
