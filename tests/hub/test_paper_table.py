"""The table of the paper's datasets in docs/datasets.md, against the registry and the repositories that are served."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hub_repositories import repositories

from wsr.data.hub import Hub
from wsr.data.metrics import METRICS, REGRESSION_METRICS
from wsr.data.published_file import LabelledLines, WebFile
from wsr.data.records import ROLES
from wsr.data.table import COMMITS, PAPER, find

PAGE = (Path(__file__).parent.parent.parent / "docs" / "datasets.md").read_text(encoding="utf-8")
HEADER = ("dataset", "repository", "revision", "files", "texts", "label", "classes", "train, validation, test",
          "metric", "benchmark's metric", "seen")  # fmt: skip
SEEN = ("l", "s", "f", "u", "m")


def rows(header: Sequence[str] = HEADER) -> dict[str, dict[str, str]]:
    """The rows of a table, by the first cell: a dataset or a repository."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:1] == "|"]
    start = lines.index(list(header))
    found = {}
    for cells in lines[start + 2 :]:
        if len(cells) != len(header):
            break
        found[cells[0].strip("`")] = dict(zip(header, (cell.replace("`", "") for cell in cells), strict=True))
    return found


def test_the_table_has_the_papers_datasets_in_their_order():
    assert tuple(rows()) == PAPER


@pytest.mark.parametrize("name", PAPER)
def test_a_row_says_what_the_registry_says(name):
    row, spec = rows()[name], find(name)
    texts = [" + ".join((part,) if isinstance(part, str) else part)
             for part in (spec.columns.text, spec.columns.text_pair) if part is not None]  # fmt: skip
    assert row["texts"] == " / ".join(texts)
    assert row["label"] == spec.columns.label
    assert row["classes"] == str(spec.classes)
    assert row["metric"] == spec.metric
    assert row["benchmark's metric"] in METRICS
    assert (row["benchmark's metric"] in REGRESSION_METRICS) == (spec.classes == 1)
    source = spec.source
    splits = dict(source.splits) if isinstance(source, Hub) else {"train": "train"}
    assert row["train, validation, test"] == ", ".join(splits.get(role, "–") for role in ROLES)
    if isinstance(source, WebFile):
        assert (row["repository"], row["files"]) == ("GitHub: sinmaniphel/py_isear_dataset", source.name)
        assert row["revision"] == source.address.split("/")[-2][:10]
        return
    assert row["repository"] == " ".join(filter(None, (source.path, getattr(source, "config", None))))
    assert row["revision"] == (source.revision or "")[:10]
    if isinstance(source, LabelledLines):
        assert row["files"] == source.archive


@pytest.mark.parametrize("name", [name for name in PAPER if isinstance(find(name).source, Hub | LabelledLines)])
def test_the_files_of_a_row_are_served(name):
    row, source = rows()[name], find(name).source
    splits = (
        {"train"} if isinstance(source, LabelledLines) else set(re.split(r"\+|, ", ", ".join(source.splits.values())))
    )
    for split in splits:
        names = [split, "dev"] if "dev.jsonl" in repositories()[source.path].files else [split]
        patterns = [row["files"].replace("SPLIT", name) for name in names]
        assert any(fnmatch.filter(repositories()[source.path].files, pattern) for pattern in patterns), (
            split,
            patterns,
        )


def test_every_pinned_commit_is_listed_with_its_source():
    listed = rows(("repository", "commit", "seen in"))
    assert {path: row["commit"] for path, row in listed.items()} == COMMITS
    for row in listed.values():
        assert (
            re.fullmatch(r"[\w.-]+/[\w.-]+, [\w./-]+\.(py|md)", row["seen in"]) or "page on the hub" in row["seen in"]
        )


@pytest.mark.parametrize("name", PAPER)
def test_a_row_says_where_its_facts_were_seen(name):
    """The letters of the legend: files, columns and classes."""
    seen = rows()[name]["seen"].split(" ")
    assert len(seen) == 3
    assert set(seen) <= set(SEEN)
    assert all(f"`{letter}`" in PAGE for letter in seen)
