"""Keeps each member's best weights by validation loss, and stops members that no longer improve."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsr.geometry.trees import nest, stack
from wsr.models.features import all_features
from wsr.models.model import Model
from wsr.training.job import Job
from wsr.training.program import loss_of_outputs
from wsr.types import AnyArray


class EarlyStopping:
    """Tracks the validation losses of a group of members, their best weights and who stops."""

    def __init__(self, model: Model, jobs: Sequence[Job], frozen: Mapping[str, AnyArray]):
        self.wanted = any(job.recipe.patience is not None for job in jobs)
        self.all_stopped = False
        self._model, self._jobs, self._frozen = model, jobs, frozen
        self._lowest = np.full(len(jobs), np.inf)
        self._waited = np.zeros(len(jobs), int)
        self._kept: list[Any] = [None] * len(jobs)

    def check(self, state: dict[str, Any]) -> dict[str, Any]:
        """Computes the validation loss of each running member and returns the state with ``running`` updated."""
        for member, job in enumerate(self._jobs):
            if not bool(state["running"][member]):
                continue
            weights = jax.tree.map(lambda leaf, member=member: np.asarray(leaf[member]), state["weights"])
            loss = self._validation_loss(job, weights)
            if loss < self._lowest[member] - job.recipe.min_improvement:
                self._lowest[member], self._waited[member], self._kept[member] = loss, 0, weights
            else:
                self._waited[member] += 1
        going = [
            job.recipe.patience is None or waited < job.recipe.patience
            for job, waited in zip(self._jobs, self._waited, strict=True)
        ]
        self.all_stopped = not bool((np.asarray(state["running"]) & going).any())
        return state | {"running": state["running"] & jnp.asarray(going)}

    def best(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the state with each member's best weights."""
        last = [jax.tree.map(lambda leaf, m=m: np.asarray(leaf[m]), state["weights"]) for m in range(len(self._jobs))]
        return state | {"weights": stack([kept or own for kept, own in zip(self._kept, last, strict=True)])}

    def _validation_loss(self, job: Job, weights: Mapping[str, Any]) -> float:
        split = job.dataset.splits["validation"]
        features = jnp.asarray(all_features(self._model, nest(dict(self._frozen) | weights["encoder"]), split))
        valid = jnp.ones(len(split), bool)
        classes = jnp.int32(job.dataset.classes)
        return float(
            loss_of_outputs(
                features, weights["head"], jnp.asarray(split.labels), valid, classes, job.dataset.regression
            )
        )
