"""What the command line says about data: names, overlap, classes, lengths and what was left out."""

import json

import numpy as np
import pytest
from forked_cli import wsr

from wsr.models import load
from wsr.models.huggingface.heads import linear_classifier

TOPICS = {"weather": ("rain", "snow"), "sport": ("ball", "goal"), "money": ("cash", "bank")}
LENGTH = "--max_length=24"


def texts(count, seed, classes=tuple(TOPICS)):
    draw = np.random.default_rng(seed)
    found = {}
    while len(found) < count:
        topic = classes[len(found) % len(classes)]
        words = [*draw.choice(["lorn", "mipt", "rask", "dobe", "fenk", "gull"], 3), *draw.choice(TOPICS[topic], 2)]
        found[" ".join(draw.permutation(words))] = topic
    return list(found.items())


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return path


def works(*words):
    done = wsr(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store with members of two datasets that are both called reviews, and their files."""
    folder = tmp_path_factory.mktemp("data")
    shop = texts(150, 0)
    write(folder / "shop" / "reviews.csv", [*shop, (shop[0][0], "sport"), shop[1], (shop[2][0].upper(), shop[2][1])])
    write(folder / "hotel" / "reviews.csv", [(f"{text} at the hotel", topic) for text, topic in texts(150, 1)])
    given = ",".join(str(folder / name / "reviews.csv") for name in ("shop", "hotel"))
    common = ("--base=tiny", "--pooling=cls", "--seeds=1", "--epochs=12", "--learning_rate=0.01", LENGTH)
    (folder / "said").write_text(works("train", f"--store={folder / 'store'}", f"--datasets={given}", *common))
    return folder


@pytest.fixture(scope="module")
def evaluated(place):
    """What an evaluation on a copy, a leak, a rare class and another dataset of a known name prints."""
    write(place / "copy.csv", texts(150, 0)[:100])
    write(place / "leaky" / "train.csv", [(f"{text} again", topic) for text, topic in texts(100, 2)])
    write(place / "leaky" / "test.csv", texts(150, 0)[:60])
    rows = [(f"{text} here", topic) for text, topic in texts(80, 3, ("sport", "money"))]
    write(place / "rare" / "train.csv", [*rows, ("one snow text", "weather")])
    unseen = [(f"{text} there", topic) for text, topic in texts(10, 4, ("weather",))]
    write(place / "rare" / "test.csv", [*((f"also {text}", topic) for text, topic in rows[:30]), *unseen])
    write(place / "cafe" / "shop-reviews.csv", [(f"{text} at the cafe", topic) for text, topic in texts(60, 5)])
    names = ("copy.csv", "leaky", "rare", "cafe/shop-reviews.csv")
    on = ",".join(str(place / name) for name in names)
    return works("evaluate", f"--store={place / 'store'}", f"--on={on}", "--interior=0", "--max_length=22")


def table_of(said, dataset):
    lines = said.splitlines()
    start = next(at for at, line in enumerate(lines) if line.strip() == dataset)
    return lines[start + 1 : start + 5]


def test_train_says_what_is_repeated_contradictory_and_cut(place):
    said = (place / "said").read_text()
    assert "3 repeated texts kept in the split of their first copy" in said
    assert "1 texts of train occur with two or more different labels" in said
    assert "shop-reviews-full-s0" in said
    assert "hotel-reviews-full-s0" in said


def test_one_test_text_has_no_interval(place):
    write(place / "few.csv", texts(4, 6))
    done = wsr("evaluate", f"--store={place / 'store'}", f"--on={place / 'few.csv'}", "--interior=0", LENGTH)
    assert done.returncode == 0, done.stderr
    assert "test has 1 texts" in done.stdout
    assert "cannot say" in next(line for line in done.stdout.splitlines() if line.startswith("base"))
    assert "inf" not in done.stdout


def test_one_dataset_twice_is_refused_before_training(place):
    path = place / "shop" / "reviews.csv"
    done = wsr("train", f"--store={place / 'other'}", "--base=tiny", f"--datasets={path},{path}", LENGTH)
    assert done.returncode == 1
    assert "is given twice" in done.stderr
    assert not (place / "other").exists()


@pytest.mark.long
def test_a_copy_under_another_name_is_the_same_dataset(evaluated):
    assert "left out of hull and centroid, fine-tuned on copy or its texts: shop-reviews-full-s0" in evaluated
    assert any(line.startswith("shop-reviews-full-s0") for line in table_of(evaluated, "copy"))


def test_a_member_that_saw_the_scored_texts_is_not_scored(evaluated):
    assert "left out, fine-tuned on texts that are scored on leaky: shop-reviews-full-s0 (" in evaluated
    assert not any(line.startswith("shop-reviews-full-s0") for line in table_of(evaluated, "leaky"))


def test_another_length_cuts_and_small_data_are_said(evaluated):
    assert "2 members were fine-tuned on texts cut at 24 tokens, but are scored here at 22" in evaluated
    assert "texts cut at 22 tokens" in evaluated
    assert "fewer than the 300 asked for; all are used" in evaluated


def test_classes_that_the_probe_never_saw_are_counted_apart(evaluated):
    assert "rare: the classes of 10 of 40 test texts are not in probe: 'weather' 10" in evaluated
    assert "the probe never saw the classes of 10 of 40 test texts" in evaluated
    heading, *rows = table_of(evaluated, "rare")
    assert "on seen classes" in heading
    cells = next(row.split() for row in rows if row.startswith("base"))
    assert float(cells[6]) < float(cells[2])
    assert "on seen classes" not in table_of(evaluated, "copy")[0]


def test_another_text_under_a_stores_name_gets_a_name_of_its_own(evaluated):
    assert "is called cafe-shop-reviews here: the store's shop-reviews is another dataset" in evaluated


def test_the_head_is_exported_with_the_names_of_its_classes(place):
    works("export", "shop-reviews-full-s0", "--head", f"--store={place / 'store'}", f"--to={place / 'out'}")
    config = json.loads((place / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "money", "1": "sport", "2": "weather"}
    assert "problem_type" not in config


def test_a_regression_head_says_that_it_is_one():
    model = load("tiny", pooling="cls").model
    head = {"kernel": np.zeros((model.hidden, 1), np.float32), "bias": np.zeros(1, np.float32)}
    config = linear_classifier(model, head).config
    assert (config["problem_type"], config["num_labels"]) == ("regression", 1)


def test_a_grown_file_is_refused_in_words(place):
    write(place / "grown" / "shop-reviews.csv", texts(190, 0))
    words = ("--base=tiny", "--pooling=cls", "--seeds=1", "--epochs=12", "--learning_rate=0.01", LENGTH)
    done = wsr("train", f"--store={place / 'store'}", f"--datasets={place / 'grown' / 'shop-reviews.csv'}", *words)
    assert done.returncode == 1
    assert "it was fine-tuned on " in done.stderr
    assert "% are the same" in done.stderr
