"""Keeps each member's best weights by validation loss or score, and stops members that no longer improve.

Weights stay on the device: a check brings a loss or predictions to the host.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int

from wsr.data.metrics import score
from wsr.geometry.trees import nest
from wsr.models.model import Model
from wsr.training.job import Job
from wsr.training.program import losses_of_texts, outputs_of, over_devices, predictions


class EarlyStopping:
    """Tracks the validation losses or scores of a group of members, their best weights and who stops.

    Each member is checked as its own recipe says, whoever shares its group; one without patience is never checked.

    Args:
      encoder: the encoder that is trained through, see ``group_batches``.
      jobs: the members of the group.
      frozen: the arrays that members share, on their devices.
      validation: the batches of the validation splits, in host memory; None: no member is checked.
      mesh: the devices over which the members are cut.
      placement: puts a member's arrays on its device.
    """

    def __init__(
        self,
        encoder: Model,
        jobs: Sequence[Job],
        frozen: Mapping[str, Array],
        validation: Mapping[str, Any] | None,
        mesh: Mesh,
        placement: Any,
    ):
        self.all_stopped = False
        self.steps = [job.steps for job in jobs]
        """Steps that each member takes; fewer once it has stopped."""
        self._jobs, self._frozen, self._placement = jobs, frozen, placement
        self._program = validation_program(encoder, jobs[0].dataset.regression, mesh)
        self._validation = {**(validation or {}), "classes": np.array([job.dataset.classes for job in jobs], np.int32)}
        self._on_device = jax.device_put(self._validation, placement)
        self._checks = [_checks(job, steps) for job, steps in zip(jobs, self.steps, strict=True)]
        self._last = max(self.steps)
        self._lowest = np.full(len(jobs), np.inf)
        self._waited = np.zeros(len(jobs), int)
        self._best: Any = None

    def next_check(self, step: int) -> int:
        """Returns the first step after ``step`` at which a member is checked, or the last step of all."""
        return min((later for checks in self._checks for later in checks if later > step), default=self._last)

    def check(self, state: dict[str, Any], step: int) -> dict[str, Any]:
        """Returns the state with ``running`` updated, after a check of the running members that are due at ``step``."""
        going = np.array(jax.device_get(state["running"]))
        due = going & [step in checks for checks in self._checks]
        if due.any():
            improved = self._improved(state["weights"], due)
            self._waited = np.where(improved, 0, self._waited + due)
            if self._best is None:
                self._best = jax.tree.map(jnp.copy, state["weights"])
            elif improved.any():
                self._best = _chosen(jax.device_put(improved, self._placement), state["weights"], self._best)
            for member in np.flatnonzero(due & (self._waited == [job.recipe.patience for job in self._jobs])):
                going[member], self.steps[member] = False, step
            state = state | {"running": jax.device_put(going, self._placement)}
        self.all_stopped = not going.any()
        return state

    def best(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the state with the best weights of each member that was checked, and the last ones of the others."""
        if self._best is None:
            return state
        last = jax.device_put(np.isinf(self._lowest), self._placement)
        return state | {"weights": _chosen(last, state["weights"], self._best)}

    def _improved(self, weights: Mapping[str, Any], due: Bool[np.ndarray, " members"]) -> Bool[np.ndarray, " members"]:
        """Returns which of the members that are due have their lowest loss, or score times -1, so far."""
        losses, predicted = self._program(weights, self._frozen, self._on_device, jax.device_put(due, self._placement))
        losses, improved = jax.device_get(losses), np.zeros(len(self._jobs), bool)
        for member, job in enumerate(self._jobs):
            if not due[member]:
                continue
            value = losses[member] if job.recipe.stop_on == "loss" else -self._score(member, predicted)
            if value < self._lowest[member] - job.recipe.min_improvement:
                self._lowest[member], improved[member] = value, True
        return improved

    def _score(self, member: int, predicted: Array) -> float:
        filled, labels = (self._validation[name][member] for name in ("filled", "labels"))
        return score(self._jobs[member].dataset.metric, labels[filled], jax.device_get(predicted)[member][filled])


@lru_cache(maxsize=8)
def validation_program(encoder: Model, regression: bool, mesh: Mesh) -> Callable:
    """Returns the compiled program that computes each member's mean validation loss and its predictions.

    Args:
      encoder: the encoder that is trained through, see ``group_batches``.
      regression: whether the loss is the squared error; else it is cross-entropy.
      mesh: devices over which the members are cut, along its axis ``members``. The devices do not communicate.
    """

    def check(weights: dict, frozen: dict, validation: dict, due: Bool[Array, " members"]) -> tuple[Array, Array]:
        def member(own: tuple[dict, dict, Array]) -> tuple[Array, Array]:
            weights, validation, due = own

            def batch(step: Int[Array, ""], found: tuple[Array, Array]) -> tuple[Array, Array]:
                inputs, labels, filled = jax.tree.map(
                    lambda leaf: leaf[step], (validation["inputs"], validation["labels"], validation["filled"])
                )
                features = encoder.encode(nest(frozen | weights["encoder"]), inputs)
                outputs = outputs_of(features, weights["head"], validation["classes"])
                total = jnp.where(filled, losses_of_texts(outputs, labels, regression), 0.0).sum()
                losses, predicted = found
                return losses + total, predicted.at[step].set(predictions(outputs, regression))

            nothing = (jnp.zeros(()), jnp.zeros_like(validation["labels"]))
            # Members that are not due take no time.
            total, predicted = jax.lax.fori_loop(0, jnp.where(due, validation["steps"], 0), batch, nothing)
            return total / validation["filled"].sum(), predicted

        # One after another: a member's batch is as large as suits the device.
        return jax.lax.map(member, (weights, validation, due))

    return jax.jit(over_devices(check, mesh, of_members=(0, 2, 3), arguments=4))


@partial(jax.jit, donate_argnums=2)
def _chosen(first: Bool[Array, " members"], new: Any, old: Any) -> Any:
    """Returns the ``new`` weights of the members with ``first``, and the ``old`` ones of the others."""
    return jax.tree.map(lambda new, old: jnp.where(first.reshape(-1, *[1] * (new.ndim - 1)), new, old), new, old)


def _checks(job: Job, steps: int) -> set[int]:
    """Returns the steps after which a member is checked: at least ten if it takes as many, and always the last."""
    if job.recipe.patience is None:
        return set()
    every = min(job.recipe.check_every, max(1, steps // 10))
    return {*range(every, steps, every), steps}
