"""What a member is trained on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import AnySplit, Dataset
from wsr.errors import WsrError
from wsr.runtime import seeds
from wsr.training.recipe import Recipe


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
