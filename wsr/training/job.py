"""``Job`` and ``Recipe``: what a member is trained on, and how."""

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
    """How a member is trained: with AdamW and a learning rate that decays linearly to 0, as the paper's authors do.

    Example:
      >>> import wsr
      >>> recipe = wsr.Recipe(mode="lora", lora_rank=4, lora_alpha=8.0)
      >>> recipe.lora_scale
      2.0
      >>> "lora_rank" in recipe.settings, "lora_rank" in wsr.Recipe().settings
      (True, False)
    """

    mode: Mode = "full"
    """What is trained besides the head: with ``full`` the whole encoder, with ``bitfit`` its bias terms, with ``lora``
    low-rank factors for some matrices, with ``head`` nothing."""
    learning_rate: float = 5e-5
    head_learning_rate: float | None = None
    """Learning rate of the freshly initialised head; None: ``learning_rate``."""
    batch_size: int = 256
    epochs: float = 10.0
    weight_decay: float = 0.01
    """Weight decay of matrices; biases and layer norms have none."""
    warmup: float = 0.006
    """Fraction of the steps in which the learning rate rises."""
    dropout: bool = True
    """Whether to apply dropout, at the rates of the architecture's config."""
    patience: int | None = None
    """Early stopping: checks of the validation loss without improvement after which a member stops; None: never."""
    check_every: int = 50
    """Optimiser steps between two checks of the validation loss."""
    min_improvement: float = 0.001
    """Smallest decrease of the validation loss, in nats, that counts as an improvement."""
    row_length: int = 64
    """Length of a packed row, in tokens; longer texts make longer rows."""
    lora_rank: int = 8
    """Rank of the product that is added to a matrix."""
    lora_alpha: float = 16.0
    """Scales the product, by ``lora_alpha / lora_rank``."""
    lora_targets: str = r".*/(query|value|query_key_value)/kernel"
    """Regular expression for the paths of the matrices that are adapted. The default selects queries and values, as in
    Hu et al. 2021, and matrices that hold queries, keys and values together."""

    @property
    def lora_scale(self) -> float:
        """Factor of the product that is added to a matrix."""
        return self.lora_alpha / self.lora_rank

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that affect this mode, by name."""
        return {name: value for name, value in asdict(self).items() if self.mode == "lora" or name[:5] != "lora_"}


@dataclass(frozen=True, eq=False)
class Job:
    """One member to train: its dataset, its seed and its recipe.

    Example:
      >>> import wsr
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> job = wsr.Job(data, seed=0, recipe=wsr.Recipe(epochs=2, batch_size=16), size=64)
      >>> len(job.split), job.steps
      (64, 8)
    """

    dataset: Dataset
    seed: int
    recipe: Recipe
    size: int | None = None
    """Number of fine-tuning examples, drawn at random by the seed; None: all."""
    shared_streams: bool = False
    """Whether members with one seed share the initial head, the order of examples and dropout across datasets. This
    makes unrelated members look alike; it exists to study that effect."""

    @property
    def stream(self) -> tuple[str, ...]:
        """The part that, after the seed, begins the names of this member's random streams."""
        return () if self.shared_streams else (self.dataset.name,)

    @property
    def split(self) -> AnySplit:
        """The examples that this member is fine-tuned on; raises ``WsrError`` if there are fewer than ``size``."""
        whole = self.dataset.splits["finetune"]
        if self.size is None or self.size == len(whole):
            return whole
        if self.size > len(whole):
            raise WsrError(
                f"dataset {self.dataset.name}: size = {self.size}, but it has only {len(whole)} fine-tuning examples"
            )
        chosen = seeds.generator(self.seed, *self.stream, "subset").permutation(len(whole))
        return whole.take(np.sort(chosen[: self.size]))

    @property
    def steps(self) -> int:
        """Number of optimiser steps, at least 1."""
        return max(1, round(self.recipe.epochs * len(self.split) / self.recipe.batch_size))

    def learning_rates(self, steps: int) -> Float[np.ndarray, " steps"]:
        """Returns the factor of the learning rate at each of ``steps`` steps, between 0 and 1.

        It rises linearly in the warm-up, then falls linearly to 0, and stays 0 after this member's last step.
        """
        done = np.arange(steps)
        rising = max(1.0, self.recipe.warmup * self.steps)
        return np.clip(np.minimum((done + 1) / rising, (self.steps - done) / max(self.steps - rising, 1)), 0, 1)


def initial_head(job: Job, hidden: int) -> dict[str, np.ndarray]:
    """Returns a member's freshly initialised head: ``kernel [hidden, classes]`` and ``bias [classes]``.

    The kernel has standard deviation 0.02, as in BERT, and is drawn from the random stream (dataset, seed, "head"); the
    bias is 0.
    """
    generator = seeds.generator(job.seed, *job.stream, "head")
    kernel = generator.normal(0.0, 0.02, (hidden, job.dataset.classes)).astype(np.float32)
    return {"kernel": kernel, "bias": np.zeros(job.dataset.classes, np.float32)}
