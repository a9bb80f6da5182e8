"""Delimiters and quotes of CSV and TSV files: what is assumed is said, and what can be read in two ways is refused."""

import pytest

from wsr.data.delimited import Dialect
from wsr.data.examples import Columns, read_examples
from wsr.data.files import Documents, read_file
from wsr.data.text_folder import TextFolder
from wsr.errors import WsrError

ROWS = [("good film", "a"), ("bad; really, bad | film", "b"), ("it is 20 inches", "a")]


def write(path, lines, newline="\n"):
    path.write_bytes(newline.join(lines).encode() + newline.encode())
    return path


def cells(records):
    return list(zip(records.columns["text"], records.columns["label"], strict=True))


def tsv(*texts):
    return ["text\tlabel", *(f"{text}\t{number % 2}" for number, text in enumerate(texts))]


@pytest.mark.parametrize(("delimiter", "said"), [(";", "semicolons"), ("|", "vertical bars"), ("\t", "tabs")])
def test_another_delimiter_in_a_csv_file_is_found_and_said(tmp_path, delimiter, said):
    plain = [("text", "label"), ROWS[0], ROWS[2]]
    found = read_file(write(tmp_path / "data.csv", [delimiter.join(row) for row in plain]))
    assert cells(found) == [ROWS[0], ROWS[2]]
    assert found.notes == (f"{tmp_path / 'data.csv'}: read as cells separated by {said}",)


def test_the_delimiter_can_be_given_or_declared(tmp_path):
    path = write(tmp_path / "data.csv", ["text:label", "good, bad; film:a"])
    assert cells(read_file(path, Dialect(delimiter=":"))) == [("good, bad; film", "a")]
    declared = write(tmp_path / "sep.csv", ["sep=;", "text;label", "good film;a"])
    found = read_file(declared)
    assert (cells(found), list(found.rows)) == ([("good film", "a")], [3])
    with pytest.raises(WsrError, match="expected one character"):
        Dialect(delimiter=",,")


@pytest.mark.parametrize("delimiter", [":", "^", "~"])
def test_a_delimiter_that_is_not_found_gets_the_flag_that_names_it(tmp_path, delimiter):
    path = write(tmp_path / "data.csv", [delimiter.join(row) for row in [("text", "label"), ("good film", "a")]])
    with pytest.raises(WsrError, match=r"no column 'text', 'label'; .*with --delimiter"):
        read_examples({"train": read_file(path)}, Columns())
    with pytest.raises(WsrError, match=r"no column 'label'; found 'text', 'stars'; nearest: .*; name the columns with"):
        read_examples({"train": read_file(write(tmp_path / "other.csv", ["text,stars", "good film,a"]))}, Columns())


def test_rows_of_other_lengths_get_a_way_on(tmp_path):
    for more, way in (("'good, film',a", "put double quotes around a cell that contains ','"), ("film", "--delimiter")):
        with pytest.raises(WsrError, match=f"line 3: expected 2 cells .*{way}"):
            read_file(write(tmp_path / "data.csv", ["text,label", "one,a", more]))


def test_a_quote_that_a_later_line_closes_is_refused_and_can_be_settled(tmp_path):
    path = write(tmp_path / "data.csv", ["text,label", "one,a", '"two,b', 'three",a', "four,b"])
    with pytest.raises(WsrError, match=r"line 3: a double quote opens a cell that ends on a later line.*--quoting=no"):
        read_file(path)
    assert list(read_file(path, Dialect(quoting=False)).columns["text"]) == ["one", '"two', 'three"', "four"]
    assert len(read_file(path, Dialect(quoting=True))) == 3


def test_quotes_of_a_tsv_file_are_characters_where_they_enclose_no_cell(tmp_path):
    texts = ["one", '"two', 'three inches, 20"', 'a "word" here']
    found = read_file(write(tmp_path / "data.tsv", tsv(*texts)))
    assert list(found.columns["text"]) == texts
    assert "double quotes are read as characters" in found.notes[0]


def test_quotes_of_a_tsv_file_that_enclose_cells_are_said(tmp_path):
    found = read_file(write(tmp_path / "data.tsv", tsv('"one ""and"" two"', "three")))
    assert list(found.columns["text"]) == ['one "and" two', "three"]
    assert "double quotes enclose cells" in found.notes[0]


def test_lines_inside_quoted_cells_are_read_where_quotes_are_in_use(tmp_path):
    path = write(tmp_path / "data.csv", ['"text","label"', '"one,', 'two","a"', '"three","b"'])
    assert cells(read_file(path)) == [("one,\ntwo", "a"), ("three", "b")]


def test_a_backslash_before_a_quote_is_refused_with_what_to_do(tmp_path):
    path = write(tmp_path / "data.csv", ["text,label", r'"say \"x\" now",a'])
    with pytest.raises(WsrError, match=r"line 2.*write a quote inside a cell twice.*--quoting=no"):
        read_file(path)


def test_spaces_are_kept_unless_the_header_has_them_after_each_comma(tmp_path):
    kept = read_file(write(tmp_path / "kept.csv", ["text,label", " one,a"]))
    assert cells(kept) == [(" one", "a")]
    dropped = read_file(write(tmp_path / "dropped.csv", ["text, label", 'one, "a, b"']))
    assert cells(dropped) == [("one", "a, b")]


def test_columns_without_a_name_are_numbered_and_two_of_one_name_refused(tmp_path):
    found = read_file(write(tmp_path / "data.csv", ["text,label,,", "one,a,,"]))
    assert list(found.columns) == ["text", "label", "column 3", "column 4"]
    with pytest.raises(WsrError, match="'text' occurs more than once; rename one of them"):
        read_file(write(tmp_path / "twice.csv", ["text,label,text", "one,a,two"]))


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", "text,label\n".encode("utf-16")])
def test_compressed_and_utf_16_files_are_named_as_such(tmp_path, content):
    (tmp_path / "data.csv").write_bytes(content)
    with pytest.raises(WsrError, match=r"expected UTF-8 text, found .*; (unpack|convert) it"):
        read_file(tmp_path / "data.csv")


def test_line_ends_of_text_files_and_capitals_in_endings(tmp_path):
    found = read_file(write(tmp_path / "NOTES.TXT", ["one", "two"], newline="\r\n"))
    assert list(found.columns["text"]) == ["one", "two"]
    assert len(read_file(write(tmp_path / "UP.CSV", ["text,label", "one,a"]))) == 1


def test_line_ends_of_documents(tmp_path):
    for name in ("pos", "neg"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.txt").write_bytes(b"one\r\ntwo")
    assert TextFolder(tmp_path).read()["train"].columns["text"] == ["one\ntwo"] * 2
    assert Documents(tmp_path / "pos").read()["train"].columns["text"] == ["one\ntwo"]
