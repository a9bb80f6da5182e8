"""What the points of a hull are scored by: a dataset, plain texts or questions, and the losses that follow from each.

``outputs`` are what a polynomial in the coefficients follows: the logits of a dataset's test texts, the mean loss of a
plain text, the log-likelihoods of the answers to a question. An ``Objective`` turns them into a loss and a score.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, overload

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from wsr.data.choices import Choices
from wsr.data.dataset import Dataset
from wsr.data.halves import halves
from wsr.data.metrics import score
from wsr.data.texts import Texts
from wsr.engine.choices import ChoiceEvaluation, evaluate_choices
from wsr.engine.evaluate import Evaluation, Protocol, evaluate
from wsr.engine.fewer_probes import Scores
from wsr.engine.language_model import LanguageModelEvaluation, evaluate_language_model
from wsr.engine.settings import Settings
from wsr.geometry import linear_head
from wsr.region.exposure import Target
from wsr.region.region import Region
from wsr.types import AnyArray

DecoderEvaluation: TypeAlias = LanguageModelEvaluation | ChoiceEvaluation
AnyEvaluation: TypeAlias = Evaluation | DecoderEvaluation
Kind: TypeAlias = Literal["classes", "regression", "language_model"]


@dataclass(frozen=True, eq=False)
class Objective:
    """How outputs give a loss and a score."""

    kind: Kind
    """``classes``: an output is the logit of a class, or the log-likelihood of an answer, less that of the first, for
    which there is none. ``regression``: the predicted value of a text. ``language_model``: the mean loss of a text over
    its predicted tokens, in nats."""
    labels: Shaped[np.ndarray, " texts"]
    """The number of each text's class or right answer; its value; or its number of predicted tokens, divided by the
    mean of these numbers."""
    loss: str
    """Name of the loss."""
    metric: str
    """Name of the score."""

    def losses(self, outputs: Float[np.ndarray, "points texts outputs"]) -> Float[np.ndarray, " points"]:
        """Returns the mean loss of points.

        Args:
          outputs: the outputs at each point.
        """
        if self.kind == "language_model":
            return (outputs[..., 0].astype(np.float64) * self.labels).mean(axis=1)
        return self._scored(outputs).means.astype(np.float64)

    def losses_and_scores(
        self, outputs: Float[np.ndarray, "points texts outputs"]
    ) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Returns the mean loss and the score of points.

        Args:
          outputs: the outputs at each point.
        """
        if self.kind == "language_model":
            return self.losses(outputs), np.exp(self.losses(outputs))
        found = self._scored(outputs)
        scores = [score(self.metric, self.labels, own) for own in found.predictions]
        return found.means.astype(np.float64), np.array(scores)

    def _scored(self, outputs: Float[np.ndarray, "points texts outputs"]) -> Scores:
        if self.kind == "classes":
            outputs = np.concatenate([np.zeros_like(outputs[..., :1]), outputs], axis=-1)
        return Scores.of(outputs, self.labels)


def objective_of(target: Target) -> Objective:
    """Returns the loss and the score that belong to what points are scored on.

    Args:
      target: a dataset, whose test split is used; plain texts; or questions.

    Example:
      >>> import wsr
      >>> from wsr.data.texts import load_texts
      >>> from wsr.engine.objective import objective_of
      >>> objective = objective_of(load_texts("made_up_a1", wsr.load("tiny").processor))
      >>> objective.loss, objective.metric
      ('language_model_loss', 'perplexity')
    """
    if isinstance(target, Texts):
        weights = target.predicted / target.predicted.mean()
        return Objective("language_model", weights, "language_model_loss", "perplexity")
    if isinstance(target, Choices):
        return Objective("classes", target.right - target.first_answer, "choice_loss", "accuracy")
    kind: Kind = "regression" if target.regression else "classes"
    return Objective(kind, target.splits["test"].labels, "generalised_loss", target.metric)


@overload
def on_validation(target: Dataset) -> Dataset: ...
@overload
def on_validation(target: Target) -> Target: ...
def on_validation(target: Target) -> Target:
    """Returns what chooses points: a dataset with its validation split in place of its test split.

    Plain texts and questions have no splits: a random half of them chooses (``wsr.data.halves``).

    Args:
      target: what points are scored on.
    """
    if isinstance(target, Dataset):
        return target.with_split("test", target.splits["validation"])
    return halves(target)[0]


def on_test(target: Target) -> Target:
    """Returns what scores the chosen points: a dataset as it is; of plain texts and questions, the other half.

    Args:
      target: what points are scored on.
    """
    return target if isinstance(target, Dataset) else halves(target)[1]


def text_losses(
    kind: Kind, outputs: Float[AnyArray, "texts outputs"], labels: Shaped[AnyArray, " texts"]
) -> Float[Array, " texts"]:
    """Returns losses whose mean is the loss of an objective, as a function that JAX can differentiate.

    Args:
      kind: the kind of the objective.
      outputs: the outputs at one point.
      labels: the labels of the objective.
    """
    if kind == "language_model":
        return jnp.asarray(outputs)[:, 0] * labels
    logits = jnp.concatenate([jnp.zeros((len(outputs), 1)), outputs], axis=-1) if kind == "classes" else outputs
    return linear_head.losses(logits, labels)


def evaluate_on(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    target: Target,
    *,
    protocol: Protocol = Protocol(),
    settings: Settings = Settings(),
) -> AnyEvaluation:
    """Evaluates points of a region exactly on a dataset, plain texts or questions.

    Args:
      region: the population.
      coefficients: one row per point.
      target: what they are scored on.
      protocol: the classifier that a dataset needs.
      settings: chunk size, memory, devices, precision, cache of results and counter.
    """
    if isinstance(target, Dataset):
        return evaluate(region, coefficients, target, protocol=protocol, settings=settings)
    return evaluate_decoder(region, coefficients, target, settings=settings)


def evaluate_decoder(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    target: Texts | Choices,
    *,
    settings: Settings = Settings(),
) -> DecoderEvaluation:
    """Evaluates points of a region of decoders exactly on plain texts or questions.

    Args:
      region: the population.
      coefficients: one row per point.
      target: plain texts or questions.
      settings: chunk size, memory, devices, precision, cache of results and counter.
    """
    if isinstance(target, Texts):
        return evaluate_language_model(region, coefficients, target, settings=settings)
    return evaluate_choices(region, coefficients, target, settings=settings)
