"""Members that were fine-tuned on texts of the scored dataset, whatever it is called, are found by content."""

from types import SimpleNamespace

import numpy as np
import pytest

from wsr.cli import dataset_flags
from wsr.data import load_dataset
from wsr.engine.evaluate import evaluate
from wsr.errors import WsrError
from wsr.region.exposure import exposure, refuse_leaks, unexposed
from wsr.region.region import Member, Region


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSR_CACHE", str(tmp_path / "cache"))


def write(path, start, count):
    rows = [f"text number {number},{number % 2}" for number in range(start, start + count)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def load(tmp_path, tiny):
    return lambda name, start, count: load_dataset(write(tmp_path / name, start, count), tiny.processor, max_length=48)


def region_of(tiny, *datasets):
    def member(number, dataset):
        about = dataset.about(dataset.splits["finetune"]) if dataset.max_length else {}
        return Member(f"m{number}", dataset.name, "general", f"{number}", lambda: tiny.params, data=about)

    return Region(tiny.model, tiny.params, [member(*own) for own in enumerate(datasets)], base_sha256="base")


def test_a_renamed_copy_and_a_part_are_the_same_data_and_do_not_leak(tiny, load):
    region = region_of(tiny, load("mine.csv", 0, 300), load("other.csv", 5000, 300))
    for name, start, count in (("copy.csv", 0, 300), ("part.csv", 0, 60), ("grown.csv", 0, 400)):
        seen = exposure(region, load(name, start, count))
        assert (seen.same_data, seen.leaks, seen.unknown) == (("m0",), {}, ())


def test_a_members_training_texts_in_anothers_test_split_leak(tiny, tmp_path, load, capsys):
    region = region_of(tiny, load("mine.csv", 0, 300), load("other.csv", 5000, 300))
    write(tmp_path / "leaky" / "train.csv", 9000, 200)
    write(tmp_path / "leaky" / "test.csv", 0, 100)
    leaky = load_dataset(tmp_path / "leaky", tiny.processor, max_length=48)
    seen = exposure(region, leaky)
    truth = np.isin(leaky.scored_hashes(), region.members[0].texts.smallest).mean()
    assert list(seen.leaks) == ["m0"]
    assert seen.leaks["m0"].share == pytest.approx(truth)
    evaluation = evaluate(region, np.eye(2), leaky)
    assert evaluation.exposure == seen
    assert f"fine-tuned on scored texts: m0 ({100 * truth:.0f} %)" in repr(evaluation)
    assert "fine-tuned" not in repr(evaluate(region, np.eye(2), load("fresh.csv", 7000, 100)))
    fair, others = unexposed(region, leaky)
    assert fair.names == others.names == ("m1",)
    assert "left out, fine-tuned on texts that are scored on leaky: m0 (" in capsys.readouterr().out
    assert unexposed(region, leaky, allow_overlap=True)[0].names == ("m0", "m1")
    with pytest.raises(WsrError, match="--allow_overlap"):
        unexposed(region.where(lambda member: member.name == "m0"), leaky)


def test_equal_names_of_other_texts_are_other_datasets(tiny, load):
    region = region_of(tiny, load("shop/reviews.csv", 0, 200), load("vader_movie.csv", 1000, 200))
    assert exposure(region, load("hotel/reviews.csv", 3000, 200)).same_data == ()
    assert exposure(region, load("sst2.csv", 4000, 200)).same_data == ()


def test_members_without_a_record_of_their_texts_are_judged_by_name(tiny, load, capsys):
    region = region_of(tiny, load("mine.csv", 0, 200))
    named = Member("named", "reviews", "general", "x", lambda: tiny.params)
    region = region.joined([named])
    fair, others = unexposed(region, load("reviews.csv", 3000, 200))
    assert (fair.names, others.names) == (("m0", "named"), ("m0",))
    assert "not known by content, only by name, for 1 members" in capsys.readouterr().out


def test_registered_datasets_that_share_texts_by_name_stay_apart(tiny):
    made_up = load_dataset("made_up_a1", tiny.processor, max_length=48)
    region = region_of(tiny, made_up, load_dataset("made_up_b1", tiny.processor, max_length=48))
    seen = exposure(region, made_up)
    assert (seen.same_data, seen.leaks) == (("m0",), {})


def test_another_length_and_a_store_of_one_dataset_are_told(tiny, load, tmp_path, capsys):
    mine = load("mine.csv", 0, 200)
    region = region_of(tiny, mine)
    short = load_dataset(tmp_path / "mine.csv", tiny.processor, max_length=5)
    with pytest.raises(WsrError, match="--noleave_out"):
        unexposed(region, short)
    assert "1 members were fine-tuned on texts cut at 48 tokens, but are scored here at 5" in capsys.readouterr().out
    fair, others = unexposed(region, short, leave_out=False)
    assert fair.names == others.names == ("m0",)


def test_many_training_texts_are_compared_by_a_sample_whose_error_is_told(tiny, load):
    region = region_of(tiny, load("many.csv", 0, 3000))
    seen = exposure(region, load("few.csv", 50_000, 60))
    assert list(seen.sampled) == ["m0"]
    assert any("measured on a sample" in line for line in seen.lines(48))


def test_a_store_knows_a_dataset_by_its_texts_under_another_name(tiny, load):
    mine, other = load("shop/reviews.csv", 0, 200), load("other.csv", 5000, 200)
    record = SimpleNamespace(dataset="shop-reviews", data=mine.about(mine.splits["finetune"]))
    assert dataset_flags.called_in_store(mine, [record]) == "shop-reviews"
    assert dataset_flags.called_in_store(other, [record]) == "other"


def test_a_merge_refuses_members_that_saw_the_scored_texts(tiny, tmp_path, load):
    region = region_of(tiny, load("mine.csv", 0, 300), load("other.csv", 5000, 300))
    write(tmp_path / "leaky" / "train.csv", 9000, 200)
    write(tmp_path / "leaky" / "test.csv", 0, 100)
    leaky = load_dataset(tmp_path / "leaky", tiny.processor, max_length=48)
    with pytest.raises(WsrError, match=r"m0 were fine-tuned on more than 1 % .*--allow_overlap"):
        refuse_leaks(region, leaky, ("probe", "test"), allow_overlap=False)
    refuse_leaks(region, leaky, ("probe", "test"), allow_overlap=True)
    refuse_leaks(region, leaky, ("probe",), allow_overlap=False)


def test_a_users_files_called_as_known_datasets_share_no_texts_by_name(tiny, load):
    region = region_of(tiny, load("sst2.csv", 0, 200), load("vader_movie.csv", 1000, 200))
    imported = Member("imported", "sst5", "general", "x", lambda: tiny.params)
    assert region.joined([imported]).without_dataset("sst2").names == ("m1", "imported")
    assert region.joined([imported]).without_dataset("rotten_tomatoes").names == ("m0", "m1")


@pytest.mark.parametrize("part", [0, 1], ids=["first texts", "second texts"])
def test_pairs_and_the_same_texts_alone_are_compared_text_by_text(tiny, tmp_path, part):
    rows = [(f"premise {number}", f"hypothesis {number}", number % 2) for number in range(120)]

    def load(name, header, train, test):
        (tmp_path / name).mkdir()
        for role, own in (("train", train), ("test", test)):
            (tmp_path / name / f"{role}.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in own)]))
        return load_dataset(tmp_path / name, tiny.processor, max_length=48)

    alone = [(row[part], row[2]) for row in rows]
    pairs = load("pairs", "text,text_pair,label", rows[:80], rows[80:])
    texts = load("texts", "text,label", alone[:80], alone[80:])
    for trained, scored in ((pairs, texts), (texts, pairs)):
        assert exposure(region_of(tiny, trained), scored).same_data == ("m0",)
    # The texts that one was fine-tuned on are the test texts of the other.
    leaky = load("leaky", "text,label", alone[80:], alone[:80])
    leaky_pairs = load("leaky_pairs", "text,text_pair,label", rows[80:], rows[:80])
    for trained, scored in ((pairs, leaky), (texts, leaky_pairs)):
        assert exposure(region_of(tiny, trained), scored).leaks["m0"].share > 0.25
    others = load("others", "text,text_pair,label", [(f"a{a}", f"b{b}", c) for (a, b, c) in rows[:80]], rows[80:])
    assert exposure(region_of(tiny, others), leaky).leaks == {}


def test_classes_without_a_test_text_are_told(tiny, tmp_path):
    for role, classes in (("train", 3), ("test", 2)):
        rows = [f"{role} {number},c{number % classes}" for number in range(90)]
        (tmp_path / f"{role}.csv").write_text("\n".join(["text,label", *rows]))
    notes = load_dataset(tmp_path, tiny.processor, max_length=48).notes
    assert any(note.endswith("no test text has the classes 'c2'") for note in notes), notes
