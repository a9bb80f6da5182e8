"""A document survives the way to JSON and back, and nothing that is not a document passes for one."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from test_report_example import document, heatmap

from wsr.errors import WsrError
from wsr.report.document import Document, Figure, Table
from wsr.report.tables import write_csv


def test_round_trip() -> None:
    original = document()
    text = original.to_json()
    again = Document.from_json(text)
    assert again == original
    assert again.to_json() == text
    assert {figure.kind for section in again.sections for figure in section.figures} == {
        "heatmap",
        "map",
        "curves",
        "groups",
        "intervals",
        "dendrogram",
        "contours",
        "triangle",
    }


def test_json_is_strict_where_numbers_are_not_finite() -> None:
    values = np.array([1.0, np.nan, np.inf], dtype=np.float32)
    panel = {"title": "t", "groups": [{"name": "In", "values": values}]}
    figure = Figure("groups", "t", "c", {"panels": [panel], "y_label": "loss"})
    table = Table("t", ("a", "b"), ((float("nan"), float("inf")), (3, np.float64(0.5))))
    section = dataclasses.replace(document().sections[0], figures=(figure,), tables=(table,))
    original = Document("t", ("s",), {}, (section,))

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    record = json.loads(original.to_json(), parse_constant=refuse)
    assert record["sections"][0]["figures"][0]["data"]["panels"][0]["groups"][0]["values"] == [1.0, None, None]
    assert record["sections"][0]["tables"][0]["rows"] == [[None, "inf"], [3, 0.5]]
    assert Document.from_json(original.to_json()) == original


def _changed(**changes: object) -> str:
    record = json.loads(document().to_json())
    for path, value in changes.items():
        target = record
        *way, last = path.split("__")
        for step in way:
            target = target[int(step) if step.isdigit() else step]
        target[last] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "not JSON"),
        ("[]", "expected a dict, found list"),
        ("{}", "missing ['summary', 'title']"),
        (_changed(extra=1), "unknown ['extra']"),
        (_changed(summary="one line"), "summary: expected a list, found str"),
        (_changed(sections__0__verdict="maybe"), "'maybe' is not one of"),
        (_changed(sections__1__figures__0__kind="pie"), "unknown kind 'pie'"),
        (_changed(sections__1__figures__0__data__names="abc"), "names: expected texts"),
        (_changed(sections__1__figures__0__data__names=["one"]), "names 1, matrix 21"),
        (_changed(sections__1__figures__0__data__matrix=[[1.0]] * 21), "21 values in each row"),
        (_changed(sections__1__figures__0__data__colour="red"), "unknown ['colour']"),
        (_changed(sections__2__figures__0__data__x_scale="cubic"), "'cubic' is not one of"),
        (_changed(sections__2__figures__0__data__series__0__y=[1, True]), "y: expected numbers"),
        (_changed(sections__0__tables__0__rows=[["too", "short"]]), "row 0 has 2 cells, not 6"),
        (_changed(sections__0__tables__0__rows=[[["nested"]]]), "rows 0 0: expected text, a number or null"),
        (_changed(facts={"base": 1}), "facts 'base': expected a str, found int"),
    ],
)
def test_what_is_no_document_is_refused(text: str, told: str) -> None:
    with pytest.raises(WsrError) as refusal:
        Document.from_json(text)
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_figure_takes_arrays() -> None:
    assert isinstance(heatmap().data["matrix"], list)
    assert heatmap() == heatmap()


def test_csv_runs_no_formula(tmp_path) -> None:
    hostile = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "plain, with a comma", 'say "hi"\nthere')
    table = Table("t", ("name", "=value"), (*((name, -1.5) for name in hostile), (None, 2)))
    write_csv(table, tmp_path / "folder" / "table.csv")
    with open(tmp_path / "folder" / "table.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["name", "'=value"]
    assert [row[0] for row in rows] == [
        "'=1+1",
        "'+1",
        "'-1",
        "'@SUM(A1)",
        "'\t=1",
        "plain, with a comma",
        'say "hi"\nthere',
        "",
    ]
    assert {row[1] for row in rows} == {"-1.5", "2"}  # numbers stay numbers
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    "pairs",
    [[(0, 1)], [(0, 1), (0, 2)], [(0, 3), (1, 2)], [(0, 1), (2, 3), (4, 5)], [(0, 1.5), (2, 3)]],
    ids=["too few", "a model twice", "a branch before it is made", "too many", "half a model"],
)
def test_merges_that_make_no_tree_are_refused(pairs) -> None:
    merges = [{"left": left, "right": right, "height": 0.5} for left, right in pairs]
    data = {"merges": merges, "names": ["a", "b", "c"], "groups": ["g"] * 3, "height_label": "h"}
    with pytest.raises(WsrError, match=f"{len(pairs)} merges do not make one tree of 3 models"):
        Figure("dendrogram", "t", "c", data)
