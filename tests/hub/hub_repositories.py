"""Repositories like those of the paper's datasets: real names of files, columns, classes and splits; invented rows.

Words decide the labels: a text of class 3 contains words that no other class has. Of the real repositories only what
``SOURCES`` names was seen; everything else is as the datasets' cards describe it.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import datasets
import yaml

from wsr.data.table import COMMITS

SOURCES = {
    "listing": "the listing of the repository's files on its page, as archived",
    "script": "the loading script or card of the same dataset in huggingface/datasets on GitHub",
    "file": "the file itself",
    "use": "programs on GitHub that read it",
    "card": "the card of the dataset, from memory",
}
"""Where a fact about a repository comes from."""
LARGE, SMALL = 300, 60
"""Rows of training splits and of others."""
TRUTH = ("False", "True")
ENTAILMENT = ("entailment", "neutral", "contradiction")
TOPICS = (
    *("Society & Culture", "Science & Mathematics", "Health", "Education & Reference", "Computers & Internet"),
    *("Sports", "Business & Finance", "Entertainment & Music", "Family & Relationships", "Politics & Government"),
)
KINDS = (
    *("Company", "EducationalInstitution", "Artist", "Athlete", "OfficeHolder", "MeanOfTransportation", "Building"),
    *("NaturalPlace", "Village", "Animal", "Plant", "Album", "Film", "WrittenWork"),
)
EMOJI = tuple("❤ 😍 😂 💕 🔥 😊 😎 ✨ 💙 😘 📷 🇺🇸 ☀ 💜 😉 💯 😁 🎄 📸 😜".split())  # noqa: SIM905


@dataclass(frozen=True)
class Config:
    """One configuration of a repository."""

    name: str
    columns: Mapping[str, str]
    """Kind of each column: ``text``, ``int32``, ``label``, ``score``, ..."""
    classes: Sequence[str] = ()
    """Names of the classes, in order; empty for real labels."""
    splits: Sequence[str] = ("train", "validation", "test")
    hidden: Sequence[str] = ()
    """Splits whose labels are all -1."""
    some_hidden: bool = False
    """Whether every tenth label is -1."""
    declared: bool = True
    """Whether the file says that labels are classes."""


@dataclass(frozen=True)
class Repository:
    """A dataset repository: its files and where their names come from."""

    name: str
    files: Mapping[str, bytes]
    gated: bool = False
    pinned: str | None = None
    """An older commit, which has the same files."""
    tags: Sequence[str] = ()
    """Tags of the newest commit."""

    @property
    def commit(self) -> str:
        """The newest commit: a hash of the content."""
        digest = hashlib.sha1(self.name.encode())
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + hashlib.sha1(content).digest())
        return digest.hexdigest()

    def commit_of(self, revision: str | None) -> str | None:
        """Returns the commit that a revision names, or None if there is no such revision."""
        if revision in (None, "main", *self.tags):
            return self.commit
        return revision if revision in (self.commit, self.pinned) else None


def telling(label: int) -> list[str]:
    """Returns the words that only texts of one class contain."""
    return [f"{start}{chr(97 + label // 26)}{chr(97 + label % 26)}" for start in ("kla", "mor", "tir")]


def text(row: int, label: int, column: str) -> str:
    """Returns an invented text that shows its class; no two rows have the same, nor once their ends are cut off."""
    words = telling(max(label, 0)) if label >= 0 else ["unknown"]
    fill = ["the", "a", "some", "one", "any"][row % 5]
    # Rows of all splits have the words at the same positions, because so small a model learns positions.
    return f"{' '.join(words)} {fill} number {' '.join(f'{row:05d}')} {column}"


def table(config: Config, split: str) -> datasets.Dataset:
    """Returns the invented rows of one split."""
    rows = LARGE if split.startswith("train") else SMALL
    count = len(config.classes) or 6
    start = {"train": 0, "validation": 10_000, "test": 20_000}.get(split, 30_000 + 1_000 * config.splits.index(split))
    labels = [at % count for at in range(rows)]
    shown = labels
    if split in config.hidden:
        shown = [-1] * rows
    elif config.some_hidden:
        shown = [-1 if at % 10 == 9 else label for at, label in enumerate(labels)]
    makers: dict[str, Callable[[str], list]] = {
        "text": lambda column: [text(start + at, label, column) for at, label in enumerate(shown)],
        "int32": lambda _: list(range(rows)),
        "label": lambda _: list(shown),
        "score": lambda _: [float(label) for label in shown],
        "class": lambda _: [config.classes[label] for label in labels],
        "coarse": lambda _: [label % 6 for label in labels],
        "struct": lambda _: [{"paragraph": at, "question": at, "answer": at} for at in range(rows)],
    }
    return datasets.Dataset.from_dict(
        {column: makers[kind](column) for column, kind in config.columns.items()}, features=features(config)
    )


def features(config: Config) -> datasets.Features:
    """Returns the types of the columns."""
    label = datasets.ClassLabel(names=list(config.classes)) if config.declared else datasets.Value("int64")
    types = {
        "text": datasets.Value("string"),
        "int32": datasets.Value("int32"),
        "label": label if config.classes else datasets.Value("float32"),
        "score": datasets.Value("float32"),
        "class": datasets.Value("string"),
        "coarse": datasets.Value("int64"),
        "struct": {name: datasets.Value("int32") for name in ("paragraph", "question", "answer")},
    }
    return datasets.Features({column: types[kind] for column, kind in config.columns.items()})


def parquet(name: str, configs: Sequence[Config], path: str, shards: int = 1) -> Repository:
    """Returns a repository of parquet files whose card lists them.

    Args:
      name: the repository.
      configs: its configurations.
      path: a file, with ``{config}`` and ``{split}``, without what numbers the shards.
      shards: number of files of a training split.
    """
    files: dict[str, bytes] = {".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"}
    infos, listed = [], []
    for config in configs:
        of_splits, sizes = [], []
        for split in config.splits:
            rows = table(config, split)
            count = shards if split.startswith("train") else 1
            for shard in range(count):
                place = path.format(config=config.name, split=split, shard=f"{shard:05d}-of-{count:05d}")
                content = io.BytesIO()
                rows.shard(count, shard, contiguous=True).to_parquet(content)
                files[place] = content.getvalue()
            pattern = path.format(config=config.name, split=split, shard="*")
            of_splits.append({"split": split, "path": pattern})
            sizes.append({"name": split, "num_bytes": rows.data.nbytes, "num_examples": len(rows)})
        listed.append({"config_name": config.name, "data_files": of_splits})
        named = {"config_name": config.name, "features": features(config)._to_yaml_list(), "splits": sizes}
        infos.append({**named, "download_size": 1, "dataset_size": 1})
    card = {"license": "unknown", "dataset_info": infos if len(infos) > 1 else infos[0], "configs": listed}
    files["README.md"] = f"---\n{yaml.safe_dump(card, allow_unicode=True, sort_keys=False)}---\n\n# {name}\n".encode()
    return Repository(name, files)


def jsonl(name: str, config: Config, of_splits: Mapping[str, str]) -> Repository:
    """Returns a repository of JSONL files, by split, without a description of them."""
    files = {".gitattributes": b"", "README.md": f"# {name}\n".encode()}
    for split, file in of_splits.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in table(config, split)]
        files[file] = ("\n".join(lines) + "\n").encode()
    return Repository(name, files)


def _glue() -> Iterator[Config]:
    mnli = ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
    for name, first, second, classes in (
        ("cola", "sentence", None, ("unacceptable", "acceptable")),
        ("sst2", "sentence", None, ("negative", "positive")),
        ("mrpc", "sentence1", "sentence2", ("not_equivalent", "equivalent")),
        ("qqp", "question1", "question2", ("not_duplicate", "duplicate")),
        ("stsb", "sentence1", "sentence2", ()),
        ("mnli", "premise", "hypothesis", ENTAILMENT),
        ("qnli", "question", "sentence", ("entailment", "not_entailment")),
        ("rte", "sentence1", "sentence2", ("entailment", "not_entailment")),
        ("wnli", "sentence1", "sentence2", ("not_entailment", "entailment")),
    ):
        splits = mnli if name == "mnli" else ("train", "validation", "test")
        columns = {first: "text", **({second: "text"} if second else {}), "label": "label", "idx": "int32"}
        hidden = () if name == "mrpc" else [split for split in splits if split.startswith("test")]
        yield Config(name, columns, classes, splits, hidden)


def _super_glue() -> Iterator[Config]:
    yield Config("boolq", {"question": "text", "passage": "text", "idx": "int32", "label": "label"}, TRUTH)
    cb = ("entailment", "contradiction", "neutral")
    yield Config("cb", {"premise": "text", "hypothesis": "text", "idx": "int32", "label": "label"}, cb)
    columns = dict.fromkeys(("premise", "choice1", "choice2", "question"), "text")
    yield Config("copa", columns | {"idx": "int32", "label": "label"}, ("choice1", "choice2"))
    columns = dict.fromkeys(("paragraph", "question", "answer"), "text")
    yield Config("multirc", columns | {"idx": "struct", "label": "label"}, TRUTH)
    columns = dict.fromkeys(("word", "sentence1", "sentence2"), "text")
    places = dict.fromkeys(("start1", "start2", "end1", "end2", "idx"), "int32")
    yield Config("wic", columns | places | {"label": "label"}, TRUTH)
    spans = {"span1_index": "int32", "span2_index": "int32", "span1_text": "text", "span2_text": "text"}
    yield Config("wsc", {"text": "text"} | spans | {"idx": "int32", "label": "label"}, TRUTH)


def _tweets() -> Iterator[Config]:
    for name, classes in (
        ("emoji", EMOJI),
        ("emotion", ("anger", "joy", "optimism", "sadness")),
        ("hate", ("non-hate", "hate")),
        ("irony", ("non_irony", "irony")),
        ("offensive", ("non-offensive", "offensive")),
        ("sentiment", ("negative", "neutral", "positive")),
    ):
        yield Config(name, TEXT, classes)


TEXT = {"text": "text", "label": "label"}
PAIR = {"premise": "text", "hypothesis": "text", "label": "label"}
WITH_NAME = {"text": "text", "label": "label", "label_text": "class"}
TRAIN_TEST = ("train", "test")
SHARDED = "{config}/{split}-{shard}.parquet"
IN_DATA = "data/{split}-{shard}.parquet"


@cache
def repositories() -> Mapping[str, Repository]:
    """Returns all repositories, by name."""
    rounds = [f"{split}_r{number}" for number in (1, 2, 3) for split in ("train", "dev", "test")]
    anli = {"uid": "text", **PAIR, "reason": "text"}
    question = {"id": "int32", "topic": "label", **dict.fromkeys(
        ("question_title", "question_content", "best_answer"), "text")}  # fmt: skip
    verse = {"id": "int32", "verse_text": "text", "label": "label"}
    feelings = ("very negative", "negative", "neutral", "positive", "very positive")
    stars = tuple("12345")
    groups = tuple(f"group.{number}" for number in range(20))
    fine = tuple(f"FINE:{number}" for number in range(50))
    trec = WITH_NAME | {"label_original": "class", "label_coarse": "coarse", "label_coarse_text": "class",
                        "label_coarse_original": "class"}  # fmt: skip

    def undeclared(columns: Mapping[str, str], classes: Sequence[str], splits: Sequence[str]) -> Config:
        return Config("default", columns, classes, splits, declared=False)

    imdb_splits = ("train", "test", "unsupervised")
    found = (
        parquet("nyu-mll/glue", list(_glue()), SHARDED),
        parquet("aps/super_glue", [_hide(config) for config in _super_glue()], SHARDED),
        parquet("stanfordnlp/snli", [Config("plain_text", PAIR, ENTAILMENT, some_hidden=True)], SHARDED),
        parquet("facebook/anli", [Config("plain_text", anli, ENTAILMENT, rounds)], SHARDED),
        parquet("fancyzhx/ag_news", [
            Config("default", TEXT, ("World", "Sports", "Business", "Sci/Tech"), TRAIN_TEST)], IN_DATA),
        parquet("community-datasets/yahoo_answers_topics", [
            Config("yahoo_answers_topics", question, TOPICS, TRAIN_TEST)], SHARDED, shards=2),
        parquet("fancyzhx/dbpedia_14", [
            Config("dbpedia_14", {"label": "label", "title": "text", "content": "text"}, KINDS, TRAIN_TEST)], SHARDED),
        jsonl("SetFit/20_newsgroups", undeclared(WITH_NAME, groups, TRAIN_TEST),
              {split: f"{split}.jsonl" for split in TRAIN_TEST}),
        jsonl("SetFit/TREC-QC", undeclared(trec, fine, TRAIN_TEST), {split: f"{split}.jsonl" for split in TRAIN_TEST}),
        parquet("google-research-datasets/poem_sentiment", [
            Config("default", verse, ("negative", "positive", "no_impact", "mixed"))], IN_DATA),
        parquet("stanfordnlp/imdb", [
            Config("plain_text", TEXT, ("neg", "pos"), imdb_splits, hidden=("unsupervised",))], SHARDED),
        parquet("cornell-movie-review-data/rotten_tomatoes", [Config("default", TEXT, ("neg", "pos"))],
                "{split}.parquet"),
        jsonl("SetFit/sst5", undeclared(WITH_NAME, feelings, ("train", "validation", "test")),
              {"train": "train.jsonl", "validation": "dev.jsonl", "test": "test.jsonl"}),
        jsonl("SetFit/amazon_reviews_multi_en", undeclared({"id": "text"} | WITH_NAME, stars,
                                                           ("train", "validation", "test")),
              {split: f"{split}.jsonl" for split in ("train", "validation", "test")}),
        phrasebank(),
        parquet("cardiffnlp/tweet_eval", list(_tweets()), SHARDED),
        Repository("CogComp/trec", {"README.md": b"# trec\n", "trec.py": b"import datasets\n"}),
    )  # fmt: skip
    return {own.name: replace(own, pinned=COMMITS.get(own.name)) for own in found}


def _hide(config: Config) -> Config:
    return Config(config.name, config.columns, config.classes, config.splits, hidden=("test",))


def phrasebank() -> Repository:
    """Returns the repository of Financial PhraseBank: a script, and the authors' zip file in Latin-1."""
    content = io.BytesIO()
    names = ("negative", "neutral", "positive")
    lines = [f"{text(at, at % 3, 'sales')} @ 5 \xe4@{names[at % 3]}" for at in range(LARGE)]
    with zipfile.ZipFile(content, "w") as archive:
        for part in ("50", "66", "75", "All"):
            archive.writestr(
                f"FinancialPhraseBank-v1.0/Sentences_{part}Agree.txt", "\r\n".join(lines).encode("latin-1")
            )
    files = {"README.md": b"# financial_phrasebank\n", "financial_phrasebank.py": b"import datasets\n"}
    return Repository("takala/financial_phrasebank", files | {"data/FinancialPhraseBank-v1.0.zip": content.getvalue()})


def isear() -> str:
    """Returns a file like isear.csv, some of whose texts contain the delimiter."""
    names = ("joy", "fear", "anger", "sadness", "disgust", "shame", "guilt")
    rows = [
        f"{at}|{1 + at % 7}|{names[at % 7]}|{text(at, at % 7, 'day')}{'|again' if at % 9 == 0 else ''}|1|"
        for at in range(LARGE)
    ]
    return "\n".join(["ID|EMOT|Field1|SIT|STATE|", *rows]) + "\n"
