"""Scores points of a hull from few forward passes: nodes, degree, error bounds, and which points are exact after all.

The encoder and the probe are arguments, so a simulation can replace them.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from wsr.engine import lattice
from wsr.engine.fewer_probes import Logits, Points, Scores, ScoresOf, score_all
from wsr.engine.held_out import error_bounds
from wsr.engine.lattice import Interpolation
from wsr.geometry import linear_head
from wsr.types import AnyArray

Features: TypeAlias = Mapping[str, Float[AnyArray, "points _ hidden"]]
Score: TypeAlias = Callable[[Features], Float[AnyArray, "points texts classes"]]
"""Turns features into logits of the test texts: one value per text for regression and for decoders."""

LEVEL = 0.05
"""Probability that the error of a point exceeds its bound."""
_OF_PROBES = 0.2  # share of the level and of the tolerance that polynomials in place of probes get
_OF_FEATURES = 1 - _OF_PROBES
_FURTHEST = 2  # held-out points of each degree besides those drawn at random
_TOGETHER = 8  # points whose features are in memory at a time


@runtime_checkable
class Encoder(Protocol):
    """Forward passes at points of a hull."""

    def scores(self, coefficients: Points) -> Scores:
        """Returns the exact losses and predictions of points."""

    def features(self, coefficients: Points) -> Iterable[Features]:
        """Returns the features of points, in order, some points at a time."""


@dataclass(frozen=True)
class Check:
    """Errors of polynomials of one degree at the held-out points, in the unit of the loss."""

    degree: int
    """Degree of the polynomials of the features."""
    nodes: int
    """Points at which the encoder ran for them."""
    held_out: int
    """Points at which the error was measured."""
    error: float
    """Mean absolute difference from the exact mean loss."""
    largest: float
    """Largest absolute difference."""
    answered: int
    """Points whose error bound is within the tolerance."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Scores of points, most of them from polynomials."""

    scores: Scores
    degrees: Int[np.ndarray, " points"]
    """Degree of the polynomials of the features that gave each point; 0 for exact points."""
    error_bounds: Float[np.ndarray, " points"]
    """Bound on the error of each point's mean loss; 0 for exact points."""
    checks: tuple[Check, ...]
    """One per degree tried."""


def answer_hull(
    coefficients: Points,
    encoder: Encoder,
    logits_of: Score,
    scores_of: ScoresOf,
    *,
    tolerance: float,
    held_out: int,
    degree: int | None,
    generator: np.random.Generator,
) -> Answers:
    """Scores points: those in the convex hull from polynomials where their error bound is within the tolerance.

    Args:
      coefficients: one row per point, one column per member.
      encoder: forward passes.
      logits_of: fits a probe to the features of each point and returns the logits of the test texts.
      scores_of: turns these logits into losses and predictions.
      tolerance: largest error bound of a point, in the unit of the loss.
      held_out: number of random points of the hull that are evaluated exactly to measure the error.
      degree: degree of the polynomials; None: chosen.
      generator: source of the choice of held-out points.
    """
    inside = generator.permutation(np.flatnonzero(_in_hull(coefficients)))
    request = _Request(coefficients, np.flatnonzero(coefficients[inside].any(axis=0)), encoder)
    drawn, rest = inside[:held_out], inside[held_out:]
    request.evaluate(np.setdiff1d(np.arange(len(coefficients)), rest))
    best, checks = _best(request, drawn, rest, logits_of, scores_of, degree, _OF_FEATURES * tolerance)
    degrees, bounds = np.zeros(len(coefficients), int), np.zeros(len(coefficients))
    if best:
        scores, of_probes = score_all(
            best.polynomials,
            request.local[best.numbers],
            scores_of,
            degree=best.polynomials.interpolation.degree,
            allowed=_OF_PROBES * tolerance,
            level=_OF_PROBES * LEVEL,
        )
        finite = np.isfinite(scores.losses).all(axis=1)
        numbers = best.numbers[finite]
        request.put(numbers, scores.at(finite))
        degrees[numbers] = best.polynomials.interpolation.degree
        bounds[numbers] = (best.bounds + of_probes)[finite]
    request.evaluate(request.missing())
    return Answers(request.scores(), degrees, bounds, checks)


