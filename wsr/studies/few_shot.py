"""Trains on a few examples of a target from a start, and keeps what the trained model predicts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Shaped

from wsr.data.dataset import AnySplit, Dataset
from wsr.engine.probe import linear_probe
from wsr.models.features import all_features
from wsr.models.precision import Precision, meaning, rounded
from wsr.region.region import Region
from wsr.studies.harness.context import Context
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import ShortTrainings
from wsr.training import Job, Mode, Recipe, finetune, predict
from wsr.types import Params

Features: TypeAlias = Float[np.ndarray, "texts hidden"]


def bitfit(preset: Preset, *, learning_rate: float, batch_size: int, epochs: float) -> Recipe:
    """Returns how BitFit trains from a start: the warm-up of the paper, dropout, head and precision of the preset.

    Args:
      preset: the population and the protocol.
      learning_rate: highest learning rate.
      batch_size: number of texts per step.
      epochs: passes over the examples.
    """
    return Recipe(
        mode="bitfit",
        learning_rate=learning_rate,
        batch_size=batch_size,
        epochs=epochs,
        warmup=0.006,
        dropout=preset.dropout,
        hidden_head=preset.hidden_head,
        precision=preset.precision,
    )


@dataclass(frozen=True)
class FewShot:
    """How a start is trained on few examples."""

    examples: int = 48
    """Number of examples, drawn by the seed from a target's fine-tuning split; 0: all."""
    seeds: int = 3
    """Number of trainings from each start."""
    recipe: Recipe = field(
        default_factory=lambda: Recipe(
            mode="bitfit", learning_rate=3e-3, batch_size=16, epochs=5, warmup=0.006, dropout=False
        )
    )
    """How the encoder is trained."""
    least_steps: int = 40
    """Training passes over the examples until it has made so many steps, because starts compare only after training."""
    inverse_l2: float | None = None
    """Inverse of the L2 penalty (C) of the probe that trains the head alone; None: chosen by cross-validation."""

    def job(self, target: Dataset, seed: int) -> Job:
        """Returns the training on a target, the same from every start."""
        asked = Job(target, seed, self.recipe, self.examples or None)
        epochs = self.least_steps * self.recipe.batch_size / len(asked.split)
        return replace(asked, recipe=replace(self.recipe, epochs=max(self.recipe.epochs, epochs)))

    def trainings(self, targets: Sequence[str], drawn_from: int) -> ShortTrainings:
        """Returns what it would train, for a dry run.

        Args:
          targets: the targets.
          drawn_from: largest number of texts from which the examples are drawn; 0: all.
        """
        least = self.least_steps * self.recipe.batch_size
        return ShortTrainings(tuple(targets), self.seeds, self.examples, drawn_from, self.recipe.epochs, least)


class Start:
    """An encoder to start from: the pretrained model, or the centroid of some members.

    Args:
      region: the members that are averaged; none for the pretrained model.
      precision: precision in which texts are encoded, that of the trainings from this start.
    """

    def __init__(self, region: Region, precision: Precision):
        self.region, self.precision = region, precision
        computed = [own for own in [meaning(precision, jax.default_backend())] if own]
        self.identity = (region.base_sha256, *(member.content_sha256 for member in region.members), *computed)
        self._tested: dict[str, Features] = {}

    @cached_property
    def params(self) -> Params:
        """The encoder's parameters."""
        return self.region.params(self.region.centroid()) if len(self.region) else self.region.base

    def features(self, texts: AnySplit, params: Params | None = None) -> Features:
        """Returns the features of some texts.

        Args:
          texts: the texts.
          params: parameters that were trained from this start; None: those of the start.
        """
        params = self.params if params is None else params
        return all_features(self.region.model, rounded(params, self.precision, jax.default_backend()), texts)

    def test_features(self, target: Dataset) -> Features:
        """Returns the features of the target's test split, computed once."""
        if target.name not in self._tested:
            self._tested[target.name] = self.features(target.splits["test"])
        return self._tested[target.name]


def kept_predictions(
    context: Context, start: Start, target: Dataset, mode: Mode, seed: int, plan: FewShot
) -> Shaped[np.ndarray, " texts"]:
    """Returns the predictions on the test split after training from a start, or those that an earlier run kept.

    Args:
      context: the study's input.
      start: where training starts.
      target: the dataset to train on.
      mode: the mode of the plan's recipe, or "head" to fit the head alone.
      seed: draws the examples and the initial head.
      plan: number of examples and recipe.
    """
    recipe = tuple(plan.recipe.settings.items())
    trained = (mode, seed, plan.examples, plan.least_steps, plan.inverse_l2, recipe)
    identity = ("predictions", start.identity, trained, target.content_hash, context.region.model.config)
    key = hashlib.sha256(repr(identity).encode()).hexdigest()
    if key not in context.results:
        run = _head_only if mode == "head" else _fine_tuned
        context.results.put(key, value=run(start, target, seed, plan))
    return context.results.get(key)["value"]


def _fine_tuned(start: Start, target: Dataset, seed: int, plan: FewShot) -> Shaped[np.ndarray, " texts"]:
    # The same seed, hence the same examples and initial head, from every start: the comparison is paired.
    (member,) = finetune(start.region.model, start.params, [plan.job(target, seed)], chunk=1)
    features = start.features(target.splits["test"], member.params)
    return predict(features, member.head, regression=target.regression)


def _head_only(start: Start, target: Dataset, seed: int, plan: FewShot) -> Shaped[np.ndarray, " texts"]:
    """The frozen encoder is read once; the head is a convex problem, solved to its optimum."""
    examples = plan.job(target, seed).split
    fitted = linear_probe(
        start.features(examples)[None],
        examples.labels,
        start.test_features(target)[None],
        target.splits["test"].labels,
        classes=target.classes,
        inverse_l2=plan.inverse_l2,
    )
    return np.asarray(fitted.predictions)[0]


def right_answers(target: Dataset, predictions: Shaped[np.ndarray, " texts"]) -> Float[np.ndarray, " texts"]:
    """Returns what each test text adds to the share of right answers, or to Pearson's correlation."""
    labels = target.splits["test"].labels
    if not target.regression:
        return (predictions == labels).astype(np.float64)
    spread = labels.std() * predictions.std()
    return (labels - labels.mean()) * (predictions - predictions.mean()) / (spread if spread > 0 else 1.0)
