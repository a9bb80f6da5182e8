"""What public data look like: hidden labels, labels counted from 1 or with gaps, classes without texts, odd files."""

import hashlib
import http.server
import importlib.util
import threading
import zipfile
from pathlib import Path

import pytest

import wsr
from wsr.data import table
from wsr.data.classes import class_values, read_classes
from wsr.data.delimited import Dialect
from wsr.data.examples import Columns
from wsr.data.files import Files
from wsr.data.hidden import without_hidden
from wsr.data.hub import Hub
from wsr.data.published_file import LabelledLines, WebFile
from wsr.data.records import Records
from wsr.data.table import DatasetSpec
from wsr.data.tfds import Tfds
from wsr.errors import WsrError


def records(origin, labels, declared=()):
    columns = {"text": [f"text {at}" for at in range(len(labels))], "label": labels}
    return Records(origin, columns, range(1, len(labels) + 1), label_names={"label": declared} if declared else {})


@pytest.mark.parametrize(
    ("found", "classes", "expected"),
    [
        ({0, 1, 2}, 3, (0, 1, 2)),
        ({0, 2}, 3, (0, 1, 2)),  # class 1 never occurs
        ({1, 2, 3}, 3, (1, 2, 3)),
        ({1, 3}, 3, (1, 2, 3)),  # class 2 never occurs
        ({1, 2}, 3, (0, 1, 2)),  # in doubt they count from 0
        ({0, 2, 4}, 3, (0, 2, 4)),
        ({0, 4}, 2, (0, 4)),
        ({-1, 1}, 2, (-1, 1)),
        ({-1, 0}, 2, (0, 1)),  # -1 is refused later, as a hidden label
        ({0, 1, 7}, 2, (0, 1)),  # 7 is refused later, as out of range
    ],
)
def test_numbers_of_classes(found, classes, expected):
    assert class_values(found, classes) == expected


@pytest.mark.parametrize("written", [int, str, float])
@pytest.mark.parametrize("values", [(0, 1, 2), (1, 2, 3), (0, 2, 4), (-1, 0, 1), (10, 20, 30)])
def test_names_in_order_are_those_of_the_numbers_however_they_are_counted(values, written):
    names = ("worse", "equal", "better")
    roles = {
        "train": records("a/train", [written(values[at]) for at in (2, 0, 1, 1)]),
        "test": records("a/test", [written(values[at]) for at in (1, 1)]),
    }
    labels, found, notes = read_classes(roles, "label", names, 3)
    assert found == names
    assert labels["train"].tolist() == [2, 0, 1, 1]
    assert labels["test"].tolist() == [1, 1]
    assert bool(notes) == (values != (0, 1, 2)), "what is assumed is said"


def test_a_last_class_that_only_the_test_texts_have_shows_that_numbers_count_from_1():
    roles = {"train": records("a/train", [1, 2, 1]), "test": records("a/test", [3])}
    labels, names, _ = read_classes(roles, "label", (), 3)
    assert names == ("1", "2", "3")
    assert labels["test"].tolist() == [2]


@pytest.mark.parametrize("role", ["train", "validation", "test"])
def test_hidden_labels_are_left_out_of_any_split_and_counted(role):
    declared = ("entailment", "neutral", "contradiction")
    roles = {name: records(f"snli/{name}", [0, 1, 2, 0], declared) for name in ("train", "validation", "test")}
    roles[role] = records(f"snli/{role}", [0, -1, 2, -1, 1], declared)
    found, notes = without_hidden(roles, "label", (), 3)
    assert found[role].columns == {"text": ["text 0", "text 2", "text 4"], "label": [0, 2, 1]}
    assert list(found[role].rows) == [1, 3, 5]
    assert notes == (f"snli/{role}: 2 of 5 rows left out: their label is hidden (-1)",)
    assert all(len(found[name]) == 4 for name in roles if name != role)


