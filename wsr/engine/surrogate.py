"""Surrogate evaluation: scores a whole convex hull from a few forward passes and bounds the error of each point.

Inside a hull the features of an encoder vary so smoothly that polynomials of low degree in the coefficients reproduce
them. The encoder runs at a few nodes (``wsr.engine.lattice``); every other point costs a small matrix product and a
probe. A decoder needs no probe: the log-likelihoods of texts and answers are as smooth, and its losses follow from
them. Some of the points are also evaluated exactly, and their errors bound those of the others
(``wsr.engine.held_out``). A point whose bound exceeds the tolerance is evaluated exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wsr.data.choices import Choices
from wsr.data.dataset import AnySplit, Dataset
from wsr.data.texts import Texts
from wsr.engine.choices import ChoiceEvaluation
from wsr.engine.evaluate import EXACT, Evaluation, Protocol, evaluate, fit_draws
from wsr.engine.fewer_probes import Logits, Scores
from wsr.engine.hull_answers import Answers, Check, Features, Score, answer_hull, held_out_points
from wsr.engine.language_model import LanguageModelEvaluation
from wsr.engine.objective import evaluate_decoder
from wsr.engine.region_features import for_each_chunk, region_features
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.linear_head import logits
from wsr.region.exposure import Target
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.types import AnyArray, Head

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class Bounded:
    """What a surrogate adds to an evaluation: a bound on the error of each mean loss."""

    error_bounds: Float[np.ndarray, " points"] = field(default_factory=lambda: np.zeros(0))
    """Bound on the absolute error of each point's mean loss, in the unit of the loss; 0 for exact points. At most one
    point in twenty exceeds its bound (``wsr.engine.hull_answers.LEVEL``)."""
    checks: tuple[Check, ...] = ()
    """One per degree tried."""

    @property
    def mean_error_bound(self) -> float:
        """Bound on the mean absolute error of all points: the mean of their bounds."""
        return float(self.error_bounds.mean())

    def to_frame(self) -> "pandas.DataFrame":
        """Returns the table of the exact evaluation with the bound on each point's error, ``error_bound``."""
        frame = super().to_frame()  # type: ignore[misc]  # of the evaluation that a subclass is too
        frame.insert(frame.columns.get_loc("how") + 1, "error_bound", self.error_bounds)
        return frame


@dataclass(frozen=True, eq=False, repr=False)
class HullEvaluation(Bounded, Evaluation):
    """Losses and predictions of points on a dataset, with a bound on the error of each mean loss."""


@dataclass(frozen=True, eq=False, repr=False)
class HullLanguageModelEvaluation(Bounded, LanguageModelEvaluation):
    """Language-model losses of points, with a bound on the error of each loss."""


@dataclass(frozen=True, eq=False, repr=False)
class HullChoiceEvaluation(Bounded, ChoiceEvaluation):
    """Log-likelihoods of answers at points, with a bound on the error of each mean loss."""


