"""``Preset``: the base, datasets, recipe and protocol of a study. Each field is a flag of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass

from wsr.data.table import PAPER
from wsr.engine.evaluate import Protocol
from wsr.training import Recipe


@dataclass(frozen=True)
class Preset:
    """The population of a study and how its points are scored."""

    base: str
    """Checkpoint from which all members start, see ``wsr.load``."""
    pooling: str
    """Pooling of its features: "mean", "cls" or "last"."""
    datasets: tuple[str, ...]
    """Datasets on which members are fine-tuned, from at least two families."""
    targets: tuple[str, ...]
    """Datasets on which points are scored."""
    finetune_texts: int
    """Largest number of examples on which a member is fine-tuned; 0: all of its dataset."""
    probe_texts: int
    validation_texts: int
    test_texts: int
    max_length: int
    learning_rate: float
    head_learning_rate: float
    batch_size: int
    epochs: float
    warmup: float
    dropout: bool
    patience: int
    """Early stopping: checks of the validation loss without improvement after which a member stops; 0: never."""
    probe: str = "linear"
    inverse_l2: float = 1.0
    seed: int = 0
    """Seed of everything that a study draws; members have other seeds."""

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
        )

    @property
    def protocol(self) -> Protocol:
        """How a point is scored."""
        return Protocol(probe=self.probe, inverse_l2=self.inverse_l2)


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
        datasets=(
            "vader_movie",
            "vader_amazon",
            "vader_nyt",
            "vader_tweets",
            "newsgroups_comp",
            "newsgroups_rec_sci",
            "reuters_r8",
            "election_tweets",
        ),
        targets=("vader_movie", "vader_tweets", "newsgroups_rec_sci", "reuters_r8"),
        finetune_texts=256,
        probe_texts=160,
        validation_texts=80,
        test_texts=160,
        max_length=32,
        learning_rate=2e-4,
        head_learning_rate=3e-3,
        batch_size=32,
        epochs=2.0,
        warmup=0.1,
        dropout=False,
        patience=0,
    ),
    # The paper's setting: needs the hub or tfds, and an accelerator.
    "paper": Preset(
        base="roberta-base",
        pooling="cls",
        datasets=PAPER,
        targets=("mnli", "rte", "sst2", "cola"),
        finetune_texts=0,
        probe_texts=0,
        validation_texts=0,
        test_texts=0,
        max_length=250,
        learning_rate=5e-5,
        head_learning_rate=5e-5,
        batch_size=256,
        epochs=10.0,
        warmup=0.006,
        dropout=True,
        patience=20,
    ),
}
