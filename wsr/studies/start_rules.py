"""Rules that choose a start for fine-tuning from a few labelled examples of a target, before any start is trained from.

probe      lowest loss of a linear probe on the features, as in ``wsr suggest``
logme      largest evidence of linear models from features to labels
few steps  lowest loss on a fifth of the examples after a few steps of training on the others
cosine     largest cosine with the task vector of a short training from the pretrained model
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from wsr.data.dataset import AnySplit, Dataset
from wsr.engine.evaluate import Protocol
from wsr.engine.probe import fixed_head_loss
from wsr.engine.suggest import FOLDS, fitted_across
from wsr.geometry.trees import flatten
from wsr.statistics.log_evidence import log_evidence
from wsr.studies.few_shot import Features, FewShot, Start
from wsr.studies.harness.context import Context
from wsr.training import Job, finetune
from wsr.training.trainable import partition
from wsr.types import Params

LEARNED = ("probe", "logme", "few steps", "cosine")
"""The rules that look at examples."""
FEW_STEPS = 10
"""Optimiser steps of the rule "few steps"."""

Judged: TypeAlias = dict[str, Float[np.ndarray, "..."]]
"""For each rule, what it finds about a start, the smaller the better: a value, or under "probe" a loss per example."""


class Judge:
    """Judges starts for one target by the examples that one seed draws, and keeps what it finds.

    Args:
      context: the study's input.
      target: the dataset to fine-tune on.
      seed: draws the examples.
      plan: number of examples, and the recipe of the short trainings.
      pretrained: the pretrained model, from which the rule "cosine" trains.
    """

    def __init__(self, context: Context, target: Dataset, seed: int, plan: FewShot, pretrained: Start):
        self._context, self._seed, self._plan, self._pretrained = context, seed, plan, pretrained
        drawn = plan.job(target, seed).split
        # Example i belongs to fold i % FOLDS, so every fold has the same mix of labels.
        self._examples = drawn.take(np.argsort(drawn.labels, kind="stable"))
        self._target = target

    def judge(self, start: Start) -> Judged:
        """Returns what each rule finds about a start."""
        return self._kept(start, "rules", self._judged)

    def _judged(self, start: Start) -> Judged:
        features = start.features(self._examples)
        return {
            "probe": self._probe_losses(features),
            "logme": np.asarray(-log_evidence(features, self._examples.labels)),
            "few steps": np.asarray(self._loss_after_few_steps(start)),
            "cosine": np.asarray(-self._cosine(start)),
        }

    def _probe_losses(self, features: Features) -> Float[np.ndarray, " examples"]:
        protocol = Protocol(inverse_l2=self._plan.inverse_l2)
        return fitted_across(features[None], self._examples, self._target, protocol)[0][0]

    def _loss_after_few_steps(self, start: Start) -> float:
        fold = np.arange(len(self._examples)) % FOLDS
        inside, outside = np.flatnonzero(fold == 0), np.flatnonzero(fold != 0)
        job = self._job(self._examples.take(outside), FEW_STEPS)
        (member,) = finetune(start.region.model, start.params, [job], chunk=1)
        held = self._examples.take(inside)
        features = start.features(held, member.params)
        heads = {name: leaf[None] for name, leaf in member.head.items()}
        return float(np.mean(fixed_head_loss(features[None], held.labels, heads)))

    def _cosine(self, start: Start) -> float:
        """Returns the cosine of two task vectors over the leaves that the recipe trains; 0 for the pretrained model."""
        wanted = self._kept(self._pretrained, "task vector", self._task_vector)["task vector"]
        own = self._trained_leaves(start.params).astype(np.float64)
        lengths = np.linalg.norm(own) * np.linalg.norm(wanted)
        return float(own @ wanted / lengths) if lengths > 0 else 0.0

    def _task_vector(self, pretrained: Start) -> Judged:
        job = self._plan.job(self._target, self._seed)
        (member,) = finetune(pretrained.region.model, pretrained.params, [job], chunk=1)
        return {"task vector": self._trained_leaves(member.params)}

    def _trained_leaves(self, params: Params) -> Float[np.ndarray, " entries"]:
        """Returns the task vector of some parameters over the leaves that the recipe trains."""
        _, trained = partition(self._pretrained.params, self._plan.job(self._target, self._seed))
        base, leaves = flatten(self._pretrained.params), flatten(params)
        return np.concatenate([np.ravel(leaves[path] - base[path]) for path in trained])

    def _job(self, examples: AnySplit, steps: int) -> Job:
        recipe = self._plan.recipe
        alone = self._target.with_split("finetune", examples)
        return Job(alone, self._seed, replace(recipe, epochs=steps * recipe.batch_size / len(examples)))

    def _kept(self, start: Start, what: str, compute: Callable[[Start], Judged]) -> Judged:
        plan = self._plan
        recipe = (plan.examples, plan.least_steps, plan.inverse_l2, tuple(plan.recipe.settings.items()), FEW_STEPS)
        told = (what, start.identity, self._seed, recipe, self._target.content_hash, start.region.model.config)
        key = hashlib.sha256(repr(told).encode()).hexdigest()
        results = self._context.results
        if key not in results:
            results.put(key, **{name.replace(" ", "_"): value for name, value in compute(start).items()})
        return {name.replace("_", " "): value for name, value in results.get(key).items()}


def choices(judged: Sequence[Judged]) -> dict[str, int]:
    """Returns the number of the start that each rule chooses.

    Args:
      judged: what the rules find about each start.
    """
    return {rule: int(np.argmin([np.mean(own[rule]) for own in judged])) for rule in LEARNED}