def test_hidden_labels_of_undeclared_classes_and_minus_one_as_a_class():
    hidden, notes = without_hidden({"train": records("a", ["0", "-1", "1"])}, "label", (), 2)
    assert hidden["train"].columns["label"] == ["0", "1"]
    assert len(notes) == 1
    for classes, names in ((3, ()), (None, ("worse", "equal", "better")), (None, ()), (1, ())):
        kept, notes = without_hidden({"train": records("a", [0, -1, 1])}, "label", names, classes)
        assert kept["train"].columns["label"] == [0, -1, 1]
        assert notes == ()


def test_a_text_with_the_delimiter_takes_the_surplus_cells(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text('label|text|state|\njoy|a day|1|\nfear|at \\night"|and|alone|1|\n')
    read = Files(path, dialect=Dialect("|", quoting=False, surplus="text")).read()["train"]
    assert read.columns["text"] == ("a day", 'at \\night"|and|alone')
    assert read.columns["state"] == ("1", "1")
    assert read.notes == (f"{path}: column 'text' of 1 rows contains the delimiter '|'",)
    with pytest.raises(WsrError, match=r"line 3: expected 4 cells .*, found 6"):
        Files(path, dialect=Dialect("|", quoting=False)).read()


def test_the_usual_size_of_a_split_is_an_upper_bound_that_a_caller_may_exceed(monkeypatch, tmp_path):
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))
    for name, count in (("train", 60), ("test", 50)):
        lines = [f"{name} text {at},{at % 2}" for at in range(count)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *lines]))
    source = Files(tmp_path / "train.csv", test=tmp_path / "test.csv")
    for name, most in (("large", 30), ("small", 70)):
        table.register(
            DatasetSpec(name, "topic", source, Columns("text"), 2, usual={"test": most}, notes=(f"{name}: a copy",))
        )
    processor = wsr.load("tiny").processor
    large = wsr.load_dataset("large", processor)
    assert len(large.splits["test"]) == 30
    assert "large: 30 of 50 texts of test are used, as in the paper" in large.notes
    assert large.notes[0] == "large: a copy"
    assert len(wsr.load_dataset("large", processor, sizes={"test": 40}).splits["test"]) == 40
    assert len(wsr.load_dataset("small", processor).splits["test"]) == 50


