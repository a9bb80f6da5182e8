"""The registry of datasets: packaged corpora, the 36 datasets of the paper, made-up ones, and those you register."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from wsr.data.delimited import Dialect
from wsr.data.examples import Columns
from wsr.data.hub import Hub
from wsr.data.image_sources import Digits, MadeUpImages
from wsr.data.made_up import MadeUp
from wsr.data.metrics import METRICS, REGRESSION_METRICS
from wsr.data.packaged import SUBJECTS, Packaged
from wsr.data.published_file import LabelledLines, WebFile
from wsr.data.records import Source
from wsr.data.tfds import Tfds
from wsr.errors import WsrError, nearest_names
from wsr.types import Reads

FAMILIES = ("general", "nli", "topic", "sentiment", "twitter")
"""The families of the paper's datasets."""


@dataclass(frozen=True)
class DatasetSpec:
    """A registered dataset: where it comes from, and how it is read and scored.

    Raises:
      WsrError: if the metric is unknown or does not suit the labels.

    Example:
      >>> from wsr.data import Columns, DatasetSpec
      >>> from wsr.data.files import Files
      >>> DatasetSpec("reviews", "sentiment", Files("reviews.csv"), Columns("body", label="stars"), classes=5).metric
      'accuracy'
    """

    name: str
    family: str
    """The task family, such as ``nli``."""
    source: Source
    """Reads the raw cells."""
    columns: Columns = Columns()  # noqa: RUF009 frozen, so one default serves all
    classes: int | None = None
    """Number of classes; 1 for regression; None takes as many as ``train`` has labels."""
    label_names: tuple[str, ...] = ()
    """Names of the classes, in the order of their numbers; empty if the source declares them or labels are numbers."""
    metric: str = "accuracy"
    """A name in ``wsr.data.metrics.METRICS``."""
    drop_empty: bool = False
    """Whether rows without text are left out and counted in a note; otherwise they raise an error."""
    reads: Reads | None = "text"
    """Whether the examples are texts or images; None if the source may hold either."""
    catalogue: Tfds | None = None
    """The same data in the catalogue of TensorFlow Datasets, with the same columns."""
    usual: Mapping[str, int] = field(default_factory=dict)
    """Largest number of texts of a split unless the caller says another."""
    notes: tuple[str, ...] = ()
    """What a reader of results has to know about the source, one line each."""

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise WsrError(f"{self.name}: no metric is called {self.metric!r}; choose one of {', '.join(METRICS)}")
        if (self.metric in REGRESSION_METRICS) != (self.classes == 1):
            raise WsrError(
                f"{self.name}: metric {self.metric!r} does not fit classes={self.classes}; "
                f"regression needs classes=1 and the metric {' or '.join(REGRESSION_METRICS)}"
            )


def register(spec: DatasetSpec) -> None:
    """Registers a dataset, so that ``load_dataset`` finds it by name.

    Args:
      spec: the dataset.

    Raises:
      WsrError: if another dataset has the name.

    Example:
      >>> import wsr
      >>> from wsr.data.made_up import MadeUp
      >>> wsr.data.register(wsr.data.DatasetSpec("short_texts", "made_up", MadeUp("made_up", "short_texts", texts=80)))
      >>> len(wsr.load_dataset("short_texts", wsr.load("tiny").processor).splits["finetune"])
      52
    """
    if _TABLE.get(spec.name, spec) != spec:
        raise WsrError(f"another dataset called {spec.name!r} is already registered; choose another name")
    _TABLE[spec.name] = spec


def find(name: str) -> DatasetSpec:
    """Returns a registered dataset by name.

    Raises:
      WsrError: if no dataset has this name; the message lists the nearest names.
    """
    if name in _TABLE:
        return _TABLE[name]
    raise WsrError(
        f"no dataset is called {name!r}, and no file or folder; nearest: {nearest_names(name, sorted(_TABLE))} "
        f"(hub datasets are written owner/name)"
    )


def in_catalogue(name: str) -> bool:
    """Returns whether this is a registered dataset that the catalogue of TensorFlow Datasets has too."""
    return name in _TABLE and _TABLE[name].catalogue is not None


def registered() -> tuple[str, ...]:
    """Returns the names of all registered datasets."""
    return tuple(_TABLE)


