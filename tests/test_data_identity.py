"""Texts are known by their content: hashes, splits that survive renaming and appending, and sketches of sets."""

import shutil

import numpy as np
import pytest
from scipy.stats import binomtest
from test_data_load import make_tokenizer, texts_of, write_texts

from wsr.data import load_dataset
from wsr.data.dataset import SPLITS
from wsr.data.examples import Examples
from wsr.data.identity import positions, text_hashes
from wsr.data.names import spoken_names
from wsr.data.splits import choose_splits
from wsr.data.text_sketch import MOST, TextSketch
from wsr.errors import WsrError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSR_CACHE", str(tmp_path / "cache"))


def numbers_of(path):
    splits = load_dataset(path, make_tokenizer()).splits
    return {name: set(texts_of(split)) for name, split in splits.items()}


def test_a_text_keeps_its_split_when_the_file_is_renamed_or_grows(tmp_path):
    old = numbers_of(write_texts(tmp_path / "monday.csv", 400))
    shutil.copy(tmp_path / "monday.csv", tmp_path / "final.csv")
    assert numbers_of(tmp_path / "final.csv") == old
    grown = numbers_of(write_texts(tmp_path / "tuesday.csv", 405))
    assert all(old[name] <= grown[name] for name in SPLITS)


def test_a_text_keeps_its_split_when_the_source_brings_its_own_test_split(tmp_path):
    old = numbers_of(write_texts(tmp_path / "whole.csv", 300))
    write_texts(tmp_path / "parts" / "train.csv", 300)
    write_texts(tmp_path / "parts" / "test.csv", 50, start=1000)
    new = numbers_of(tmp_path / "parts")
    assert all(old[name] <= new[name] for name in ("finetune", "probe", "validation"))


def test_the_shares_of_the_splits_are_those_promised():
    texts = [f"text {number}" for number in range(20_000)]
    chosen, _ = choose_splits("d", {"train": Examples(texts, None, np.zeros(len(texts), np.int32))})
    for name, share in zip(SPLITS, (0.60, 0.15, 0.10, 0.15), strict=True):
        assert binomtest(len(chosen[name]), len(texts), share).pvalue > 1e-4


def test_every_split_has_every_class_of_four_texts_or_more():
    draw = np.random.default_rng(0)
    counts = [4] * 15 + [7] * 5 + [200]
    labels = draw.permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int32)
    texts = [f"text {number}" for number in range(len(labels))]
    chosen, _ = choose_splits("d", {"train": Examples(texts, None, labels)})
    for places in chosen.values():
        assert set(labels[[at for _, at in places]].tolist()) == set(range(len(counts)))


def test_hashes_ignore_capitals_white_space_and_forms_of_unicode_only():
    same = text_hashes(["A good  film", " a GOOD film\n"])
    assert same[0] == same[1]
    # Saved by another system, a copy has its accents as characters of their own.
    composed, apart = text_hashes(["caf\u00e9 na\u00efve", "Cafe\u0301 nai\u0308ve"])
    assert composed == apart != text_hashes(["cafe naive"])[0]
    others = text_hashes(["a good film.", "agood film", "a good film"], ["", "", "x"])
    assert len({*others.tolist(), same.tolist()[0]}) == 4
    one = positions(text_hashes([f"t{number}" for number in range(2000)]), 0)
    other = positions(text_hashes([f"t{number}" for number in range(2000)]), 1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


@pytest.mark.parametrize("seen", [300, 6_000])
@pytest.mark.parametrize("shared", [0, 300, 2_000])
def test_a_sketch_measures_the_share_of_other_texts(seen, shared):
    mine = text_hashes([f"text {number}" for number in range(seen)])
    others = text_hashes(
        [f"text {number}" for number in range(seen - min(shared, seen), seen - min(shared, seen) + 4000)]
    )
    truth = np.isin(others, mine).mean()
    sketch = TextSketch.from_json(TextSketch.of(mine).to_json())
    share = sketch.share_of(others)
    assert sketch.exact == (seen <= MOST)
    if sketch.exact:
        assert share.share == pytest.approx(truth)
        assert share.at_most == share.share
    else:
        assert binomtest(share.matched, share.compared, truth).pvalue > 1e-3
        assert truth <= share.at_most < truth + 0.15
    assert sketch.share_in(others).share == pytest.approx(np.isin(mine, others).mean(), abs=0.1)


def test_sketches_tell_sets_of_texts_apart():
    one = TextSketch.of(text_hashes(["a", "b", "a"]))
    assert (one.texts, one.sha256) == (2, TextSketch.of(text_hashes(["B", "A"])).sha256)
    assert one.sha256 != TextSketch.of(text_hashes(["a", "c"])).sha256
    with pytest.raises(ValueError, match="no sketch of texts"):
        TextSketch.from_json({"texts": 3})


def test_datasets_of_one_name_get_distinct_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("shop/reviews.csv", "hotel/reviews.csv", "a/train.csv", "x/a.csv"):
        write_texts(tmp_path / path, 8)
    (tmp_path / "shop" / "reviews.jsonl").write_text('{"text": "a", "label": 0}\n')
    write_texts(tmp_path / "my data (1).csv", 8)
    assert spoken_names(["shop/reviews.csv", "hotel/reviews.csv"]) == ["shop-reviews", "hotel-reviews"]
    assert spoken_names(["a/train.csv", "x/a.csv"]) == [f"{tmp_path.name}-a", "x-a"]
    assert spoken_names(["shop/reviews.csv", "shop/reviews.jsonl"]) == ["reviews-csv", "reviews-jsonl"]
    assert spoken_names(["my data (1).csv"]) == ["my_data_1"]
    with pytest.raises(WsrError, match=r"shop/\.\./shop/reviews\.csv is given twice|shop/reviews\.csv is given twice"):
        spoken_names(["shop/reviews.csv", "shop/../shop/reviews.csv"])
