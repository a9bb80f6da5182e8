"""Polynomials in place of probes: the logits of most points from the logits of some.

With thousands of points the probes would take longer than the forward passes. The logits of the test texts are nearly
as smooth in the coefficients as the features are.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Shaped

from wsr.engine import lattice
from wsr.engine.held_out import error_bounds
from wsr.geometry import linear_head

Points: TypeAlias = Float[np.ndarray, "points members"]
Logits: TypeAlias = Float[np.ndarray, "some texts classes"]
LogitsAt: TypeAlias = Callable[[Points], Logits]
ScoresOf: TypeAlias = Callable[[Logits], "Scores"]
"""Turns the logits of some points into their scores."""

_MOST_KEPT = 1024  # points whose logits are kept for fitting polynomials
_TOGETHER = 64  # points whose logits are in memory at a time


class Scores(NamedTuple):
    """Losses and predictions of some points."""

    losses: Float[np.ndarray, "points texts"]
    predictions: Shaped[np.ndarray, "points _"]
    """A classifier has one per text; a decoder has the numbers from which its losses follow."""

    @classmethod
    def of(cls, logits: Logits, labels: Shaped[np.ndarray, " texts"]) -> "Scores":
        """Returns the losses and predictions that logits give."""
        predictions = logits[..., 0] if logits.shape[-1] == 1 else logits.argmax(axis=-1)
        # Padded, so that one compiled program serves any number of points.
        padded = np.concatenate([logits, np.zeros((-len(logits) % _TOGETHER, *logits.shape[1:]))]).astype(np.float32)
        losses = [_losses(padded[first : first + _TOGETHER], labels) for first in range(0, len(padded), _TOGETHER)]
        return cls(np.concatenate(losses)[: len(logits)], predictions)

    @classmethod
    def joined(cls, parts: "list[Scores]") -> "Scores":
        """Returns the scores of several groups of points, one group after the other."""
        losses, predictions = zip(*parts, strict=True)
        return cls(np.concatenate(losses), np.concatenate(predictions))

    def at(self, numbers: Shaped[np.ndarray, " some"]) -> "Scores":
        """Returns the scores of some of the points, by number or by mask."""
        return Scores(self.losses[numbers], self.predictions[numbers])

    @property
    def means(self) -> Float[np.ndarray, " points"]:
        """Mean loss of each point."""
        return self.losses.mean(axis=1)


def score_all(
    logits_at: LogitsAt,
    points: Points,
    scores_of: ScoresOf,
    *,
    degree: int,
    allowed: float,
    level: float,
) -> tuple[Scores, Float[np.ndarray, " points"]]:
    """Scores points in random order: some by probes, the others by polynomials in the coefficients.

    Polynomials are fitted to the logits of half of the points with a probe and checked on the other half. They answer
    each point whose error bound is within ``allowed``; all others get a probe. If these are more than have a probe
    already, the polynomials are first fitted again with twice as many probes.

    Args:
      logits_at: fits a probe at each point.
      points: the points, in random order.
      scores_of: turns logits into losses and predictions.
      degree: degree of the polynomials of the features; those of the logits start one degree higher.
      allowed: largest error bound of a point, in the unit of the loss.
      level: probability that the error at a point exceeds its bound.

    Returns:
      Losses and predictions, and a bound on each point's error of the mean loss against its probe; 0 at points with a
      probe.
    """
    probed = 4 * lattice.count(points.shape[1], degree + 1)
    known: list[Logits] = []
    answer, bounds = logits_at, np.zeros(len(points))  # of the points without a probe yet
    while probed <= min(len(points), _MOST_KEPT):
        known.append(logits_at(points[sum(len(part) for part in known) : probed]))
        polynomials, found = _fitted(points, np.concatenate(known), scores_of, level)
        bounds = np.zeros(len(found))
        if (found > allowed).sum() <= probed:
            answer, bounds = polynomials, found
            break
        probed *= 2
    first = len(points) - len(bounds)
    answered, others = first + np.flatnonzero(bounds <= allowed), first + np.flatnonzero(bounds > allowed)
    logits = itertools.chain(known, _in_parts(answer, points[answered]), _in_parts(logits_at, points[others]))
    scores = Scores.joined([scores_of(part) for part in logits])
    order = np.argsort(np.concatenate([np.arange(first), answered, others]))
    return scores.at(order), np.concatenate([np.zeros(first), np.where(bounds <= allowed, bounds, 0.0)])


_losses = jax.jit(linear_head.losses)


def _in_parts(logits_at: LogitsAt, points: Points) -> Iterator[Logits]:
    for first in range(0, len(points), _TOGETHER):
        yield logits_at(points[first : first + _TOGETHER])


def _fitted(
    points: Points, known: Logits, scores_of: ScoresOf, level: float
) -> tuple[LogitsAt, Float[np.ndarray, " rest"]]:
    """Returns polynomials through the first half of the known logits, and their error bounds at the unknown points."""
    half = len(known) // 2
    polynomial = lattice.smooth_fit(points[:half])

    def logits_at(some: Points) -> Logits:
        return np.tensordot(polynomial.weights(some), known[:half], axes=1)

    checked, rest = points[half : len(known)], points[len(known) :]
    errors = np.abs(scores_of(logits_at(checked)).means - scores_of(known[half:]).means)
    return logits_at, error_bounds(polynomial, checked, errors, rest, drawn=len(checked), level=level)
