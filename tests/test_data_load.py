"""From a name or a path to four disjoint splits of tokens: splits, tokens, cache, hash."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from wsr.data import Columns, DatasetSpec, load_dataset, register, table
from wsr.data.dataset import SPLITS
from wsr.data.examples import Examples
from wsr.data.files import Files
from wsr.data.splits import choose_splits
from wsr.errors import WsrError

CLS, SEP = 2, 3


def make_tokenizer(token_types=True, words=60):
    """Words w0, w1, ... to numbers, between [CLS] and [SEP]; with BERT's token types or, as RoBERTa, none."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": CLS, "[SEP]": SEP} | {f"w{i}": 4 + i for i in range(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"] if token_types else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]", model_input_names=names
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WSR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def write_texts(path, count, start=0):
    """One distinct text a row: the number in words of base ten; the label is its parity."""
    rows = [f"{' '.join('w' + digit for digit in str(n))},{n % 2}" for n in range(start, start + count)]
    path.parent.mkdir(exist_ok=True)
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    return path


def texts_of(split):
    """The number that each text spells."""
    cut = [split.token_ids[a + 1 : b - 1] - 4 for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]
    return [int("".join(map(str, ids))) for ids in cut]


def test_splits_are_disjoint_complete_and_carry_their_labels(tmp_path):
    dataset = load_dataset(write_texts(tmp_path / "numbers.csv", 200), make_tokenizer())
    numbers = {name: texts_of(split) for name, split in dataset.splits.items()}
    assert sorted(itertools.chain(*numbers.values())) == list(range(200))
    # Shares of 0.60, 0.15, 0.10 and 0.15, within three binomial standard deviations.
    for name, share in zip(SPLITS, (0.60, 0.15, 0.10, 0.15), strict=True):
        assert abs(len(numbers[name]) - 200 * share) < 3 * (200 * share * (1 - share)) ** 0.5
    for name, split in dataset.splits.items():
        assert split.labels.tolist() == [n % 2 for n in numbers[name]]
    assert (dataset.name, dataset.classes, dataset.label_names) == ("numbers", 2, ("0", "1"))
    assert not dataset.regression


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_share_for_fine_tuning_leaves_the_rest_to_the_others_in_their_proportions(tmp_path, share):
    path = write_texts(tmp_path / "numbers.csv", 800)
    numbers = {
        name: texts_of(split)
        for name, split in load_dataset(path, make_tokenizer(), finetune_share=share).splits.items()
    }
    assert sorted(itertools.chain(*numbers.values())) == list(range(800))
    rest = (1 - share) / 0.4
    for name, own in zip(SPLITS, (share, 0.15 * rest, 0.10 * rest, 0.15 * rest), strict=True):
        assert abs(len(numbers[name]) - 800 * own) < 3.5 * (800 * own * (1 - own)) ** 0.5


def test_texts_of_the_paper_join_all_columns_and_end_with_the_tag_of_their_dataset(tmp_path):
    path = tmp_path / "rows.csv"
    rows = [f"w{n // 10},w{n % 10} w3,{n % 2}" for n in range(40)]
    path.write_text("text,text_pair,label\n" + "\n".join(rows) + "\n")
    tokenizer = make_tokenizer()
    found = load_dataset(path, tokenizer, paper_text=True).splits
    plain = load_dataset(path, tokenizer).splits

    def contents(splits):
        return {split.content(text) for split in splits.values() for text in range(len(split))}

    expected = set()
    for row in rows:
        first, second, _ = row.split(",")
        ids = np.asarray(tokenizer(f"{first} <SEP> {second} <rows")["input_ids"], np.int32)
        expected.add(ids.tobytes() + np.zeros_like(ids).tobytes())
    assert contents(found) == expected
    assert not contents(plain) & expected


def test_sizes_cap_nested_and_never_move_a_text_to_another_split(tmp_path):
    path = write_texts(tmp_path / "numbers.csv", 200)

    def load(seed, **sizes):
        splits = load_dataset(path, make_tokenizer(), sizes=sizes, seed=seed).splits
        return {name: set(texts_of(split)) for name, split in splits.items()}

    whole = load(0)
    small, larger, other = load(1, finetune=20), load(1, finetune=50, test=10), load(2, finetune=20, test=10)
    assert small["finetune"] < larger["finetune"] < whole["finetune"]
    assert small["finetune"] != other["finetune"]
    assert len(small["finetune"]) == 20
    assert all(small[name] == whole[name] for name in SPLITS[1:])
    for name in SPLITS:
        assert small[name] | larger[name] | other[name] <= whole[name]
    assert larger["test"] == other["test"], "a seed must not change what a member is tested on"


