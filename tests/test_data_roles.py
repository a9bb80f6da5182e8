"""Which files, folders and splits are train, validation and test, by the names that people give them."""

import gzip
import json

import pytest
from test_data_load import make_tokenizer

from wsr.data import Columns, load_dataset
from wsr.data.load import spec_of
from wsr.data.roles import roles_of
from wsr.errors import WsrError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSR_CACHE", str(tmp_path / "cache"))


def rows(start, count, names=("a", "b")):
    return [(f"w{number // 10} w{number % 10}", names[number % len(names)]) for number in range(start, start + count)]


def write(path, start=0, count=60, names=("a", "b")):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(start, count, names)))
    return path


def sizes(path):
    dataset = load_dataset(path, make_tokenizer())
    return {name: len(split) for name, split in dataset.splits.items()}, dataset.notes


@pytest.mark.parametrize("name", ["dev", "val", "valid", "validation", "Validation", "DEV", "development", "my_dev"])
def test_validation_has_many_names(tmp_path, name):
    write(tmp_path / "d" / "train.csv")
    write(tmp_path / "d" / f"{name}.csv", 100, 13)
    assert sizes(tmp_path / "d")[0]["validation"] == 13


def test_names_in_capitals_and_with_more_words(tmp_path):
    write(tmp_path / "d" / "Train.csv")
    write(tmp_path / "d" / "Test.csv", 100, 17)
    assert sizes(tmp_path / "d")[0]["test"] == 17
    write(tmp_path / "e" / "reviews-train.csv")
    write(tmp_path / "e" / "reviews-test.csv", 100, 17)
    assert sizes(tmp_path / "e")[0]["test"] == 17


def test_files_that_are_not_read_are_named_and_doubles_refused(tmp_path):
    write(tmp_path / "d" / "train.csv")
    write(tmp_path / "d" / "more.csv", 100)
    (tmp_path / "d" / "LICENSE.txt").write_text("free")
    assert sizes(tmp_path / "d")[1] == (f"{tmp_path / 'd'}: not read, because their names say no split: more.csv",)
    write(tmp_path / "d" / "dev.csv", 100)
    write(tmp_path / "d" / "val.csv", 100)
    with pytest.raises(WsrError, match="found several for validation: dev, val; keep one, or name it validation"):
        sizes(tmp_path / "d")
    write(tmp_path / "d" / "validation.csv", 200, 9)
    assert sizes(tmp_path / "d")[0]["validation"] == 9


def test_shards_are_one_table(tmp_path):
    for number in range(3):
        write(tmp_path / "d" / "data" / f"train-0000{number}-of-00003.csv", 20 * number, 20)
    write(tmp_path / "d" / "data" / "test-00000-of-00001.csv", 300, 11)
    found, _ = sizes(tmp_path / "d")
    assert (sum(found.values()), found["test"]) == (71, 11)


def test_one_table_beside_other_files_is_read_as_the_file_is(tmp_path):
    write(tmp_path / "d" / "data.csv", names=("NA", "None"))
    (tmp_path / "d" / "LICENSE.txt").write_text("free")
    alone, beside = (load_dataset(path, make_tokenizer()) for path in (tmp_path / "d" / "data.csv", tmp_path / "d"))
    assert alone.label_names == beside.label_names == ("NA", "None")
    assert alone.content_hash == beside.content_hash


def test_a_file_that_is_taken_for_train_is_named(tmp_path):
    write(tmp_path / "d" / "eval.csv")
    write(tmp_path / "d" / "test.csv", 100, 17)
    assert sizes(tmp_path / "d")[1] == (f"{tmp_path / 'd'}: eval.csv read as train",)


def test_texts_in_one_folder_per_class(tmp_path):
    for folder in ("flat", "split/train", "split/Test"):
        for number, (text, label) in enumerate(rows(0 if folder != "split/Test" else 60, 40)):
            path = tmp_path / folder / label / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (tmp_path / "flat" / "LICENSE.txt").write_text("free")
    found = load_dataset(tmp_path / "flat", make_tokenizer())
    assert (sum(map(len, found.splits.values())), found.label_names) == (40, ("a", "b"))
    assert sizes(tmp_path / "split")[0]["test"] == 40
    (tmp_path / "split" / "train").rename(tmp_path / "split" / "other")
    with pytest.raises(WsrError, match="found Test, other, but no folder train"):
        sizes(tmp_path / "split")


