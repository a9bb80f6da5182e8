"""What do the paper's text, share of texts and head change in the weights?

Each change alone gives another population of the same datasets and seeds, so members are compared in pairs. The paper
ends each text with a tag of its dataset, whose tokens have rows of the token table that no other dataset trains;
cosines are therefore given without that table too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from wsr.geometry.gram import cosine
from wsr.geometry.similarity import gram_matrix
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.interval import Interval, mean_interval
from wsr.studies.harness.clustered import Clustered, accuracies, cluster, percent_told, row, score_rows
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.verdict import above, power_told, verdict

PAPERS_SHARE = 0.9
"""Share of a dataset's texts on which the paper's models are fine-tuned."""
TOKEN_TABLE = "token/embedding"
"""How the path of a token table ends."""
WHOLE, REST = "whole encoder", "without the token table"
UNCHANGED = "as the preset"

Gram = Float64[np.ndarray, "members members"]


@dataclass(frozen=True)
class _Change:
    """One change on the members of each dataset, as means over datasets with t intervals."""

    clustered: list[Clustered]
    cosines: Mapping[tuple[str, str], Interval]
    """By leaves and relation: ``within`` and ``across`` datasets, and ``separation``, within minus across."""
    differences: Mapping[tuple[str, str], Interval]
    """The same, minus those of the unchanged procedure."""
    again: Mapping[str, Interval]
    """By leaves: the cosine of each member with that of the same dataset and seed under the unchanged procedure."""
    length: Interval
    """Length of a task vector over that of the same member under the unchanged procedure."""
    score: Interval
    """Score on the test texts minus that of the same member under the unchanged procedure."""


def changes(preset: Preset) -> dict[str, dict[str, bool | float]]:
    """Returns the fields of the preset that each change replaces, by its name; a change is the paper's way or ours."""
    fields: tuple[tuple[str, str, str, bool | float], ...] = (
        ("paper_text", "the paper's text", "plain text", True),
        ("finetune_share", "90 % of the texts", "60 % of the texts", PAPERS_SHARE),
        ("hidden_head", "the paper's head", "one linear layer", True),
    )
    return {
        (ours if getattr(preset, field) else papers): {field: type(value)() if getattr(preset, field) else value}
        for field, papers, ours, value in fields
    }


def procedure(
    unchanged: Region, changed: Mapping[str, Region], *, most_texts: int = 0, command: str = ""
) -> tuple[list[dict], Section]:
    """Compares populations of the same datasets and seeds, each trained with one change.

    Args:
      unchanged: all members of the preset's procedure, whether they learned or not, from a store.
      changed: those of each change, by its name, in the same order.
      most_texts: largest number of texts on which a member is trained; 0: all.
      command: command line that reproduces the study.
    """
    found = {UNCHANGED: _compared(unchanged, unchanged)}
    found |= {name: _compared(unchanged, own) for name, own in changed.items()}
    return [row for name, own in found.items() for row in _rows(name, own, unchanged.names)], _section(
        {name: found[name] for name in changed}, found[UNCHANGED], most_texts, command
    )


def _compared(before: Region, after: Region) -> _Change:
    names = before.names
    assert after.names == names, "both are trained from the same list of datasets and seeds"
    datasets, count = np.array(before.datasets), len(names)
    cosines: dict[tuple[str, str], Interval] = {}
    differences: dict[tuple[str, str], Interval] = {}
    again, length = {}, mean_interval(np.ones(1))
    for leaves, gram in _grams(before, after).items():
        similarity = cosine(gram)
        there, here = (_of_datasets(own, datasets) for own in (similarity[count:, count:], similarity[:count, :count]))
        for relation, values in there.items():
            cosines[leaves, relation] = mean_interval(values)
            differences[leaves, relation] = mean_interval(values - here[relation])
        pairs = np.diag(similarity[:count, count:])
        again[leaves] = mean_interval(_means(pairs, datasets))
        if leaves == WHOLE:
            norms = np.sqrt(np.diag(gram))
            length = mean_interval(_means(norms[count:] / norms[:count], datasets))
    moved = _scores(after) - _scores(before)
    clustered = cluster(after.similarity(), {"dataset": list(datasets)})
    return _Change(clustered, cosines, differences, again, length, mean_interval(_means(moved, datasets)))


def _scores(region: Region) -> np.ndarray:
    """Returns the score of each member on the test texts, with its own head."""
    assert region.store is not None
    return np.array([region.store.record(name).metrics["test_score"] for name in region.names])


def _grams(first: Region, second: Region) -> dict[str, Gram]:
    """Returns the inner products of all members of both regions, over the whole encoder and without its token table."""
    members = [*first.open_task_vectors(), *second.open_task_vectors()]
    sizes = first.leaf_sizes
    table = {path: size for path, size in sizes.items() if path.endswith(TOKEN_TABLE)}
    rest = gram_matrix({path: size for path, size in sizes.items() if path not in table}, members)
    whole = rest + gram_matrix(table, members) if table else rest
    return {WHOLE: whole, REST: rest}