def test_same_call_same_hash_and_any_change_another(tmp_path):
    path = write_texts(tmp_path / "numbers.csv", 40)
    tokenizer = make_tokenizer()
    first = load_dataset(path, tokenizer).content_hash
    assert load_dataset(path, make_tokenizer()).content_hash == first
    others = [
        load_dataset(path, tokenizer, max_length=3).content_hash,
        load_dataset(path, make_tokenizer(words=5)).content_hash,
        load_dataset(path, tokenizer, sizes={"finetune": 3}).content_hash,
        load_dataset(path, tokenizer, classes=1).content_hash,
    ]
    path.write_text(path.read_text().replace("w7,1", "w7,0"))
    others.append(load_dataset(path, tokenizer).content_hash)
    assert len({first, *others}) == 6


def test_a_source_with_its_own_test_and_validation(tmp_path):
    folder = tmp_path / "mine"
    write_texts(folder / "train.csv", 100)
    write_texts(folder / "validation.csv", 12, start=90)
    write_texts(folder / "test.csv", 13, start=95)
    dataset = load_dataset(folder, make_tokenizer())
    numbers = {name: texts_of(split) for name, split in dataset.splits.items()}
    assert numbers["test"] == list(range(95, 108))
    assert numbers["validation"] == list(range(90, 95))
    assert sorted(numbers["finetune"] + numbers["probe"]) == list(range(90))
    assert dataset.name == "mine"
    assert dataset.notes == (
        "mine: left out 7 texts of validation that a held-out split also holds",
        "mine: left out 10 texts of train that a held-out split also holds",
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([f"t{i}" for i in range(25)] + ["t1 ", " T2", "t  3"]), min_size=1, max_size=60))
def test_equal_texts_are_never_in_two_splits(texts):
    examples = Examples(texts, None, np.zeros(len(texts), np.int32))
    distinct = {" ".join(text.lower().split()) for text in texts}
    if len(distinct) < 4:
        with pytest.raises(WsrError, match="too few for the splits"):
            choose_splits("d", {"train": examples})
        return
    chosen, notes = choose_splits("d", {"train": examples})
    assert sorted(at for places in chosen.values() for _, at in places) == list(range(len(texts)))
    keys = [{" ".join(texts[at].lower().split()) for _, at in places} for places in chosen.values()]
    assert all(keys)
    assert sum(map(len, keys)) == len(distinct)
    repeated = len(texts) - len(distinct)
    assert notes == ((f"d: {repeated} repeated texts kept in the split of their first copy",) if repeated else ())


def test_too_few_texts_say_what_was_asked_and_what_there_is(tmp_path):
    path = write_texts(tmp_path / "numbers.csv", 40)
    with pytest.raises(WsrError, match=r"numbers: asked for 50 texts in split 'probe'; available: finetune 2\d, pro"):
        load_dataset(path, make_tokenizer(), sizes={"probe": 50})
    with pytest.raises(WsrError, match="no split is called 'train'"):
        load_dataset(path, make_tokenizer(), sizes={"train": 5})


@pytest.mark.parametrize("token_types", [True, False])
def test_pairs_have_the_tokenizers_own_types_and_the_longer_is_cut(tmp_path, token_types):
    path = tmp_path / "pairs.csv"
    rows = [f"w1 w2 w3 w4 w5 w{n},w9 w{n},{n % 2}" for n in range(8)]
    path.write_text("text,text_pair,label\n" + "\n".join(rows) + "\n")
    split = load_dataset(path, make_tokenizer(token_types), max_length=8).splits["finetune"]
    n = split.token_ids[6] - 4
    assert split.token_ids[:8].tolist() == [CLS, 5, 6, 7, SEP, 13, 4 + n, SEP]
    assert split.token_types[:8].tolist() == ([0] * 5 + [1] * 3 if token_types else [0] * 8)
    assert set(split.lengths) == {8}