@overload
def evaluate_hull(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Dataset,
    *,
    tolerance: float = ...,
    held_out: int | None = ...,
    degree: int | None = ...,
    seed: int = ...,
    protocol: Protocol = ...,
    score: Score | None = ...,
    settings: Settings = ...,
) -> HullEvaluation: ...
@overload
def evaluate_hull(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Texts,
    *,
    tolerance: float = ...,
    held_out: int | None = ...,
    degree: int | None = ...,
    seed: int = ...,
    settings: Settings = ...,
) -> HullLanguageModelEvaluation: ...
@overload
def evaluate_hull(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Choices,
    *,
    tolerance: float = ...,
    held_out: int | None = ...,
    degree: int | None = ...,
    seed: int = ...,
    settings: Settings = ...,
) -> HullChoiceEvaluation: ...
def evaluate_hull(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Target,
    *,
    tolerance: float = 0.01,
    held_out: int | None = None,
    degree: int | None = None,
    seed: int = 0,
    protocol: Protocol = Protocol(),
    score: Score | None = None,
    settings: Settings = Settings(),
) -> HullEvaluation | HullLanguageModelEvaluation | HullChoiceEvaluation:
    """Evaluates points of a region, those in the convex hull by a surrogate if it is accurate and cheaper.

    Points outside the hull, held-out points and points whose error bound exceeds the tolerance are evaluated exactly.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      dataset: a dataset, whose probe and test splits are used; or, for decoders, plain texts
        (``wsr.data.texts.load_texts``) or questions (``wsr.data.choices.load_choices``).
      tolerance: largest error bound of a point's mean loss, in the unit of the loss.
      held_out: number of random points of the hull that are evaluated exactly to measure the error, besides two points
        far from the nodes at each degree. None: one point in 16, from 12 to 18.
      degree: degree of the polynomials; None: raised as long as the nodes cost fewer forward passes than they can save.
      seed: seed of the choice of held-out points.
      protocol: the classifier that is fitted to each point's features on a dataset.
      score: replaces the protocol's probe, for example ``fixed_head(head)``; results are then not cached.
      settings: chunk size, memory, devices, precision and cache of exact results.

    Returns:
      The evaluation that ``evaluate``, ``evaluate_language_model`` or ``evaluate_choices`` would return, with a bound
      on the error of each point, and the errors of each degree tried.

    Raises:
      WsrError: if ``held_out`` is less than 2, or ``tolerance`` is negative or not a number.

    Example:
      >>> import numpy as np, wsr
      >>> region = wsr.made_up_region(3)
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> points = np.random.default_rng(0).dirichlet(np.ones(3), size=30)
      >>> evaluation = wsr.evaluate_hull(region, points, data, tolerance=0.1)
      >>> evaluation.checks[-1].degree, evaluation.mean_error_bound < 0.1, "exact" in evaluation.how
      (1, True, True)
    """
    if held_out is not None and held_out < 2:
        raise WsrError(f"surrogate: held_out must be at least 2, found {held_out}")
    if not tolerance >= 0:
        raise WsrError(f"surrogate: tolerance must be at least 0, found {tolerance}")
    coefficients = np.asarray(coefficients, np.float64)
    passes: _Encoder | _Decoder
    if isinstance(dataset, Dataset):
        passes = _Encoder(region, dataset, protocol, score, settings)
    else:
        passes = _Decoder(region, dataset, settings)
    answers = answer_hull(
        coefficients,
        passes,
        passes.logits_of,
        passes.scores_of,
        tolerance=tolerance,
        held_out=held_out or held_out_points(len(coefficients)),
        degree=degree,
        generator=seeds.generator(seed, "held out", dataset.name),
    )
    settings.advance(int((answers.degrees > 0).sum()), dataset.name)
    return passes.evaluation(coefficients, answers)


def probe_score(dataset: Dataset, protocol: Protocol) -> Score:
    """Returns a score that fits a fresh probe to each point, as ``wsr.engine.evaluate.score_features`` does.

    The logits of each draw of probe texts follow those of the draw before, as if they were of further texts.

    Args:
      dataset: the labels of the probe split.
      protocol: the classifier.
    """

    def score(features: Features) -> Float[Array, "points texts classes"]:
        test, draws = jnp.asarray(features["test"]), fit_draws(features, dataset, protocol)
        return jnp.concatenate([logits(test, draw.heads) for draw in draws], axis=1)

    return score


def fixed_head(head: Head) -> Score:
    """Returns a score that applies one fixed head to all points, for example the head of a member.

    Args:
      head: the linear head.
    """
    heads = {name: jnp.asarray(leaf)[None] for name, leaf in head.items()}

    def score(features: Features) -> Float[Array, "points texts classes"]:
        own = {name: jnp.repeat(leaf, len(features["test"]), axis=0) for name, leaf in heads.items()}
        return logits(jnp.asarray(features["test"]), own)

    return score