def _packaged() -> Iterator[DatasetSpec]:
    for name, file, minimum in (
        ("vader_movie", "movieReviewSnippets", 0.5),
        ("vader_amazon", "amazonReviewSnippets", 0.3),
        ("vader_nyt", "nytEditorialSnippets", 0.3),
        ("vader_tweets", "tweets", 0.5),
    ):
        source = Packaged(file, "ratings", minimum_rating=minimum)
        yield DatasetSpec(name, "sentiment", source, label_names=("negative", "positive"), classes=2)
    for name, categories, classes in (
        ("newsgroups", (), 20),
        ("newsgroups_comp", ("comp.",), 5),
        ("newsgroups_rec_sci", ("rec.", "sci."), 8),
        ("newsgroups_talk", ("alt.", "misc.", "soc.", "talk."), 7),
    ):
        source = Packaged("20newsgroups", "topics", categories=categories)
        yield DatasetSpec(name, "topic", source, classes=classes)
    yield DatasetSpec("reuters_r8", "topic", Packaged("reuters-r8", "topics"), classes=8)
    yield DatasetSpec("bbc_news", "topic", Packaged("bbcnews", "documents"), classes=5)
    for subject in SUBJECTS:
        source = Packaged(subject, "subject")
        tweets = f"tweets_{subject}"
        yield DatasetSpec(tweets, "sentiment", source, label_names=("negative", "neutral", "positive"), classes=3)
    # Two of the tweets are only a link.
    yield DatasetSpec(
        "election_tweets",
        "author",
        Packaged("election-tweets-2016", "tweets"),
        label_names=("HillaryClinton", "realDonaldTrump"),
        classes=2,
        drop_empty=True,
    )


COMMITS = {
    "nyu-mll/glue": "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c",
    "aps/super_glue": "3de24cf8022e94f4ee4b9d55a6f539891524d646",
    "stanfordnlp/snli": "cdb5c3d5eed6ead6e5a341c8e56e669bb666725b",
    "facebook/anli": "8e4813d81f46d313dac7892e1c28076917cfcdf9",
    "fancyzhx/ag_news": "eb185aade064a813bc0b7f42de02595523103ca4",
    "community-datasets/yahoo_answers_topics": "6652a1e7c94f7260a0bfd0c9092dd48e2d536ea1",
    "fancyzhx/dbpedia_14": "9abd46cf7fc8b4c64290f26993c540b92aa145ac",
    "SetFit/20_newsgroups": "f1b91292074e7cfb69be58b642d583ec262f30ed",
    "SetFit/TREC-QC": "0a34640b3cac3affef6f0abdfb81e3d0ecffcf92",
    "google-research-datasets/poem_sentiment": "685b95a2787a869b7bae6c4480810f57fe23b48e",
    "stanfordnlp/imdb": "e6281661ce1c48d982bc483cf8a173c1bbeb5d31",
    "cornell-movie-review-data/rotten_tomatoes": "aa13bc287fa6fcab6daf52f0dfb9994269ffea28",
    "SetFit/sst5": "e51bdcd8cd3a30da231967c1a249ba59361279a3",
    "SetFit/amazon_reviews_multi_en": "ec73b665e4be0f567b69d39425355401cfe0d29b",
    "takala/financial_phrasebank": "8d3fe0c36d5feec6b3cc5e455b0fcb4820fb9964",
    "cardiffnlp/tweet_eval": "b3a375baf0f409c77e6bc7aa35102b7b3534f8be",
}
"""The commit at which the paper's datasets are read, for each repository; docs/datasets.md names the source of each."""

# Where a benchmark hides the labels of its test split, the validation split takes its place, as in the paper.
_HELD_OUT = {"train": "train", "test": "validation"}
_TRAIN_TEST = {"train": "train", "test": "test"}
_ALL = {"train": "train", "validation": "validation", "test": "test"}
# The authors tested MNLI on the genres that its training texts lack.
_MNLI = {"train": "train", "test": "validation_mismatched"}
_EMOTIONS = ("joy", "fear", "anger", "sadness", "disgust", "shame", "guilt")
# On no hub. Its texts contain the delimiter.
_ISEAR = WebFile(
    "https://raw.githubusercontent.com/sinmaniphel/py_isear_dataset/10d9b34cca49154253c6fa22c2aa1bd9d945045c/isear.csv",
    "370110fff70a1e1d9e23b10cf6db1f64876120fa02276afe5916fbfeb038cdca",
    Dialect("|", quoting=False, surplus="SIT"),
)
# Beside its script the repository holds the authors' zip file.
_PHRASES = LabelledLines(
    "takala/financial_phrasebank",
    "data/FinancialPhraseBank-v1.0.zip",
    "FinancialPhraseBank-v1.0/Sentences_50Agree.txt",
    separator="@",
    columns=("sentence", "label"),
    encoding="iso-8859-1",
    revision=COMMITS["takala/financial_phrasebank"],
)