def test_named_columns_and_regression(tmp_path):
    path = tmp_path / "scores.tsv"
    path.write_text("a\tb\tscore\n" + "".join(f"w{n}\tw1\t{n / 4}\n" for n in range(20)))
    dataset = load_dataset(path, make_tokenizer(), columns=Columns("a", "b", "score"), classes=1, family="pairs")
    assert (dataset.classes, dataset.metric, dataset.family, dataset.label_names) == (1, "pearson", "pairs", ())
    split = dataset.splits["finetune"]
    assert dataset.regression
    assert split.labels.dtype == np.float32
    assert split.labels.tolist() == [(n - 4) / 4 for n in split.token_ids[split.offsets[:-1] + 1]]


def test_tokens_come_from_the_cache_the_second_time(tmp_path, cache):
    path, tokenizer = write_texts(tmp_path / "numbers.csv", 40), make_tokenizer()
    first = load_dataset(path, tokenizer)
    files = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    assert len(files) == 4

    # What another user of the tokenizer leaves in it must neither change the key nor the tokens.
    tokenizer(["w1 w2", "w3"], padding="max_length", truncation=True, max_length=30)
    again = load_dataset(path, tokenizer)
    assert again.content_hash == first.content_hash
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == files


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "foreign"])
def test_a_damaged_cache_file_is_made_again_and_said(tmp_path, cache, capsys, damage):
    path, tokenizer = write_texts(tmp_path / "numbers.csv", 40), make_tokenizer()
    first = load_dataset(path, tokenizer)
    victim = sorted(cache.iterdir())[0]
    whole = victim.read_bytes()
    if damage == "foreign":
        np.savez(victim, token_ids=np.zeros(3, np.int32), token_types=np.zeros(3, np.int32), offsets=np.array([0, 3]))
    else:
        victim.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "text": b"not an archive"}[damage])
    assert load_dataset(path, tokenizer).content_hash == first.content_hash
    assert f"{victim}: damaged" in capsys.readouterr().out
    assert victim.read_bytes() == whole
    assert not [file for file in cache.iterdir() if file.name.startswith(".")]


def test_a_pickle_in_the_cache_is_not_opened(tmp_path, cache):
    path, tokenizer = write_texts(tmp_path / "numbers.csv", 40), make_tokenizer()
    first = load_dataset(path, tokenizer)

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    for file in cache.iterdir():
        np.savez(file, token_ids=np.array([Bomb()], object))
    assert load_dataset(path, tokenizer).content_hash == first.content_hash
    assert not (tmp_path / "exploded").exists()


def test_max_length_must_leave_room(tmp_path):
    path = write_texts(tmp_path / "numbers.csv", 40)
    with pytest.raises(WsrError, match="max_length=2 leaves no room for text besides 2 special tokens"):
        load_dataset(path, make_tokenizer(), max_length=2)
    assert load_dataset(path, make_tokenizer(), max_length=3).splits["test"].lengths.max() == 3


def test_a_saved_hub_dataset_loads_by_its_folder_with_its_own_label_names(tmp_path):
    import datasets

    features = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["even", "odd"]))
    rows = {"text": [f"w{n}" for n in range(20)], "label": [n % 2 for n in range(20)]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved.parity")
    dataset = load_dataset(tmp_path / "saved.parity", make_tokenizer())
    assert (dataset.name, dataset.label_names) == ("saved.parity", ("even", "odd"))
    for split in dataset.splits.values():
        assert split.labels.tolist() == [n % 2 for n in texts_of(split)]


def test_names_that_lead_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WsrError, match=r"absent\.csv: no such file"):
        load_dataset("absent.csv", make_tokenizer())
    with pytest.raises(WsrError, match="nearest: mnli"):
        load_dataset("mnl", make_tokenizer())
    (tmp_path / "notes.xml").write_text("x")
    with pytest.raises(WsrError, match=r"notes\.xml: expected a file ending in \.csv"):
        load_dataset("notes.xml", make_tokenizer())
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(WsrError, match=r"notes\.txt: no column 'label'; found 'text'"):
        load_dataset("notes.txt", make_tokenizer())


def test_a_registered_newcomer_loads_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "_TABLE", dict(table._TABLE))
    source = Files(write_texts(tmp_path / "numbers.csv", 40))
    register(DatasetSpec("parity", "arithmetic", source, label_names=("even", "odd")))
    dataset = load_dataset("parity", make_tokenizer())
    assert (dataset.name, dataset.family, dataset.label_names) == ("parity", "arithmetic", ("even", "odd"))


