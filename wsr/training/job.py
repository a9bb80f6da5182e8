"""``Job``: what a member is trained on."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import AnySplit, Dataset
from wsr.errors import WsrError
from wsr.runtime import seeds
from wsr.training.recipe import Recipe


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
        """The part that, after the seed, begins the names of this member's random streams.

        It includes the size: otherwise the subsets of one seed would be nested, and members of one seed would look
        alike across sizes.
        """
        if self.shared_streams:
            return ()
        return (self.dataset.name,) if self.size is None else (self.dataset.name, f"{self.size} examples")

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

    With ``Recipe.hidden_head`` it also has ``dense_kernel [hidden, hidden]`` and ``dense_bias [hidden]``. The kernels
    have standard deviation 0.02, as in BERT, and are drawn from the job's random streams "head" and "dense layer of the
    head"; the biases are 0.
    """
    generator = seeds.generator(job.seed, *job.stream, "head")
    kernel = generator.normal(0.0, 0.02, (hidden, job.dataset.classes)).astype(np.float32)
    head = {"kernel": kernel, "bias": np.zeros(job.dataset.classes, np.float32)}
    if job.recipe.hidden_head:
        generator = seeds.generator(job.seed, *job.stream, "dense layer of the head")
        head["dense_kernel"] = generator.normal(0.0, 0.02, (hidden, hidden)).astype(np.float32)
        head["dense_bias"] = np.zeros(hidden, np.float32)
    return head
