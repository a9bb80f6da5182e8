"""Each of the paper's 36 datasets, read from a hub on this machine that has its repository's names."""

import re
from dataclasses import replace

import pytest
import yaml
from hub_repositories import LARGE, SMALL, repositories

from wsr.data.hub import Hub
from wsr.data.published_file import LabelledLines
from wsr.data.table import PAPER, VARIANTS, find

ON_HUB = [name for name in (*PAPER, *VARIANTS) if isinstance(find(name).source, Hub | LabelledLines)]
UNTOLD = ("20_newsgroups", "sst5", "amazon_reviews", "trec_fine", "trec_coarse")
"""Datasets in JSONL files, which do not declare the names of their classes."""


@pytest.mark.parametrize("name", [*PAPER, *VARIANTS])
def test_a_dataset_of_the_paper_loads(name, ask):
    spec = find(name)
    found = ask(name=name)
    assert "error" not in found, found
    assert found["seconds"] < 10
    assert found["classes"] == spec.classes
    roles = set(getattr(spec.source, "splits", {"train": ""}))
    assert set(found["rows"]) == roles
    for role in roles:
        assert {*spec.columns.of_texts, spec.columns.label} <= set(found["columns"][role])
    for split in ("finetune", "test"):
        numbers = found["labels"][split]
        assert all(0 <= number < max(spec.classes, 6) for number in numbers)
        assert spec.classes > 20 or spec.classes == 1 or numbers == list(range(spec.classes))
    parts = {"anli": 3, "isear": 1}.get(name, 1)
    assert found["rows"]["train"] == LARGE * parts
    assert all(found["rows"][role] == SMALL * parts for role in roles - {"train"})


@pytest.mark.parametrize("name", [name for name in PAPER if isinstance(find(name).source, Hub)])
def test_the_classes_have_the_names_and_the_order_of_the_repository(name, ask):
    source = find(name).source
    if name == "stsb" or name in UNTOLD:
        assert ask(name=name)["label_names"] == ([] if name == "stsb" else [str(n) for n in range(find(name).classes)])
        return
    card = yaml.safe_load(repositories()[source.path].files["README.md"].decode().split("---\n")[1])
    infos = card["dataset_info"] if isinstance(card["dataset_info"], list) else [card["dataset_info"]]
    info = next(info for info in infos if source.config in (None, info["config_name"]))
    label = next(column for column in info["features"] if column["name"] == find(name).columns.label)
    declared = label["dtype"]["class_label"]["names"]
    assert ask(name=name)["label_names"] == [declared[str(number)] for number in range(len(declared))]


@pytest.mark.parametrize("name", ON_HUB)
def test_only_the_pinned_commit_is_read(name, ask, local_hub):
    """The repositories here have a newer commit than the pinned one, as they may have on the real hub."""
    path, commit = find(name).source.path, find(name).source.revision
    before = local_hub.requests.copy()
    found = ask(name=name, again=True)
    asked = [request for request in local_hub.requests - before if f"/datasets/{path}" in request]
    assert {re.search(r"/(?:revision|tree|resolve|paths-info)/([^/]+)", request)[1] for request in asked} == {commit}
    assert not [note for note in found["notes"] if "newest commit" in note]
    assert repositories()[path].commit != commit


@pytest.mark.parametrize("name", ["cola", "financial_phrasebank"])
def test_a_note_names_the_commit_where_none_is_pinned(name, ask):
    path = find(name).source.path
    commit = repositories()[path].commit
    assert f"{path}: read at its newest commit, {commit}" in ask(name=name, newest=True, again=True)["notes"]


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("cola", ", or name the dataset as nyu-mll/glue or nyu-mll/glue:CONFIG to read its newest commit"),
        ("financial_phrasebank", ""),
    ],
)
def test_a_pinned_commit_that_is_gone_is_told_with_how_to_go_on(name, more, ask, local_hub):
    source = find(name).source
    usual = local_hub.repositories["datasets"][source.path]
    local_hub.repositories["datasets"][source.path] = replace(usual, pinned=None)
    try:
        found = ask(name=name, again=True)
    finally:
        local_hub.repositories["datasets"][source.path] = usual
    assert found.get("error", "none") == (
        f"{source.path}: the hub has no revision {source.revision!r} of it; found main; give its source another "
        f"revision{more}"
    )
    assert found["seconds"] < 10


def test_hidden_rows_of_snli_are_left_out_and_counted(ask):
    notes = ask(name="esnli")["notes"]
    for split, count in (("train", LARGE), ("validation", SMALL), ("test", SMALL)):
        told = f"stanfordnlp/snli/{split}: {count // 10} of {count} rows left out: their label is hidden (-1)"
        assert told in notes


def test_mnli_is_tested_on_the_authors_split(ask):
    assert ask(name="mnli")["origins"]["test"] == "nyu-mll/glue/mnli/validation_mismatched"
    assert ask(name="mnli_matched")["origins"]["test"] == "nyu-mll/glue/mnli/validation_matched"
