"""Surrogate evaluation: scores a whole convex hull from a few forward passes and bounds the error of each point.

Inside a hull the features of an encoder vary so smoothly that polynomials of low degree in the coefficients reproduce
them. The encoder runs at a few nodes (``wsr.engine.lattice``); every other point costs a small matrix product and a
probe. Some of the points are also evaluated exactly, and their errors bound those of the others
(``wsr.engine.held_out``). A point whose bound exceeds the tolerance is evaluated exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import EXACT, Evaluation, Protocol, evaluate, fit_draws
from wsr.engine.fewer_probes import Scores
from wsr.engine.hull_answers import Check, Features, Score, answer_hull, held_out_points
from wsr.engine.region_features import region_features
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.linear_head import logits
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.types import Head

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False, repr=False)
class HullEvaluation(Evaluation):
    """Losses and predictions of points, with a bound on the error of each mean loss."""

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
        """Returns the table of ``Evaluation.to_frame`` with the bound on each point's error, ``error_bound``."""
        frame = super().to_frame()
        frame.insert(frame.columns.get_loc("how") + 1, "error_bound", self.error_bounds)
        return frame


def evaluate_hull(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Dataset,
    *,
    tolerance: float = 0.01,
    held_out: int | None = None,
    degree: int | None = None,
    seed: int = 0,
    protocol: Protocol = Protocol(),
    score: Score | None = None,
    settings: Settings = Settings(),
) -> HullEvaluation:
    """Evaluates points of a region on a dataset, those in the convex hull by a surrogate if it is accurate and cheaper.

    Points outside the hull, held-out points and points whose error bound exceeds the tolerance are evaluated exactly.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      dataset: the target dataset; its probe and test splits are used.
      tolerance: largest error bound of a point's mean loss, in the unit of the loss.
      held_out: number of random points of the hull that are evaluated exactly to measure the error, besides two points
        far from the nodes at each degree. None: one point in 16, from 12 to 18.
      degree: degree of the polynomials; None: raised as long as the nodes cost fewer forward passes than they can save.
      seed: seed of the choice of held-out points.
      protocol: the classifier that is fitted to each point's features.
      score: replaces the protocol's probe, for example ``fixed_head(head)``; results are then not cached.
      settings: chunk size, memory, devices, precision and cache of exact results.

    Returns:
      Losses and predictions of all points, a bound on the error of each, and the errors of each degree tried.

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
    draws = 1 if score else protocol.draws
    answers = answer_hull(
        coefficients,
        _Encoder(region, dataset, protocol, score, settings),
        score or probe_score(dataset, protocol),
        np.tile(dataset.splits["test"].labels, draws),  # the draws of probe texts stand side by side
        tolerance=tolerance,
        held_out=held_out or held_out_points(len(coefficients)),
        degree=degree,
        generator=seeds.generator(seed, "held out", dataset.name),
    )
    settings.advance(int((answers.degrees > 0).sum()), dataset.name)
    how = [
        f"surrogate(degree={own}, bound={bound:.2g})" if own else EXACT
        for own, bound in zip(answers.degrees.tolist(), answers.error_bounds.tolist(), strict=True)
    ]
    losses, predictions = (np.stack(np.split(values, draws, axis=1)) for values in answers.scores)
    return HullEvaluation(
        region,
        coefficients,
        dataset,
        losses,
        predictions,
        tuple(how),
        protocol,
        error_bounds=answers.error_bounds,
        checks=answers.checks,
    )


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
        parts = []
        for features in self._chunks(coefficients):
            parts.append(Scores.of(np.asarray(self.score(features)), self.dataset.splits["test"].labels))
            self.settings.advance(len(parts[-1].losses), self.dataset.name)
        return Scores.joined(parts)

    def features(self, coefficients: Float[np.ndarray, "points members"]) -> Iterator[Features]:
        """Yields the features of points, one chunk at a time."""
        done = 0
        for features in self._chunks(coefficients):
            done += len(features["test"])
            self.settings.advance(0, f"{self.dataset.name}: node {done} of {len(coefficients)}")
            yield features

    def _chunks(self, coefficients: Float[np.ndarray, "points members"]) -> Iterator[dict[str, Array]]:
        splits = {split: self.dataset.splits[split] for split in ("probe", "test")}
        for numbers, features in region_features(self.region, coefficients, splits, settings=self.settings):
            # The last chunk is padded with copies of its last point.
            yield {split: values[: len(numbers)] for split, values in features.items()}
