"""Local files: what is read, and that everything else is one line naming file, row and column."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsr.data.examples import Columns, read_examples
from wsr.data.files import Files, find_files, read_file
from wsr.errors import WsrError

ROWS = [("good film", "a"), ('says "no",\nand\ttwice', "b"), ("naïve ☃", "a")]


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def examples(path, columns=None, **options):
    return read_examples({"train": read_file(path)}, columns or Columns(), **options)


def as_csv(rows, delimiter=","):
    def quoted(cell):
        return '"' + cell.replace('"', '""') + '"'

    return "".join(delimiter.join(map(quoted, row)) + "\r\n" for row in [("text", "label"), *rows])


def as_jsonl(rows):
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_examples(tmp_path, suffix):
    path = tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        texts, labels = zip(*ROWS, strict=True)
        pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": labels}), path)
    else:
        write(path, as_jsonl(ROWS) if suffix == ".jsonl" else as_csv(ROWS, {".csv": ",", ".tsv": "\t"}[suffix]))
    found, names = examples(path)
    assert list(found["train"].texts) == [text for text, _ in ROWS]
    assert found["train"].labels.tolist() == [0, 1, 0]
    assert found["train"].labels.dtype == np.int32
    assert names == ("a", "b")


def test_lines_are_counted_where_a_cell_has_line_ends(tmp_path):
    records = read_file(write(tmp_path / "data.csv", as_csv(ROWS)))
    assert list(records.rows) == [2, 3, 5]


def test_named_columns_pairs_and_joined_columns(tmp_path):
    path = write(tmp_path / "data.csv", "a,b,c,gold\nA,B,C,yes\nD,E,,no\n")
    found, _ = examples(path, Columns("a", "b", "gold"))
    assert (list(found["train"].texts), list(found["train"].pairs)) == (["A", "D"], ["B", "E"])
    found, _ = examples(path, Columns(("a", "c"), label="gold"))
    assert list(found["train"].texts) == ["A <SEP> C", "D <SEP> "]


@pytest.mark.parametrize(
    ("cells", "options", "expected", "names"),
    [
        ("3 1 3", {}, [1, 0, 1], ("1", "3")),
        ("-1 1 1.0", {}, [0, 1, 1], ("-1", "1")),
        ("2 0 1", {"classes": 3}, [2, 0, 1], ("0", "1", "2")),
        ("no yes 1", {"label_names": ("no", "yes")}, [0, 1, 1], ("no", "yes")),
        ("1 5 1", {"label_names": ("1", "5")}, [0, 1, 0], ("1", "5")),
        ("10 9 9", {}, [1, 0, 0], ("9", "10")),
        ("0.5 2 -1e3", {"classes": 1}, [0.5, 2.0, -1000.0], ()),
    ],
)
def test_labels_as_numbers_and_as_names(tmp_path, cells, options, expected, names):
    path = write(tmp_path / "data.csv", "text,label\n" + "".join(f"t,{cell}\n" for cell in cells.split()))
    found, found_names = examples(path, **options)
    assert found["train"].labels.tolist() == expected
    assert found_names == names


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("text,lable\na,0\n", {}, "data.csv: no column 'label'; found 'text', 'lable'"),
        ("text,label\na,0\n ,1\n", {}, "data.csv, line 3, column 'text': the text is empty"),
        ("text,label\na,0\nb,\n", {}, "data.csv, line 3, column 'label': the label is empty"),
        ("text,label\na,0\nb,0\n", {}, "column 'label': every label is '0'; expected two or more"),
        ("text,label\na,0\nb,x\nc,1\n", {}, "line 3, column 'label': label 'x' is not a whole number"),
        ("text,label\na,0\nb,0.5\n", {}, "line 3, column 'label': label '0.5' is not a whole number"),
        ("text,label\na,0\nb,2\nc,1\n", {"classes": 2}, "line 3, column 'label': label 2 is out of range"),
        ("text,label\na,0\nb,-1\n", {"classes": 2}, "line 3, column 'label': label -1 marks a hidden label"),
        ("text,label\na,x\nb,y\n", {"classes": 3}, "expected 3 classes, found 2: 'x', 'y'"),
        ("text,label\na,no\nb,nope\n", {"label_names": ("no", "yes")}, "label 'nope' is none of the 2 classes"),
        ("text,label\na,1\nb,nan\n", {"classes": 1}, "line 3, column 'label': label 'nan' is not a finite number"),
        ("text,label\na,1\nb,1e99\n", {"classes": 1}, "label '1e99' is not a finite number"),
        ("text,label\na,1\nb,1\n", {"classes": 1}, "every label is 1.0"),
        ("text,label\na,0,9\n", {}, "data.csv, line 2: expected 2 cells (text, label), found 3"),
        ("text,label\na\n", {}, "data.csv, line 2: expected 2 cells (text, label), found 1"),
        ("text,text\na,b\n", {}, "line 1: column 'text' occurs more than once"),
        ('text,label\n"a,0\n', {}, "data.csv, line 2: "),
        (b"text,label\na,0\nb\xff,1\n", {}, "data.csv, line 3: byte 0xff is not UTF-8"),
        ("", {}, "data.csv: the file is empty"),
        ("text,label\n", {}, "data.csv: no examples"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, content, options, message):
    path = write(tmp_path / "data.csv", content)
    with pytest.raises(WsrError) as error:
        examples(path, **options)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": 0}\n{"text": \n', "line 2: not JSON"),
        ("[1]\n", "line 1: expected one JSON object per line, found list"),
        ("[" * 100_000, "line 1: not JSON"),
        ('{"text": "a", "label": 0}\n{"label": 1}\n', "line 2, column 'text': the text is empty"),
        ('{"text": "a", "label": 0}\n\n{"text": 7, "label": 1}\n', "line 3, column 'text': expected text, found 7"),
        ('{"text": "a", "label": 0}\n{"text": "b"}\n', "line 2, column 'label': the label is empty"),
        ('{"text": "a", "label": 0}\n{"text": "b", "label": [1]}\n', "line 2, column 'label': label [1] is not"),
        ('{"text": "\\ud800", "label": 0}\n', "line 1, column 'text': the text is not valid Unicode"),
    ],
)
def test_what_is_wrong_in_jsonl_is_named(tmp_path, content, message):
    with pytest.raises(WsrError) as error:
        examples(write(tmp_path / "data.jsonl", content))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_empty_texts_are_left_out_only_where_asked_and_counted(tmp_path):
    path = write(tmp_path / "data.csv", "text,label\na,0\n ,1\nb,1\n")
    found, _ = examples(path, drop_empty=True)
    assert list(found["train"].texts) == ["a", "b"]
    assert found["train"].labels.tolist() == [0, 1]
    assert found["train"].notes == (f"{path}: 1 rows without text left out",)


def test_a_label_that_train_lacks_is_named_in_test(tmp_path):
    train = write(tmp_path / "train.csv", "text,label\na,x\nb,y\n")
    test = write(tmp_path / "test.csv", "text,label\nc,z\n")
    with pytest.raises(WsrError, match=r"test\.csv, line 2, column 'label': label 'z' is none of the 2 classes"):
        read_examples(Files(train, test=test).read(), Columns())


def test_files_of_a_folder(tmp_path):
    write(tmp_path / "train.csv", as_csv(ROWS))
    write(tmp_path / "test.jsonl", as_jsonl(ROWS))
    assert find_files(tmp_path) == Files(tmp_path / "train.csv", test=tmp_path / "test.jsonl")
    assert find_files(tmp_path / "train.csv") == Files(tmp_path / "train.csv")
    write(tmp_path / "train.tsv", as_csv(ROWS))
    with pytest.raises(WsrError, match=r"found several files for train: train\.csv, train\.tsv"):
        find_files(tmp_path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(WsrError, match="No such file"):
        read_file(tmp_path / "absent.csv")
    with pytest.raises(WsrError, match="not a readable Parquet file"):
        read_file(write(tmp_path / "data.parquet", b"not parquet"))
    with pytest.raises(WsrError, match=r"ending in \.csv, \.tsv, \.jsonl, \.parquet"):
        read_file(write(tmp_path / "data.xml", b""))


cells = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just([1]))


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(alphabet='ab01,"\n\r\t\\x00é', max_size=60).map(str.encode),
        st.lists(st.tuples(st.text(max_size=6), st.text(max_size=3)), max_size=5)
        .map(as_csv)
        .map(lambda text: text.encode(errors="surrogatepass")),
        st.lists(st.tuples(cells, cells), max_size=5).map(as_jsonl).map(str.encode),
    ),
    st.sampled_from([".csv", ".tsv", ".jsonl", ".parquet"]),
    st.sampled_from([{}, {"classes": 1}, {"classes": 2}, {"drop_empty": True}]),
)
def test_any_bytes_give_examples_or_one_clear_line(content, suffix, options):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / f"data{suffix}", content)
        try:
            found, _ = examples(path, **options)
        except WsrError as error:
            found, message = None, str(error)
        if found is None:
            assert str(path) in message
        else:
            assert all(text.strip() for text in found["train"].texts)
            assert np.isfinite(found["train"].labels).all()