@pytest.fixture
def web(tmp_path):
    """A web server, and its address."""
    (tmp_path / "served").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_web_file_is_known_by_its_hash_and_kept(web, tmp_path, monkeypatch):
    served, address = web
    content = b"SIT|Field1\na day|joy\na night|fear\n"
    (served / "isear.csv").write_bytes(content)
    monkeypatch.setenv("WSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    source = WebFile(f"{address}/isear.csv", hashlib.sha256(content).hexdigest(), Dialect("|"))
    assert source.read()["train"].columns["Field1"] == ("joy", "fear")
    (served / "isear.csv").write_bytes(b"another\n")
    assert source.read()["train"].columns["Field1"] == ("joy", "fear"), "read from the cache"
    other = WebFile(f"{address}/isear.csv", "0" * 64)
    with pytest.raises(WsrError, match=r"sha256 expected 0+, found [0-9a-f]{64}; put the file into the working folder"):
        other.read()
    with pytest.raises(WsrError, match=r"none\.csv: cannot be downloaded: File not found"):
        WebFile(f"{address}/none.csv", "0" * 64).read()
    assert [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()] == ["isear.csv"]
    (tmp_path / "isear.csv").write_bytes(b"SIT|Field1\nmine|shame\nits|guilt\n")
    assert source.read()["train"].columns["Field1"] == ("shame", "guilt"), "a file in the working folder comes first"


def test_lines_of_a_zip_file_end_with_their_label(tmp_path, monkeypatch):
    """The separator occurs in texts too, and 0x85 is a letter-like byte of Latin-1, not the end of a line."""
    place = tmp_path / "abc" / "data" / "bank.zip"
    place.parent.mkdir(parents=True)
    with zipfile.ZipFile(place, "w") as archive:
        archive.writestr("bank/50.txt", b"Sales rose @ 5 %\x85 more@positive\r\n\r\nNo change \xe4t all@neutral\n")
    monkeypatch.setattr("wsr.data.published_file.from_hub", lambda path, revision, load, scripts: (place, "abc"))
    source = LabelledLines("owner/bank", "data/bank.zip", "bank/50.txt", "@", encoding="iso-8859-1")
    read = source.read()["train"]
    assert read.columns == {"text": ["Sales rose @ 5 %\x85 more", "No change ät all"], "label": ["positive", "neutral"]}
    assert list(read.rows) == [1, 3]
    assert read.notes == ("owner/bank: read at its newest commit, abc",)
    with pytest.raises(WsrError, match=r"bank/5\.txt: not in the zip file; nearest: bank/50\.txt"):
        LabelledLines("owner/bank", "data/bank.zip", "bank/5.txt", "@").read()
    with pytest.raises(WsrError, match=r"line 1: expected a text, '\|' and a label"):
        LabelledLines("owner/bank", "data/bank.zip", "bank/50.txt", "|", encoding="iso-8859-1").read()
    with pytest.raises(WsrError, match="byte 0x85 is not utf-8"):
        LabelledLines("owner/bank", "data/bank.zip", "bank/50.txt", "@").read()


def test_a_missing_split_and_a_renamed_column_get_the_nearest_name(tmp_path):
    for name in ("train", "validation"):
        (tmp_path / f"{name}.csv").write_text("sentence,label\na,0\nb,1\n")
    with pytest.raises(WsrError, match="no split 'validatoin'; found train, validation; nearest: validation"):
        Hub(str(tmp_path), splits={"train": "train", "test": "validatoin"}).read()
    with pytest.raises(WsrError, match="no column 'sentense'; found 'sentence', 'label'; nearest: sentence; name"):
        wsr.load_dataset(str(tmp_path / "train.csv"), wsr.load("tiny").processor, columns=Columns("sentense"))


def test_the_catalogue_replaces_the_hub_on_request(monkeypatch):
    """Made-up rows stand for what TensorFlow Datasets prepared."""
    asked = []

    def read(self):
        asked.append((self.name, dict(self.splits)))
        return {
            role: Records(role, {"sentence1": [f"{role} {n}" for n in range(40)], "sentence2": ["b"] * 40,
                                 "label": [n % 2 for n in range(40)]}, range(1, 41),
                          label_names={"label": ("entailment", "not_entailment")})
            for role in self.splits
        }  # fmt: skip

    monkeypatch.setattr(Tfds, "read", read)
    processor = wsr.load("tiny").processor
    data = wsr.load_dataset("rte", processor, tfds=True)
    assert asked == [("glue/rte", {"train": "train", "test": "validation"})]
    assert data.label_names == ("entailment", "not_entailment")
    with pytest.raises(WsrError, match=r"ag_news: no entry in the catalogue .* known: cola, mrpc, "):
        wsr.load_dataset("ag_news", processor, tfds=True)


def test_the_catalogue_has_the_entries_configurations_and_columns():
    """Against the builders' source, because building them needs TensorFlow."""
    package = importlib.util.find_spec("tensorflow_datasets")
    if package is None:
        pytest.skip("pip install 'wsr[tfds]'")
    folder = Path(package.origin).parent / "text"
    named = [table.find(name) for name in table.PAPER if table.find(name).catalogue]
    assert len(named) == 16
    for spec in named:
        dataset, _, config = spec.catalogue.name.partition("/")
        source = (folder / f"{dataset}.py").read_text(encoding="utf-8").replace("'", '"')
        for word in filter(None, (*spec.columns.of_texts, config)):
            assert f'"{word}"' in source, (spec.name, word)
        assert spec.catalogue.splits == spec.source.splits


def test_preparing_a_catalogue_dataset_without_tensorflow_says_what_to_do(tmp_path):
    pytest.importorskip("array_record", reason="pip install 'wsr[tfds]'")
    if importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is installed")
    with pytest.raises(WsrError, match="super_glue/boolq: preparing it needs TensorFlow, reading it does not"):
        Tfds("super_glue/boolq", data_dir=tmp_path).read()