def _glue(name: str, config: str, family: str, text: str, pair: str | None, classes: int) -> DatasetSpec:
    splits = _MNLI if config == "mnli" else _HELD_OUT
    source = _pinned("nyu-mll/glue", config, splits)
    metric = "spearman" if classes == 1 else "accuracy"
    return DatasetSpec(
        *(name, family, source, Columns(text, pair), classes),
        metric=metric,
        drop_empty=config == "qqp",
        catalogue=Tfds(f"glue/{config}", splits),
    )


def _superglue(name: str, text: str | tuple[str, ...], pair: str | tuple[str, ...], classes: int) -> DatasetSpec:
    catalogue = Tfds(f"super_glue/{name}", _HELD_OUT)
    source = _pinned("aps/super_glue", name, _HELD_OUT)
    return DatasetSpec(name, "general", source, Columns(text, pair), classes, catalogue=catalogue)


def _hub(
    name: str,
    family: str,
    path: str,
    config: str | None,
    splits: dict[str, str],
    classes: int,
    columns: Columns = Columns("text"),  # noqa: B008 frozen
    **more: Any,
) -> DatasetSpec:
    return DatasetSpec(name, family, _pinned(path, config, splits), columns, classes, **more)


def _pinned(path: str, config: str | None, splits: Mapping[str, str]) -> Hub:
    return Hub(path, config, splits, revision=COMMITS[path])


def _paper() -> Iterator[DatasetSpec]:
    nli_pair = Columns("premise", "hypothesis")
    # The authors tested on 3,000 texts of the largest datasets.
    large = {"test": 3_000}
    # General
    yield _glue("cola", "cola", "general", "sentence", None, 2)
    yield _glue("mrpc", "mrpc", "general", "sentence1", "sentence2", 2)
    yield _glue("qqp", "qqp", "general", "question1", "question2", 2)
    yield _glue("stsb", "stsb", "general", "sentence1", "sentence2", 1)
    yield _superglue("boolq", "question", "passage", 2)
    yield _superglue("cb", "premise", "hypothesis", 3)
    yield _superglue("copa", ("premise", "question"), ("choice1", "choice2"), 2)
    yield _superglue("multirc", "paragraph", ("question", "answer"), 2)
    yield _superglue("wic", ("word", "sentence1"), "sentence2", 2)
    yield _superglue("wsc", "text", ("span1_text", "span2_text"), 2)
    # NLI
    yield _glue("mnli", "mnli", "nli", "premise", "hypothesis", 3)
    yield _glue("qnli", "qnli", "nli", "question", "sentence", 2)
    yield _glue("rte", "rte", "nli", "sentence1", "sentence2", 2)
    yield _glue("wnli", "wnli", "nli", "sentence1", "sentence2", 2)
    # esnli/esnli holds a script. Its pairs and labels are those of SNLI that have a label.
    snli = ("esnli: read from stanfordnlp/snli, whose labelled pairs are those of e-SNLI",)
    yield _hub("esnli", "nli", "stanfordnlp/snli", None, _ALL, 3, nli_pair, notes=snli, catalogue=Tfds("esnli", _ALL))
    rounds = {
        role: "+".join(f"{split}_r{number}" for number in (1, 2, 3))
        for role, split in (("train", "train"), ("validation", "dev"), ("test", "test"))
    }
    yield _hub("anli", "nli", "facebook/anli", None, rounds, 3, nli_pair)
    # Topic
    yield _hub("ag_news", "topic", "fancyzhx/ag_news", None, _TRAIN_TEST, 4, usual=large)
    yield DatasetSpec("isear", "topic", _ISEAR, Columns("SIT", label="Field1"), 7, _EMOTIONS)
    questions = Columns(("question_title", "question_content", "best_answer"), label="topic")
    yahoo = "community-datasets/yahoo_answers_topics"
    yield _hub("yahoo_answers", "topic", yahoo, None, _TRAIN_TEST, 10, questions, usual=large)
    articles = Columns(("title", "content"))
    yield _hub("dbpedia", "topic", "fancyzhx/dbpedia_14", None, _TRAIN_TEST, 14, articles, usual=large)
    stripped = ("20_newsgroups: the copy of SetFit, without headers, footers and quotes",)
    newsgroups = "SetFit/20_newsgroups"
    yield _hub("20_newsgroups", "topic", newsgroups, None, _TRAIN_TEST, 20, drop_empty=True, notes=stripped)
    # CogComp/trec holds a script.
    yield _hub("trec_fine", "topic", "SetFit/TREC-QC", None, _TRAIN_TEST, 50)
    coarse = Columns("text", label="label_coarse")
    yield _hub("trec_coarse", "topic", "SetFit/TREC-QC", None, _TRAIN_TEST, 6, coarse)
    # Sentiment
    poem = "google-research-datasets/poem_sentiment"
    yield _hub("poem_sentiment", "sentiment", poem, None, _ALL, 4, Columns("verse_text"))
    yield _hub("imdb", "sentiment", "stanfordnlp/imdb", None, _TRAIN_TEST, 2)
    rotten = "cornell-movie-review-data/rotten_tomatoes"
    yield _hub("rotten_tomatoes", "sentiment", rotten, None, _ALL, 2)
    yield _hub("sst5", "sentiment", "SetFit/sst5", None, _ALL, 5)
    yield _glue("sst2", "sst2", "sentiment", "sentence", None, 2)
    yield _hub("amazon_reviews", "sentiment", "SetFit/amazon_reviews_multi_en", None, _ALL, 5)
    feelings = ("negative", "neutral", "positive")
    yield DatasetSpec("financial_phrasebank", "sentiment", _PHRASES, Columns("sentence"), 3, feelings)
    # Twitter
    for config, classes in (("emoji", 20), ("emotion", 4), ("hate", 2), ("irony", 2), ("offensive", 2),
                            ("sentiment", 3)):  # fmt: skip
        yield _hub(f"tweet_{config}", "twitter", "cardiffnlp/tweet_eval", config, _ALL, classes)


