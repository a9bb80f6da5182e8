"""Keeps each member's best weights by validation loss or score, and stops members that no longer improve."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsr.data.metrics import score
from wsr.geometry.linear_head import logits
from wsr.geometry.trees import nest, stack
from wsr.models.features import all_features
from wsr.models.model import Model
from wsr.training.job import Job
from wsr.training.program import loss_of_outputs
from wsr.types import AnyArray


class EarlyStopping:
    """Tracks the validation losses or scores of a group of members, their best weights and who stops.

    Each member is checked as its own recipe says, whoever shares its group; one without patience is never checked.
    """

    def __init__(self, model: Model, jobs: Sequence[Job], frozen: Mapping[str, AnyArray]):
        self.all_stopped = False
        self.steps = [job.steps for job in jobs]
        """Steps that each member takes; fewer once it has stopped."""
        self._model, self._jobs, self._frozen = model, jobs, frozen
        self._checks = [_checks(job, steps) for job, steps in zip(jobs, self.steps, strict=True)]
        self._last = max(self.steps)
        self._lowest = np.full(len(jobs), np.inf)
        self._waited = np.zeros(len(jobs), int)
        self._kept: list[Any] = [None] * len(jobs)

    def next_check(self, step: int) -> int:
        """Returns the first step after ``step`` at which a member is checked, or the last step of all."""
        return min((later for checks in self._checks for later in checks if later > step), default=self._last)

    def check(self, state: dict[str, Any], step: int) -> dict[str, Any]:
        """Returns the state with ``running`` updated, after a check of the running members that are due at ``step``."""
        going = np.array(state["running"])
        for member, job in enumerate(self._jobs):
            if not going[member] or step not in self._checks[member]:
                continue
            weights = jax.tree.map(lambda leaf, member=member: np.asarray(leaf[member]), state["weights"])
            value = self._on_validation(job, weights)
            if value < self._lowest[member] - job.recipe.min_improvement:
                self._lowest[member], self._waited[member], self._kept[member] = value, 0, weights
            else:
                self._waited[member] += 1
            if self._waited[member] == job.recipe.patience:
                going[member], self.steps[member] = False, step
        self.all_stopped = not going.any()
        return state | {"running": state["running"] & jnp.asarray(going)}

    def best(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the state with the best weights of each member that was checked, and the last ones of the others."""
        if not any(self._kept):
            return state
        last = [jax.tree.map(lambda leaf, m=m: np.asarray(leaf[m]), state["weights"]) for m in range(len(self._jobs))]
        return state | {"weights": stack([kept or own for kept, own in zip(self._kept, last, strict=True)])}

    def _on_validation(self, job: Job, weights: Mapping[str, Any]) -> float:
        """Returns the loss, or the score times -1: lower is better."""
        split = job.dataset.splits["validation"]
        features = jnp.asarray(all_features(self._model, nest(dict(self._frozen) | weights["encoder"]), split))
        if job.recipe.stop_on == "score":
            # The head is padded to the largest number of classes of its group.
            outputs = np.asarray(logits(features, weights["head"]))[:, : job.dataset.classes]
            predicted = outputs[:, 0] if job.dataset.regression else outputs.argmax(axis=1)
            return -score(job.dataset.metric, split.labels, predicted)
        labels, classes = jnp.asarray(split.labels), jnp.int32(job.dataset.classes)
        return float(loss_of_outputs(features, weights["head"], labels, classes, job.dataset.regression))


def _checks(job: Job, steps: int) -> set[int]:
    """Returns the steps after which a member is checked: at least ten if it takes as many, and always the last."""
    if job.recipe.patience is None:
        return set()
    every = min(job.recipe.check_every, max(1, steps // 10))
    return {*range(every, steps, every), steps}
