"""Labels become classes by name, or by position where a source declares the order; nothing is merged unsaid."""

from decimal import Decimal

import numpy as np
import pytest

from wsr.data.classes import read_classes
from wsr.data.examples import Columns, read_examples
from wsr.data.files import read_file
from wsr.data.records import Records
from wsr.errors import WsrError


def table(cells, declared=(), origin="train.csv"):
    names = {"label": tuple(declared)} if declared else {}
    columns = {"text": [f"text {number}" for number in range(len(cells))], "label": list(cells)}
    return Records(origin, columns, range(2, len(cells) + 2), label_names=names)


def classes_of(train, test=None, **options):
    records = {"train": train} | ({} if test is None else {"test": test})
    labels, names, notes = read_classes(records, "label", **options)
    return {role: own.tolist() for role, own in labels.items()}, names, notes


@pytest.mark.parametrize(
    "declared", [("1", "2"), ("0", "1", "10", "11", "2"), ("neg", "pos"), ("2", "1", "0"), ("1", "0")]
)
def test_a_declared_feature_is_read_by_position(declared):
    cells = list(range(len(declared))) * 2
    labels, names, _ = classes_of(table(cells, declared))
    assert (labels["train"], names) == (cells, declared)


def test_a_declared_test_split_of_another_order_is_matched_by_name():
    labels, names, _ = classes_of(table([0, 1], ("neg", "pos")), table([0, 1, 1], ("pos", "neg"), "test"))
    assert (labels["test"], names) == ([1, 0, 0], ("neg", "pos"))
    with pytest.raises(WsrError, match="label 'new' is none of the 2 classes"):
        classes_of(table([0, 1], ("neg", "pos")), table([1], ("pos", "new"), "test"))


def test_hidden_labels_of_a_declared_feature_are_named():
    with pytest.raises(WsrError, match="-1 marks a hidden label"):
        classes_of(table([0, 1], ("neg", "pos")), table([-1], ("neg", "pos"), "test"))


@pytest.mark.parametrize("cell", ["0", 0, 2.0, True])
def test_numbers_do_not_stand_for_names_whose_order_is_not_declared(cell):
    with pytest.raises(WsrError, match=r"test.csv, line 2.*whose order is not declared; .*--label_names"):
        classes_of(table(["no", "yes", "maybe"]), table([cell], origin="test.csv"))
    labels, _, _ = classes_of(
        table(["no", "yes", "maybe"]), table([cell], origin="test.csv"), label_names=("yes", "no", "maybe")
    )
    assert labels["test"] == [int(cell)]


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["01", "02", "10"], ("01", "02", "10")),
        (["10", "9", "9.0"], ("9", "10")),
        ([str(10**17), str(10**17 + 1)], (str(10**17), str(10**17 + 1))),
        ([10**17, 10**17 + 1], (str(10**17), str(10**17 + 1))),
        (["nan", "inf", "none"], ("inf", "nan", "none")),
        (["None", "NA", "null"], ("NA", "None", "null")),
        ([Decimal(1), Decimal("2.0")], ("1", "2")),
        ([True, 0], ("0", "1")),
        ([np.int64(3), "3", 4.0], ("3", "4")),
    ],
)
def test_every_value_is_a_class_of_its_own(cells, names):
    assert classes_of(table(cells))[1] == names


@pytest.mark.parametrize(
    "cells", [["1", "01"], ["1e3", "1000"], ["01", "1", "1.0"], ["0.5", "1.0"], ["1", "2", "maybe"]]
)
def test_what_would_be_merged_or_mixed_is_refused_until_the_classes_are_named(cells):
    with pytest.raises(WsrError, match="--label_names"):
        classes_of(table(cells))
    labels, _, _ = classes_of(table(cells), label_names=tuple(cells))
    assert labels["train"] == list(range(len(cells)))


def test_spellings_that_are_one_class_are_said():
    _, names, notes = classes_of(table(["very good", " very good", "bad"]))
    assert names == ("bad", "very good")
    assert notes == ("train.csv, column 'label': 'very good', ' very good' read as one class, 'very good'",)


def test_lists_are_no_labels():
    for cell in ([1, 2], {"a": 1}):
        with pytest.raises(WsrError, match="is not one number or name"):
            classes_of(table([cell, cell]))


def test_class_names_that_datasets_keeps_in_parquet_are_read(tmp_path):
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["zero", "a", "b"]))
    rows = {"text": ["x", "y", "z"], "label": [2, 0, 1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "data.parquet")
    found, names = read_examples({"train": read_file(tmp_path / "data.parquet")}, Columns())
    assert (names, found["train"].labels.tolist()) == (("zero", "a", "b"), [2, 0, 1])


def test_empty_rows_name_the_flag_that_leaves_them_out():
    records = {"train": table(["a", "", "b", None])}
    records["train"].columns["text"][0] = " "
    with pytest.raises(WsrError, match=r"line 3, column 'label': the label is empty; .*--drop_empty"):
        read_examples(records, Columns())
    found, _ = read_examples({"train": table(["a", "", "b", None])}, Columns(), drop_empty=True)
    assert len(found["train"]) == 2
    assert found["train"].notes == ("train.csv: 2 rows without label left out",)
