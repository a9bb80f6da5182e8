"""The table of a suite in Markdown, made from its rows."""

from collections.abc import Mapping, Sequence

from wsr.store.row import Row
from wsr.studies.harness.results import markdown_table
from wsr.studies.merging_benchmarks import INDIVIDUAL, MEAN, NORMALISED, PRETRAINED, SCORE, Benchmark
from wsr.studies.suites import FUSION_BENCH, Suite, Task

Cells = Mapping[tuple[str, str, str], Row]
"""A row by its group, dataset and metric."""


def table_of(suite: Suite, tasks: Sequence[Task], benchmark: Benchmark) -> str:
    """Returns the measured table, the published one, what is missing, and what was read.

    Args:
      suite: the suite.
      tasks: its tasks, or some of them.
      benchmark: what came out.
    """
    cells = {(row["group"], row["dataset"], row["metric"]): row for row in benchmark.rows}
    groups = list(dict.fromkeys(row["group"] for row in benchmark.rows))
    published = [group for group in groups if group.startswith("published: ")]
    first = [PRETRAINED, INDIVIDUAL]
    merges = [group for group in groups if group not in (*first, *published)]
    merges.sort(key=lambda group: -(cells[group, MEAN, SCORE]["value"] or 0))
    names = [task.name + (", Spearman" if task.data.metric == "spearman" else "") for task in tasks]
    head = ["model", *names, "mean", "95 %", "normalised", "95 %", "chosen"]
    measured = [[group, *_measured(cells, tasks, group)] for group in (*first, *merges)]
    lines = [
        f"# {suite.title}",
        "",
        "Percent right on the test split, or Spearman's rho times 100. Options were chosen by the loss on validation "
        "data. A normalised score is divided by that of the individual model. Intervals are over test texts or images.",
        "",
        markdown_table(head, measured),
    ]
    if published:
        rows = [
            [group.removeprefix("published: "), *_scores(cells, tasks, group), cells[group, MEAN, SCORE]["how"]]
            for group in published
        ]
        lines += [
            "",
            "## Published",
            "",
            f"{suite.differs} Source: {FUSION_BENCH}.",
            "",
            markdown_table(["model", *names, "mean", "how"], rows),
        ]
    if benchmark.missing:
        lines += ["", "## Missing", ""] + [f"- `{name}`: {why}" for name, why in benchmark.missing.items()]
    lines += ["", "## What was read", "", *(f"- {note}" for note in benchmark.notes)]
    return "\n".join(lines) + "\n"


def _measured(cells: Cells, tasks: Sequence[Task], group: str) -> list[str]:
    score, share = cells[group, MEAN, SCORE], cells[group, MEAN, NORMALISED]
    return [
        *_scores(cells, tasks, group),
        _interval(score),
        _percent(share["value"]),
        _interval(share),
        score["how"].removeprefix("exact; ").replace("exact", ""),
    ]


def _scores(cells: Cells, tasks: Sequence[Task], group: str) -> list[str]:
    rows = [cells[group, task.name, task.data.metric] for task in tasks]
    return [_percent(row["value"]) for row in (*rows, cells[group, MEAN, SCORE])]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _interval(row: Row) -> str:
    return f"{_percent(row['low'])} to {_percent(row['high'])}" if "low" in row else "-"
