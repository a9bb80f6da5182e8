"""The common suite of the registry: what every dataset's line must say; a newcomer passes by being registered."""

import re
from dataclasses import replace

import pytest

from wsr.data.files import Files
from wsr.data.table import (
    COMMITS,
    FAMILIES,
    PACKAGED,
    PAPER,
    VARIANTS,
    DatasetSpec,
    find,
    overlapping,
    register,
    registered,
)
from wsr.errors import WsrError


@pytest.mark.parametrize("name", registered())
def test_every_line_is_complete(name):
    spec = find(name)
    assert spec.name == name
    assert spec.classes is not None
    assert spec.classes >= 1
    made_up = ("made_up_a", "made_up_b", "made_up_c", "made_up_images_a", "made_up_images_b")
    assert spec.family in (*FAMILIES, "author", *made_up, "digits")
    assert spec.reads == ("images" if spec.columns.text == "image" else "text")
    assert len(spec.label_names) in (0, spec.classes)
    splits = getattr(spec.source, "splits", {"train": "train"})
    assert "train" in splits
    assert set(splits) <= {"train", "validation", "test"}
    assert len(set(splits.values())) == len(splits), "one split in two roles would leak"


def test_the_paper_has_36_datasets_in_five_families():
    families = [find(name).family for name in PAPER]
    counts = {family: families.count(family) for family in FAMILIES}
    assert counts == {"general": 10, "nli": 6, "topic": 7, "sentiment": 7, "twitter": 6}
    assert len(set(PAPER)) == 36
    assert len(PACKAGED) == 16
    assert not set(PAPER) & set(PACKAGED)


def test_the_metrics_of_the_papers_datasets_are_the_authors():
    """Their result files hold accuracy, and for STS-B Spearman's correlation."""
    assert {name: find(name).metric for name in PAPER} == dict.fromkeys(PAPER, "accuracy") | {"stsb": "spearman"}
    assert [name for name in PAPER if find(name).classes == 1] == ["stsb"]


def test_the_largest_datasets_are_tested_on_the_authors_number_of_texts():
    assert {name: dict(find(name).usual) for name in PAPER if find(name).usual} == {
        name: {"test": 3_000} for name in ("ag_news", "yahoo_answers", "dbpedia")
    }


def test_mnli_is_tested_on_genres_without_training_texts_and_on_the_others_on_request():
    assert find("mnli").source.splits["test"] == "validation_mismatched"
    assert find("mnli_matched").source.splits["test"] == "validation_matched"
    assert "mnli_matched" not in PAPER
    assert overlapping("mnli") == {"mnli", "mnli_matched"}


def test_every_repository_of_the_paper_is_pinned_to_a_commit():
    sources = {name: find(name).source for name in (*PAPER, *VARIANTS)}
    pins = {name: (source.path, source.revision) for name, source in sources.items() if hasattr(source, "path")}
    assert set(sources) - set(pins) == {"isear"}, "a file at a web address that names a commit, known by its sha256"
    assert set(pins.values()) == set(COMMITS.items())
    assert len(set(COMMITS.values())) == len(COMMITS)
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in COMMITS.values())


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(WsrError, match=r"'vader_movies'.*nearest: vader_movie"):
        find("vader_movies")


def test_a_newcomer_is_found_and_a_taken_name_refused(monkeypatch):
    from wsr.data import table

    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))
    spec = DatasetSpec("mine", "sentiment", Files("mine.csv"))
    register(spec)
    register(spec)
    assert find("mine") == spec
    with pytest.raises(WsrError, match="'mine' is already registered"):
        register(replace(spec, family="topic"))


@pytest.mark.parametrize(("classes", "metric"), [(1, "accuracy"), (2, "pearson"), (2, "acc")])
def test_a_metric_must_go_with_the_labels(classes, metric):
    with pytest.raises(WsrError, match=metric):
        DatasetSpec("mine", "general", Files("mine.csv"), classes=classes, metric=metric)
