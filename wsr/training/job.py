"""What a member is trained on, and how."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import AnySplit, Dataset
from wsr.errors import WsrError
from wsr.runtime import seeds

Mode = Literal["full", "bitfit", "lora", "head"]


@dataclass(frozen=True)
class Recipe:
    """How a member is trained. The defaults are the recipe of the paper's authors (PAPER: AdamW, linear decay)."""

    mode: Mode = "full"
    """``full`` trains everything, ``bitfit`` the bias terms and the head, ``lora`` low-rank factors and the head,
    ``head`` the head alone."""
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    """Of the freshly initialised head; None: that of the encoder."""
    batch_size: int = 256
    epochs: float = 10.0
    weight_decay: float = 0.01
    """Of matrices only: biases and layer norms are not decayed."""
    warmup: float = 0.006
    """Part of the steps with a rising learning rate."""
    dropout: bool = True
    """Whether the rates of the architecture's configuration are applied."""
    patience: int | None = None
    """Early stopping: checks of the validation loss without improvement before a member stops. None: never."""
    check_every: int = 50
    """Steps between two checks."""
    min_improvement: float = 0.001
    row_length: int = 64
    """Tokens of a packed row; longer texts make longer rows."""
    lora_rank: int = 8
    """Of the product that a matrix moves by."""
    lora_alpha: float = 16.0
    """The product is scaled by ``lora_alpha / lora_rank``."""
    lora_targets: str = r".*/(query|value|query_key_value)/kernel"
    """The paths of the matrices that move, a regular expression; those of Hu et al. 2021, and the keys where one matrix
    holds all three."""

    @property
    def lora_scale(self) -> float:
        """What the product of the factors is multiplied by."""
        return self.lora_alpha / self.lora_rank

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that have a say in this mode, by name."""
        return {name: value for name, value in asdict(self).items() if self.mode == "lora" or name[:5] != "lora_"}


@dataclass(frozen=True, eq=False)
class Job:
    """One member to train: its data, its seed, its recipe."""

    dataset: Dataset
    seed: int
    recipe: Recipe
    size: int | None = None
    """Fine-tuning examples, drawn by the seed; None: all."""
    shared_streams: bool = False
    """Whether members of one seed share initial head, order and dropout across datasets: a mistake, to be studied."""

    @property
    def stream(self) -> tuple[str, ...]:
        """What the names of this member's random streams begin with, beside its seed."""
        return () if self.shared_streams else (self.dataset.name,)

    @property
    def split(self) -> AnySplit:
        """The examples this member is fine-tuned on."""
        whole = self.dataset.splits["finetune"]
        if self.size is None or self.size == len(whole):
            return whole
        if self.size > len(whole):
            raise WsrError(
                f"dataset {self.dataset.name}: asked for {self.size} fine-tuning examples, it has {len(whole)}"
            )
        chosen = seeds.generator(self.seed, *self.stream, "subset").permutation(len(whole))
        return whole.take(np.sort(chosen[: self.size]))

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return max(1, round(self.recipe.epochs * len(self.split) / self.recipe.batch_size))

    def learning_rates(self, steps: int) -> Float[np.ndarray, " steps"]:
        """Rises linearly over the warm-up, falls linearly to 0; 0 after this member's last step."""
        done = np.arange(steps)
        rising = max(1.0, self.recipe.warmup * self.steps)
        return np.clip(np.minimum((done + 1) / rising, (self.steps - done) / max(self.steps - rising, 1)), 0, 1)


def initial_head(job: Job, hidden: int) -> dict[str, np.ndarray]:
    """The fresh head of a member, ``N(0, 0.02)`` as BERT's, from the stream (dataset, seed, "head")."""
    generator = seeds.generator(job.seed, *job.stream, "head")
    kernel = generator.normal(0.0, 0.02, (hidden, job.dataset.classes)).astype(np.float32)
    return {"kernel": kernel, "bias": np.zeros(job.dataset.classes, np.float32)}
