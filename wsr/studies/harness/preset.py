"""What studies run on: a base, datasets, a recipe, a protocol. Each field is a flag with its docstring as the text."""

from collections.abc import Mapping
from dataclasses import dataclass

from wsr.data.table import PAPER
from wsr.engine.evaluate import Protocol
from wsr.training import Recipe
from wsr.training.recipe import Precision, StopOn


@dataclass(frozen=True)
class Preset:
    """The population of a study and how its points are scored."""

    base: str
    """Checkpoint from which all members start: a name, a Hugging Face folder or a hub name."""
    pooling: str
    """Pooling of the last hidden states: mean, cls or last."""
    datasets: tuple[str, ...]
    """Datasets of at least two families; the members of a study are fine-tuned on these."""
    targets: tuple[str, ...]
    """Datasets on which points are scored."""
    finetune_texts: int
    """Largest number of examples on which a member is fine-tuned; 0 for all."""
    probe_texts: int
    """Largest number of texts on which probes are fitted; 0 for all."""
    validation_texts: int
    """Largest number of texts of the validation split; 0 for all."""
    test_texts: int
    """Largest number of texts on which a loss is measured; 0 for all."""
    max_length: int
    """Number of tokens at which a text is cut."""
    learning_rate: float
    """Highest learning rate."""
    head_learning_rate: float
    """Highest learning rate of the head."""
    batch_size: int
    """Number of texts per step."""
    epochs: float
    """Number of passes over the examples."""
    warmup: float
    """Fraction of the steps during which the learning rate rises."""
    dropout: bool
    """Apply the dropout rates of the architecture."""
    patience: int
    """Number of checks on the validation split without improvement after which a member stops; 0 for never."""
    stop_on: StopOn = "loss"
    """What is checked: the loss, or the score in the dataset's own metric."""
    finetune_share: float = 0.0
    """Share of a dataset's training texts on which members are fine-tuned; 0 for the usual 60 %."""
    paper_text: bool = False
    """Join all columns of a text by <SEP> and append the dataset's name as a tag, as in the paper's released code."""
    precision: Precision = "float32"
    """Precision of the encoder's matrix products, when members train and when points are scored: float32 or
    bfloat16."""
    hidden_head: bool = False
    """Give members a head with a dense layer and a tanh before its output, as RoBERTa's classifier has."""
    probe: str = "linear"
    """Classifier fitted on the features: linear or roberta_head."""
    inverse_l2: float = 0.0
    """Inverse of the L2 penalty (C) of the linear probe, on the features as they are; 0: chosen for each point by
    cross-validation, on standardised features."""
    draws: int = 1
    """Number of disjoint parts of the probe texts; a probe is fitted on each."""
    tfds: bool = False
    """Read the datasets that the catalogue of TensorFlow Datasets has from there, not from the hub."""
    seed: int = 0
    """Seed of everything that a study draws; members have seeds of their own."""

    @property
    def sizes(self) -> dict[str, int]:
        """Number of texts in each split, without the splits that are used whole."""
        named = {
            "finetune": self.finetune_texts,
            "probe": self.probe_texts,
            "validation": self.validation_texts,
            "test": self.test_texts,
        }
        return {split: size for split, size in named.items() if size}

    @property
    def recipe(self) -> Recipe:
        """How a member is trained."""
        return Recipe(
            learning_rate=self.learning_rate,
            head_learning_rate=self.head_learning_rate,
            batch_size=self.batch_size,
            epochs=self.epochs,
            warmup=self.warmup,
            dropout=self.dropout,
            patience=self.patience or None,
            stop_on=self.stop_on,
            hidden_head=self.hidden_head,
            precision=self.precision,
        )

    @property
    def protocol(self) -> Protocol:
        """How a point is scored."""
        return Protocol(probe=self.probe, inverse_l2=self.inverse_l2 or None, draws=self.draws)


FOURTEEN = (
    "vader_movie",
    "vader_amazon",
    "vader_nyt",
    "vader_tweets",
    "tweets_airline",
    "tweets_deflategate",
    "tweets_apple",
    "tweets_coachella",
    "newsgroups_comp",
    "newsgroups_rec_sci",
    "newsgroups_talk",
    "reuters_r8",
    "bbc_news",
    "election_tweets",
)
"""As many datasets as in the paper's first claim; ``docs/power.md`` says what as many targets can show."""

GENERAL = (
    *("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli"),
    *("boolq", "cb", "copa", "multirc", "wic", "wsc"),
)
"""The fourteen datasets of GLUE and SuperGLUE with which the paper tests its first claim."""
TWELVE = tuple(name for name in GENERAL if name not in ("cb", "copa"))
"""As many targets as in the paper's table of the centroid. Which of the fourteen it leaves out is not known here; these
are the fourteen without the two smallest."""

PRESETS: Mapping[str, Preset] = {
    # A tiny encoder on made-up text: shows in seconds whether a study runs.
    "smoke": Preset(
        base="tiny",
        pooling="mean",
        datasets=("made_up_a1", "made_up_a2", "made_up_b1", "made_up_b2"),
        targets=("made_up_a1", "made_up_b1"),
        finetune_texts=160,
        probe_texts=40,
        validation_texts=20,
        test_texts=40,
        max_length=48,
        learning_rate=1e-2,
        head_learning_rate=1e-2,
        batch_size=32,
        epochs=4.0,
        warmup=0.006,
        dropout=False,
        patience=0,
    ),
    # A real encoder on the packaged corpora: needs two CPU cores or one GPU.
    "packaged": Preset(
        base="minilm",
        pooling="mean",
        # All packaged corpora but the whole of 20 Newsgroups, whose parts are here, and tweets_cars, 88 % of one class.
        datasets=FOURTEEN,
        targets=FOURTEEN,
        finetune_texts=256,
        probe_texts=450,
        validation_texts=80,
        test_texts=480,
        max_length=32,
        learning_rate=2e-4,
        head_learning_rate=3e-3,
        batch_size=32,
        epochs=2.0,
        warmup=0.1,
        dropout=False,
        patience=0,
        draws=3,
    ),
    # The paper's setting: needs the hub or tfds, and an accelerator.
    "paper": Preset(
        base="roberta-base",
        pooling="cls",
        datasets=PAPER,
        targets=("mnli", "rte", "sst2", "cola"),
        finetune_texts=0,
        probe_texts=0,
        # The authors' validation splits have about as many; early stopping reads all of it at each check.
        validation_texts=1000,
        test_texts=0,
        max_length=250,
        learning_rate=5e-5,
        head_learning_rate=5e-5,
        batch_size=256,
        epochs=10.0,
        warmup=0.006,
        dropout=True,
        patience=20,
        stop_on="score",
        finetune_share=0.9,
        paper_text=True,
        hidden_head=True,
    ),
}