def _variants() -> Iterator[DatasetSpec]:
    mnli = next(spec for spec in _paper() if spec.name == "mnli")
    assert isinstance(mnli.source, Hub)
    splits = {"train": "train", "test": "validation_matched"}
    catalogue = Tfds("glue/mnli", splits)
    yield replace(mnli, name="mnli_matched", source=replace(mnli.source, splits=splits), catalogue=catalogue)


def _made_up() -> Iterator[DatasetSpec]:
    for family, count in (("made_up_a", 2), ("made_up_b", 2), ("made_up_c", 1)):
        for number in range(1, count + 1):
            name = f"{family}{number}"
            yield DatasetSpec(name, family, MadeUp(family, name), classes=2)


def _images() -> Iterator[DatasetSpec]:
    column = Columns("image")
    yield DatasetSpec("digits", "digits", Digits(), column, classes=10, reads="images")
    for family, count in (("made_up_images_a", 2), ("made_up_images_b", 1)):
        for number in range(1, count + 1):
            name = f"{family}{number}"
            yield DatasetSpec(name, family, MadeUpImages(family, name), column, classes=2, reads="images")


PACKAGED = tuple(spec.name for spec in _packaged())
"""Names of the packaged corpora, which need only a package index."""
PAPER = tuple(spec.name for spec in _paper())
"""Names of the 36 datasets of the paper."""
VARIANTS = tuple(spec.name for spec in _variants())
"""Names of datasets of the paper that are tested on other texts than there."""
_TABLE = {spec.name: spec for spec in (*_packaged(), *_paper(), *_variants(), *_made_up(), *_images())}
BUILT_IN = frozenset(_TABLE)
"""Names of the package's own datasets, whose splits are cut by name; see ``wsr.data.splits``."""

_SHARED_TEXTS = (
    ("newsgroups", "newsgroups_comp", "20_newsgroups"),
    ("newsgroups", "newsgroups_rec_sci", "20_newsgroups"),
    ("newsgroups", "newsgroups_talk", "20_newsgroups"),
    ("trec_fine", "trec_coarse"),
    ("mnli", "mnli_matched"),
    # All from the snippets of Pang and Lee 2005.
    ("rotten_tomatoes", "sst2", "sst5", "vader_movie"),
    ("wnli", "wsc"),
)


def overlapping(name: str) -> frozenset[str]:
    """Returns a dataset's name and those of all registered datasets known to share texts with it.

    Example:
      >>> from wsr.data.table import overlapping
      >>> sorted(overlapping("sst2"))
      ['rotten_tomatoes', 'sst2', 'sst5', 'vader_movie']
    """
    return frozenset({name}.union(*(group for group in _SHARED_TEXTS if name in group)))