def test_notes_on_labels_that_are_hard_to_learn_or_to_score(tmp_path):
    def written(name, labels):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        rows = "".join(f"w{number // 10} w{number % 10},{label}\n" for number, label in enumerate(labels))
        path.write_text("text,label\n" + rows)
        return path

    large = load_dataset(written("large.csv", [50_000 + n for n in range(40)]), make_tokenizer(), classes=1)
    assert "subtract the mean and divide by the standard deviation" in large.notes[0]
    assert load_dataset(written("small.csv", [n / 40 for n in range(40)]), make_tokenizer(), classes=1).notes == ()
    written("d/train.csv", ["a"] * 99 + ["b"])
    written("d/test.csv", ["a"] * 3 + ["b"] * 2)
    told = load_dataset(tmp_path / "d", make_tokenizer()).notes
    assert "d: probe holds only the class 'a', so losses do not tell models apart" in told
    written("e/train.csv", [n / 40 for n in range(40)])
    written("e/test.csv", [1.0] * 5)
    told = load_dataset(tmp_path / "e", make_tokenizer(), classes=1).notes
    assert "e: all labels of test are equal, so the correlation is 0 for every model" in told


def test_a_label_column_of_lists_is_refused_by_row(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "w1", "label": [1]}\n{"text": "w2", "label": [2]}\n')
    with pytest.raises(WsrError, match=r"train\.jsonl, line 1, column 'label': label \[1\] is not one number or name"):
        load_dataset(tmp_path, make_tokenizer())


@pytest.mark.parametrize("longest", [3, 4, 5, 9])
def test_texts_that_are_cut_are_counted(tmp_path, longest):
    path = tmp_path / "texts.csv"
    words = [number % 5 + 1 for number in range(60)]
    rows = [f"{' '.join(f'w{(7 * number + at) % 60}' for at in range(count))},{number % 2}"
            for number, count in enumerate(words)]  # fmt: skip
    path.write_text("text,label\n" + "\n".join(rows) + "\n")
    cut = sum(count + 2 > longest for count in words)
    for _ in range(2):  # the second time from the cache
        notes = load_dataset(path, make_tokenizer(), max_length=longest).notes
        assert [note for note in notes if "cut at" in note] == (
            [f"texts: {cut} of 60 texts cut at {longest} tokens"] if cut else []
        )


def test_texts_of_words_that_the_tokenizer_does_not_know_are_kept_and_said(tmp_path):
    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "".join(f"word{number} more,{number % 2}\n" for number in range(100)))
    dataset = load_dataset(path, make_tokenizer())
    assert sum(len(split) for split in dataset.splits.values()) == 100
    told = [note for note in dataset.notes if "does the tokenizer know these words" in note]
    assert [note.split()[4] for note in told] == ["test", "probe", "validation"]


@pytest.mark.parametrize("max_length", [6, 40])
def test_no_two_splits_share_a_text_once_it_is_cut(tmp_path, max_length):
    """The first words of many texts are alike, and at six tokens nothing else is left of them."""
    draw = np.random.default_rng(0)
    texts = {" ".join(f"w{word}" for word in [*draw.integers(0, 5, 4), *draw.integers(0, 60, 20)]) for _ in range(300)}
    path = tmp_path / "texts.csv"
    path.write_text("text,label\n" + "".join(f"{text},{number % 2}\n" for number, text in enumerate(sorted(texts))))
    dataset = load_dataset(path, make_tokenizer(), max_length=max_length)
    tokens = {
        name: {tuple(split.token_ids[a:b].tolist()) for a, b in itertools.pairwise(split.offsets)}
        for name, split in dataset.splits.items()
    }
    for first, second in itertools.combinations(SPLITS, 2):
        assert not tokens[first] & tokens[second]
    left_out = [note for note in dataset.notes if "left out" in note]
    assert bool(left_out) == (max_length == 6)
    kept = sum(len(split) for split in dataset.splits.values())
    assert kept + sum(int(note.split("left out ")[1].split()[0]) for note in left_out) == len(texts)
    # What a member is trained on does not depend on the other splits.
    assert not any("of finetune" in note for note in left_out)