def held_out_points(points: int) -> int:
    """Returns the usual number of held-out points drawn at random: one point in 16, from 12 to 18.

    Args:
      points: number of points of the request.
    """
    return min(max(points // 16, 12), 18)


class _Request:
    """Points to be scored, and the scores found so far."""

    def __init__(self, coefficients: Points, used: Int[np.ndarray, " used"], encoder: Encoder):
        self.local = coefficients[:, used]
        """Coefficients of the members that points of the hull use."""
        self.exact_means = np.full(len(coefficients), np.nan)
        """Mean losses of the points that were evaluated exactly."""
        self._coefficients, self._used, self._encoder = coefficients, used, encoder
        self._found: list[tuple[Int[np.ndarray, " some"], Scores]] = []

    def evaluate(self, numbers: Int[np.ndarray, " some"]) -> None:
        """Evaluates points exactly."""
        if len(numbers):
            self.put(numbers, self._encoder.scores(self._coefficients[numbers]))
            self.exact_means[numbers] = self._found[-1][1].means

    def put(self, numbers: Int[np.ndarray, " some"], scores: Scores) -> None:
        """Keeps the scores of points."""
        self._found.append((numbers, scores))

    def features(self, nodes: Float[np.ndarray, "nodes used"]) -> Iterable[Features]:
        """Returns the features of nodes."""
        wide = np.zeros((len(nodes), self._coefficients.shape[1]))
        wide[:, self._used] = nodes
        return self._encoder.features(wide)

    def missing(self) -> Int[np.ndarray, " missing"]:
        """Returns the points without scores."""
        return np.setdiff1d(np.arange(len(self.local)), np.concatenate([numbers for numbers, _ in self._found]))

    def scores(self) -> Scores:
        """Returns the scores of all points, in order."""
        order = np.argsort(np.concatenate([numbers for numbers, _ in self._found]))
        return Scores.joined([scores for _, scores in self._found]).at(order)


class _Answered(NamedTuple):
    """Points that polynomials of the features may answer."""

    polynomials: "_Polynomials"
    numbers: Int[np.ndarray, " answered"]
    bounds: Float[np.ndarray, " answered"]
    """Bound on each point's error."""


def _best(
    request: _Request,
    drawn: Int[np.ndarray, " drawn"],
    rest: Int[np.ndarray, " rest"],
    logits_of: Score,
    scores_of: ScoresOf,
    degree: int | None,
    allowed: float,
) -> tuple[_Answered | None, tuple[Check, ...]]:
    """Returns the polynomials whose error bounds allow most points, and a check for each degree tried.

    At each degree, the points at which the polynomials reach furthest from the nodes are held out too.
    """
    best, checks, typical = None, [], np.inf
    held, unanswered, nodes = drawn, len(rest), request.local[:0]
    features: dict[str, Array] = {}
    for current in [degree] if degree else range(1, lattice.HIGHEST_DEGREE + 1):
        missing = lattice.count(nodes.shape[1], current) - len(nodes) if nodes.shape[1] > 1 else 0
        if not 0 < missing < unanswered - _FURTHEST:
            break  # more nodes would cost more forward passes than they can save
        new = lattice.place_nodes(request.local[np.concatenate([rest, held])], current, nodes)
        if not lattice.well_conditioned(np.concatenate([nodes, new]), current):
            break
        nodes, features = np.concatenate([nodes, new]), _joined([features, *request.features(new)])
        polynomials = _Polynomials(Interpolation.through(nodes, current), features, logits_of)
        furthest = rest[polynomials.interpolation.furthest(request.local[rest], _FURTHEST)]
        request.evaluate(furthest)
        held, rest = np.concatenate([held, furthest]), rest[~np.isin(rest, furthest)]
        errors = np.abs(scores_of(polynomials(request.local[held])).means - request.exact_means[held])
        bounds = error_bounds(
            polynomials.interpolation,
            request.local[held],
            errors,
            request.local[rest],
            drawn=len(drawn),
            level=_OF_FEATURES * LEVEL,
        )
        numbers = np.flatnonzero(bounds <= allowed)
        unanswered = len(rest) - len(numbers)
        checks.append(
            Check(current, len(nodes), len(held), float(errors.mean()), float(errors.max()), answered=len(numbers))
        )
        if len(numbers) > (len(best.numbers) if best else 0):
            best = _Answered(polynomials, rest[numbers], bounds[numbers])
        if np.median(errors[: len(drawn)]) > 0.9 * typical:
            break  # higher degrees do not help here
        typical = np.median(errors[: len(drawn)])
    if best:
        left = np.isin(best.numbers, rest)
        best = best._replace(numbers=best.numbers[left], bounds=best.bounds[left])
    return best, tuple(checks)


@dataclass(frozen=True, eq=False)
class _Polynomials:
    """Polynomials of the features, with a probe at each point."""

    interpolation: Interpolation
    features: dict[str, Float[Array, "nodes _ hidden"]]
    """At the nodes."""
    logits_of: Score

    def __call__(self, points: Points) -> Logits:
        """Returns the logits of points by a probe on their interpolated features."""
        parts = []
        for first in range(0, len(points), _TOGETHER):
            part = points[first : first + _TOGETHER]
            # The last part is padded with copies, so that one compiled program serves all parts.
            filled = np.concatenate([part, np.repeat(part[-1:], _TOGETHER - len(part), axis=0)])
            weights = jnp.asarray(self.interpolation.weights(filled), jnp.float32)
            parts.append(np.asarray(self.logits_of(_mix(weights, self.features)))[: len(part)])
        return np.concatenate(parts)


@jax.jit
def _mix(
    weights: Float[Array, "points nodes"], features: dict[str, Float[Array, "nodes _ hidden"]]
) -> dict[str, Float[Array, "points _ hidden"]]:
    return {
        split: jnp.tensordot(weights, values, axes=1, precision=linear_head.HIGHEST)
        for split, values in features.items()
    }


def _in_hull(coefficients: Points) -> Bool[np.ndarray, " points"]:
    return (coefficients >= 0).all(axis=1) & (np.abs(coefficients.sum(axis=1) - 1) < 1e-6)


def _joined(parts: Iterable[Mapping[str, AnyArray]]) -> dict[str, Array]:
    """Returns the features of several groups of points, one group after the other."""
    filled = [part for part in parts if part]
    return {split: jnp.concatenate([jnp.asarray(part[split]) for part in filled]) for split in filled[0]}