def test_splits_of_a_saved_dataset(tmp_path):
    import datasets

    def part(start, count):
        texts, labels = zip(*rows(start, count), strict=True)
        return datasets.Dataset.from_dict({"text": texts, "label": labels})

    parts = {"train": part(0, 60), "validation_matched": part(100, 12), "validation_mismatched": part(200, 12)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    found, notes = sizes(tmp_path / "saved")
    assert found["validation"] == 12
    assert notes == (f"{tmp_path / 'saved'}: splits that are not read: validation_mismatched",)


def test_a_split_whose_labels_are_hidden_is_not_read(tmp_path):
    write(tmp_path / "d" / "train.csv", names=("0", "1"))
    write(tmp_path / "d" / "test.jsonl", 100, 3)
    hidden = [json.dumps({"text": f"w{number}", "label": -1}) for number in range(5)]
    (tmp_path / "d" / "test.jsonl").write_text("\n".join(hidden))
    found, notes = sizes(tmp_path / "d")
    assert sum(found.values()) == 60
    assert notes == (f"{tmp_path / 'd' / 'test.jsonl'}: not read, because all its labels are hidden (-1)",)


def test_a_folder_that_datasets_reads_is_read_afresh(tmp_path):
    import os

    for count in (40, 50):
        (tmp_path / "d").mkdir(exist_ok=True)
        text = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(0, count))
        (tmp_path / "d" / "data.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        os.utime(tmp_path / "d" / "data.csv.gz", (1e9, 1e9))
        assert sum(sizes(tmp_path / "d")[0].values()) == count


@pytest.mark.parametrize("folder", ["images", "Train"])
def test_image_folders_take_the_same_names(tmp_path, folder):
    for split in ("TRAIN", "val") if folder == "images" else ("Train",):
        for label in ("cat", "dog"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "x.png").write_bytes(b"")
    assert set(spec_of(str(tmp_path)).source.read()) == ({"train", "validation"} if folder == "images" else {"train"})


def test_the_second_text_of_pairs_is_read_next_to_other_flags(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("text,text_pair,gold\n" + "".join(f"w{n},w{n + 1},{n % 2}\n" for n in range(30)))
    given = load_dataset(path, make_tokenizer(), columns=Columns(label="gold"))
    path.write_text(path.read_text().replace("gold", "label"))
    assert given.content_hash == load_dataset(path, make_tokenizer()).content_hash
    single = load_dataset(path, make_tokenizer(), columns=Columns(text_pair=()))
    assert single.content_hash != given.content_hash
    other = load_dataset(path, make_tokenizer(), columns=Columns(text="text_pair"))
    assert other.notes == ()
    path.write_text(path.read_text().replace("text,", "first,", 1))
    other = load_dataset(path, make_tokenizer(), columns=Columns(text="first"))
    assert "column 'text_pair' is not read; --pair_column=text_pair" in other.notes[0]


@pytest.mark.parametrize(
    ("columns", "flags"), [("premise,hypothesis", Columns(text="premise")), ("text,text2", None), ("text,answer", None)]
)
def test_a_column_of_texts_that_is_not_read_is_named(tmp_path, columns, flags):
    path = tmp_path / "pairs.csv"
    rows = "".join(f"w{n} x,w{n + 1} y,{n % 2},2024-01-0{n % 9}\n" for n in range(30))
    path.write_text(f"{columns},label,date\n{rows}")
    first, second = columns.split(",")
    (note,) = load_dataset(path, make_tokenizer(), columns=flags).notes
    assert note == f"pairs: columns of text that are not read: {second!r}; --pair_column names that of a second text"
    assert load_dataset(path, make_tokenizer(), columns=Columns(text=first, text_pair=second)).notes == ()
    assert load_dataset(path, make_tokenizer(), columns=Columns(text=first, text_pair=())).notes == ()


def test_roles_of_words():
    assert roles_of(["train", "train2", "testing"], "here") == (
        {"train": ("train",), "test": ("testing",)},
        ("train2",),
    )