def _of_datasets(similarity: Gram, datasets: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the mean cosine of the members of each dataset with each other and with all other members."""
    within, across = [], []
    for name in dict.fromkeys(datasets):
        own = datasets == name
        block = similarity[np.ix_(own, own)]
        within.append(block[~np.eye(len(block), dtype=bool)].mean())
        across.append(similarity[np.ix_(own, ~own)].mean())
    return {
        "within": np.array(within),
        "across": np.array(across),
        "separation": np.array(within) - np.array(across),
    }


def _means(values: np.ndarray, datasets: np.ndarray) -> np.ndarray:
    return np.array([values[datasets == name].mean() for name in dict.fromkeys(datasets)])


def _rows(name: str, own: _Change, members: Sequence[str]) -> list[dict]:
    rows = score_rows("procedure", members, own.clustered)
    for (leaves, relation), value in own.cosines.items():
        rows.append(row("procedure", relation, members, "mean cosine", value) | {"leaves": leaves})
    if name != UNCHANGED:
        for (leaves, relation), value in own.differences.items():
            difference = row("procedure", relation, members, "difference of mean cosines", value)
            rows.append(difference | {"leaves": leaves})
        for leaves, value in own.again.items():
            rows.append(row("procedure", "same member", members, "mean cosine", value) | {"leaves": leaves})
        rows.append(row("procedure", "same member", members, "ratio of lengths", own.length))
        rows.append(row("procedure", "same member", members, "difference of scores", own.score))
    return [one | {"change": name} for one in rows]


def _section(found: Mapping[str, _Change], unchanged: _Change, most_texts: int, command: str) -> Section:
    everyone = {UNCHANGED: unchanged, **found}
    largest = max(found, key=lambda name: abs(found[name].differences[WHOLE, "separation"].value))
    moved = found[largest].differences[WHOLE, "separation"]
    cap = (
        (
            f"Members are trained on at most {most_texts} texts, so the share decides which texts they read and hardly "
            "how many.",
        )
        if most_texts
        else ()
    )
    return Section(
        "The paper's procedure keeps clusters",
        "Do the paper's text, share of texts and head change how models cluster?",
        "Not in the paper, which has one procedure.",
        "; ".join(
            f"{name}: separation {_signed(own.differences[WHOLE, 'separation'])}, clustered "
            f"{percent_told(accuracies(own.clustered))}"
            for name, own in found.items()
        ),
        verdict([above(own.cosines[WHOLE, "separation"]) for own in everyone.values()]),
        text=(
            "Each change alone, on the same datasets and seeds. Separation is the mean cosine of two members of one "
            "dataset minus that of members of different datasets. Values are means over datasets, with t intervals. "
            "The claim is that members of one dataset lie nearer to each other than to others under each procedure.",
            *cap,
        ),
        figures=(
            Figure(
                "intervals",
                "Cosine of two members",
                "Mean over datasets; whiskers: 95 % intervals.",
                {
                    "rows": [
                        {
                            "name": name,
                            "series": [
                                _series("same dataset", own.cosines[WHOLE, "within"]),
                                _series("other dataset", own.cosines[WHOLE, "across"]),
                            ],
                        }
                        for name, own in everyone.items()
                    ],
                    "x_label": "mean cosine",
                },
            ),
        ),
        tables=(_cosines(everyone), _same_members(found)),
        command=command,
        headline=(
            f"Models of one dataset stay together whatever the procedure; {largest} moves the cosine within datasets "
            f"against that across datasets most, by {moved.value:+.3f}."
        ),
        paper_short="not in the paper",
        measured_short=f"{moved.value:+.3f} of separation at most",
        power=power_told({name: own.differences[WHOLE, "separation"] for name, own in found.items()}, "of cosine"),
    )


def _cosines(everyone: Mapping[str, _Change]) -> Table:
    rows = [
        (name, leaves, relation, own.cosines[leaves, relation].value, _ends(own.cosines[leaves, relation]))
        + (
            (None, None)
            if name == UNCHANGED
            else (own.differences[leaves, relation].value, _ends(own.differences[leaves, relation]))
        )
        for name, own in everyone.items()
        for leaves, relation in own.cosines
    ]
    columns = ("procedure", "leaves", "pairs", "mean cosine", INTERVAL, "change", INTERVAL)
    return Table("Cosines within and across datasets", columns, tuple(rows))


def _same_members(found: Mapping[str, _Change]) -> Table:
    rows = [
        (
            name,
            own.again[WHOLE].value,
            own.again[REST].value,
            own.length.value,
            _ends(own.length),
            own.score.value,
            _ends(own.score),
        )
        for name, own in found.items()
    ]
    columns = (
        *("procedure", "cosine with the unchanged member", "the same without the token table"),
        *("ratio of lengths", INTERVAL, "difference of scores", INTERVAL),
    )
    return Table("Each member and the one of the same dataset and seed", columns, tuple(rows))


def _ends(interval: Interval) -> str | None:
    return interval_cell(interval.low, interval.high)


def _signed(interval: Interval) -> str:
    ends = f" ({interval.low:+.3f} to {interval.high:+.3f})" if np.isfinite(interval.low) else ""
    return f"{interval.value:+.3f}{ends}"


def _series(name: str, interval: Interval) -> dict:
    return {"name": name, "mean": interval.value, "low": interval.low, "high": interval.high}