@dataclass(frozen=True)
class _Encoder:
    """Forward passes of a region over the texts of a dataset."""

    region: Region
    dataset: Dataset
    protocol: Protocol
    score: Score | None
    settings: Settings

    def scores(self, coefficients: Float[np.ndarray, "points members"]) -> Scores:
        """Returns the exact losses and predictions of points."""
        if self.score is None:
            found = evaluate(self.region, coefficients, self.dataset, protocol=self.protocol, settings=self.settings)
            return Scores(
                np.concatenate(found.losses_by_draw, axis=1), np.concatenate(found.predictions_by_draw, axis=1)
            )
        parts: list[Scores] = []
        logits_of, labels = self.score, self.dataset.splits["test"].labels

        def keep(numbers: list[int], features: Features) -> None:
            parts.append(Scores.of(np.asarray(logits_of(features))[: len(numbers)], labels))
            self.settings.advance(len(numbers), self.dataset.name)

        for_each_chunk(self.region, coefficients, self._splits, keep, settings=self.settings)
        return Scores.joined(parts)

    def features(self, coefficients: Float[np.ndarray, "points members"]) -> Iterator[Features]:
        """Yields the features of points, one chunk at a time."""
        done = 0
        for numbers, features in region_features(self.region, coefficients, self._splits, settings=self.settings):
            done += len(numbers)
            self.settings.advance(0, f"{self.dataset.name}: node {done} of {len(coefficients)}")
            # The last chunk is padded with copies of its last point.
            yield {split: values[: len(numbers)] for split, values in features.items()}

    @property
    def logits_of(self) -> Score:
        """Fits a probe to the features of each point and returns the logits of the test texts."""
        return self.score or probe_score(self.dataset, self.protocol)

    def scores_of(self, logits: Logits) -> Scores:
        """Returns the losses and predictions that logits give; the draws of probe texts stand side by side."""
        return Scores.of(logits, np.tile(self.dataset.splits["test"].labels, self._draws))

    def evaluation(self, coefficients: Float[np.ndarray, "points members"], answers: Answers) -> HullEvaluation:
        """Returns the evaluation of a whole request."""
        losses, predictions = (np.stack(np.split(values, self._draws, axis=1)) for values in answers.scores)
        return HullEvaluation(
            self.region,
            coefficients,
            self.dataset,
            losses,
            predictions,
            _how(answers),
            self.protocol,
            error_bounds=answers.error_bounds,
            checks=answers.checks,
        )

    @property
    def _draws(self) -> int:
        return 1 if self.score else self.protocol.draws

    @property
    def _splits(self) -> dict[str, AnySplit]:
        return {split: self.dataset.splits[split] for split in ("probe", "test")}


@dataclass(frozen=True)
class _Decoder:
    """Forward passes of a region over plain texts or questions.

    Its only features are the numbers from which the losses follow: the mean loss of each text, or the log-likelihood of
    each answer. They take the place of predictions.
    """

    region: Region
    target: Texts | Choices
    settings: Settings

    def scores(self, coefficients: Float[np.ndarray, "points members"]) -> Scores:
        """Returns the exact losses of points."""
        found = evaluate_decoder(self.region, coefficients, self.target, settings=self.settings)
        return Scores(found.by_text, found.numbers)

    def features(self, coefficients: Float[np.ndarray, "points members"]) -> Iterator[Features]:
        """Yields the mean losses of texts or the log-likelihoods of answers at points."""
        self.settings.advance(0, f"{self.target.name}: {len(coefficients)} nodes")
        quiet = replace(self.settings, counter=None)
        yield {"values": evaluate_decoder(self.region, coefficients, self.target, settings=quiet).numbers[..., None]}

    def logits_of(self, features: Features) -> Float[AnyArray, "points values 1"]:
        """Returns the features as they are: there is no probe."""
        return features["values"]

    def scores_of(self, values: Logits) -> Scores:
        """Returns the losses that mean losses of texts or log-likelihoods give."""
        numbers = values[..., 0]
        nowhere = np.zeros((len(numbers), len(self.region)))
        return Scores(self._bounded(nowhere, numbers, (EXACT,) * len(numbers)).by_text, numbers)

    def evaluation(
        self, coefficients: Float[np.ndarray, "points members"], answers: Answers
    ) -> HullLanguageModelEvaluation | HullChoiceEvaluation:
        """Returns the evaluation of a whole request."""
        found = self._bounded(coefficients, answers.scores.predictions, _how(answers))
        return replace(found, error_bounds=answers.error_bounds, checks=answers.checks)

    def _bounded(
        self,
        coefficients: Float[np.ndarray, "points members"],
        numbers: Float[np.ndarray, "points values"],
        how: tuple[str, ...],
    ) -> HullLanguageModelEvaluation | HullChoiceEvaluation:
        if isinstance(self.target, Texts):
            return HullLanguageModelEvaluation(self.region, coefficients, self.target, numbers, how)
        return HullChoiceEvaluation(self.region, coefficients, self.target, numbers, how)


def _how(answers: Answers) -> tuple[str, ...]:
    return tuple(
        f"surrogate(degree={own}, bound={bound:.2g})" if own else EXACT
        for own, bound in zip(answers.degrees.tolist(), answers.error_bounds.tolist(), strict=True)
    )
