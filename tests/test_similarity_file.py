import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsr.errors import WsrError
from wsr.statistics.similarity_file import labels_from_names, labels_in_order, read_labels, read_similarity

MATRIX = np.array([[1.0, 0.5, -0.25], [0.5, 1.0, 0.125], [-0.25, 0.125, 1.0]])
NAMES = ("mnli-1", "mnli-2", "sst2-1")
ROWS = ["1,0.5,-0.25", "0.5,1,0.125", "-0.25,0.125,1"]
BARE = "\n".join([",".join(NAMES), *ROWS]) + "\n"


def written(folder, content):
    path = folder / "matrix.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def named(header, rows=ROWS, names=NAMES):
    return "\n".join([header, *(f"{name},{row}" for name, row in zip(names, rows, strict=True))])


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(BARE, id="without names"),
        pytest.param(named("," + ",".join(NAMES)), id="empty corner"),
        pytest.param(named("model," + ",".join(NAMES)), id="named corner"),
        pytest.param(named(",".join(NAMES)), id="absent corner, as R writes it"),
        pytest.param(BARE.replace("\n", "\r\n").encode("utf-8-sig"), id="byte order mark and Windows lines"),
        pytest.param("\n" + BARE.replace(",", " , ") + "\n\n", id="blanks"),
        pytest.param(BARE.replace("mnli-1", '"mnli-1"'), id="quotes"),
    ],
)
def test_every_way_to_write_a_matrix(tmp_path, content):
    names, matrix = read_similarity(written(tmp_path, content))
    assert names == NAMES
    np.testing.assert_array_equal(matrix, MATRIX)


def test_a_single_model_and_names_that_are_numbers(tmp_path):
    names, matrix = read_similarity(written(tmp_path, "only\n1\n"))
    assert names == ("only",)
    assert matrix.tolist() == [[1.0]]
    names, matrix = read_similarity(written(tmp_path, ",0,1\n0,1.0,0.5\n1,0.5,1.0\n"))
    assert names == ("0", "1")
    assert matrix.tolist() == [[1.0, 0.5], [0.5, 1.0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BARE.replace("0.125,1", "high,1"), "must be numbers, found 'high' at line 4, column 'mnli-2'"),
        (BARE.replace("0.125,1", ",1"), "must be numbers, found '' at line 4, column 'mnli-2'"),
        (BARE.replace("1,0.125", "1"), "every row must have 3 cells like most rows, found line 3 [(]2[)]"),
        (BARE.replace("1,0.125", "1,0.25"), "must be symmetric, found 0.25 at row mnli-2, column sst2-1"),
        (BARE.replace("1,0.125", "1,nan"), "must be finite, found nan at row mnli-2, column sst2-1"),
        (BARE.replace("0.5,1,", "0.5,2,"), "the diagonal must be 1, found 2 at row mnli-2"),
        (BARE.replace("mnli-2", "mnli-1"), "must differ, found twice mnli-1"),
        (BARE.replace("mnli-2", ""), "must not be empty, found column 2"),
        (BARE.rsplit("\n", 2)[0], "must be square"),
        (BARE.replace(",", ";"), "must be numbers, found '1;0.5;-0.25'|must be square"),
        (
            named("," + ",".join(NAMES), names=NAMES[::-1]),
            "in the order of the header, found line 2: 'sst2-1' for 'mnli-1'",
        ),
        ("", "is empty"),
        ("a,b\n", "must be square"),
        (BARE.encode("utf-16"), "must be UTF-8, found the byte 0xff at 0"),
        ('a,b\n"1,2\n', "not a CSV file: .* line 2"),
    ],
)
def test_what_is_wrong_with_a_matrix_is_said(tmp_path, content, message):
    path = written(tmp_path, content)
    with pytest.raises(WsrError, match=message) as caught:
        read_similarity(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WsrError, match=r"absent\.csv: cannot be read: No such file"):
        read_similarity(tmp_path / "absent.csv")
    with pytest.raises(WsrError, match="cannot be read: Is a directory"):
        read_labels(tmp_path)


def test_all_bad_cells_are_listed_up_to_ten(tmp_path):
    names = [f"m{i}" for i in range(4)]
    with pytest.raises(WsrError, match=r"'x' at line 2, column 'm0'.* and 6 more$"):
        read_similarity(written(tmp_path, "\n".join([",".join(names)] + ["x,x,x,x"] * 4)))


cells = st.one_of(
    st.sampled_from(["1", "0.5", "", "a", "b", "nan", "inf", '"', "1e400", " ", "\x00", "é"]), st.text(max_size=3)
)
tables = st.lists(st.lists(cells, max_size=4).map(",".join), max_size=5).map("\n".join)


@settings(max_examples=150, deadline=None)
@given(content=st.one_of(tables.map(lambda text: text.encode("utf-8", "replace")), st.binary(max_size=40)))
def test_any_file_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = written(tmp_path_factory.getbasetemp(), content)
    for read in (read_similarity, read_labels):
        message = ""
        try:
            read(path)
        except WsrError as error:
            message = str(error)
        assert "\n" not in message


def test_labels_are_read(tmp_path):
    path = written(tmp_path, "seed,label,model\n1,nli,mnli-1\n2, nli,mnli-2\n1,sentiment,sst2-1\n")
    labels = read_labels(path)
    assert labels == {"mnli-1": "nli", "mnli-2": "nli", "sst2-1": "sentiment"}
    assert labels_in_order(NAMES[::-1], labels, path) == ["sentiment", "nli", "nli"]
    with pytest.raises(WsrError, match=r"matrix.csv: has no label for a, b$"):
        labels_in_order(["a", "mnli-1", "b"], labels, path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model,family\na,x\n", "needs the columns model and label once each, found .*'family'"),
        ("model,label,label\na,x,y\n", "needs the columns model and label once each"),
        ("model,label\na,x\na,y\n", "must have one row, found more for a$"),
        ("model,label\na,\nb,x\nc,\n", "column label must not be empty, found line 2, line 4"),
        ("model,label\n,x\n", "column model must not be empty, found line 2"),
        ("model,label\na,x,y\n", "2 cells like the header, found line 2 [(]3[)]"),
        ("model,label\n", "no rows"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_with_labels_is_said(tmp_path, content, message):
    with pytest.raises(WsrError, match=message):
        read_labels(written(tmp_path, content))


def test_labels_from_names():
    assert labels_from_names(NAMES, r"^(\w+)-") == {"mnli-1": "mnli", "mnli-2": "mnli", "sst2-1": "sst2"}
    with pytest.raises(WsrError, match=r"finds no label in sst2-1$"):
        labels_from_names(NAMES, "(mnli)")
    with pytest.raises(WsrError, match=r"finds no label in mnli-1, mnli-2$"):
        labels_from_names(NAMES, "mnli|(sst2)")
    with pytest.raises(WsrError, match="needs a group"):
        labels_from_names(NAMES, "mnli")
    with pytest.raises(WsrError, match="not a regular expression"):
        labels_from_names(NAMES, "(mnli")
