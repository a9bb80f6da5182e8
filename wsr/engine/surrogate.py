"""Surrogate evaluation: a whole convex hull from a few forward passes, with the error measured on the spot.

The features of an encoder are so smooth inside a hull that polynomials of low degree in the coefficients reproduce
them. The encoder is run at a few nodes (``wsr.engine.lattice``); every other point costs a small matrix product and a
probe. Some of the points asked for are evaluated exactly as well: how far off the surrogate is there decides whether it
may speak.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from wsr.data.dataset import Dataset
from wsr.engine import lattice
from wsr.engine.evaluate import EXACT, Evaluation, Protocol, evaluate, fit_on
from wsr.engine.probe import head_logits
from wsr.engine.region_features import region_features
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry import linear_head
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.types import AnyArray, Head

Features: TypeAlias = Mapping[str, Float[AnyArray, "points _ hidden"]]
Scores: TypeAlias = tuple[Float[np.ndarray, "points texts"], Shaped[np.ndarray, "points texts"]]
"""Losses and predictions."""
Score: TypeAlias = Callable[[Features], Float[AnyArray, "points texts classes"]]
"""From features of the probe and test split to logits of the test texts (for regression, one value a text)."""

CONFIDENCE = 0.95
_HIGHEST_DEGREE = 8
_TOGETHER = 8  # points of the surrogate that are scored at the same time
_MOST_KEPT = 1024  # logits that are kept to fit polynomials to them
_SHARE_OF_SCORES = 0.1  # of the tolerance, for polynomials in place of probes


@dataclass(frozen=True)
class Check:
    """How far the mean losses of a surrogate are off at points that were held out of it."""

    degree: int
    nodes: int
    """Points that the encoder was run at."""
    held_out: int
    error: float
    """Mean absolute difference from the exact mean loss."""
    bound: float
    """The mean over all points of the surrogate is below this with ``CONFIDENCE``, see ``upper_bound``."""
    largest: float

    @property
    def how(self) -> str:
        """What a row of the surrogate says about itself."""
        return (
            f"surrogate(degree={self.degree}, error={self.error:.2g}, bound={self.bound:.2g}, held_out={self.held_out})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class HullEvaluation(Evaluation):
    """Scores of some points, most of them by a surrogate where one could be trusted."""

    checks: tuple[Check, ...] = ()
    """One a surrogate that was tried; the last one belongs to the rows that are not exact, if there are any."""


def evaluate_hull(
    region: Region,
    coefficients: Float[np.ndarray, "points members"],
    dataset: Dataset,
    *,
    tolerance: float = 0.005,
    held_out: int = 6,
    degree: int | None = None,
    seed: int = 0,
    protocol: Protocol = Protocol(),
    score: Score | None = None,
    settings: Settings = Settings(),
) -> HullEvaluation:
    """Scores points of a region on a dataset, those of the convex hull by a surrogate where it is accurate and cheaper.

    Exact are the points outside the hull, those held out, and all of them where no degree does.

    Args:
      region: the population.
      coefficients: the points, over the region's members.
      dataset: the target; its probe and test splits are used.
      tolerance: what the mean absolute error of the mean loss may be, in the unit of the loss; the upper bound of the
        error is compared with it.
      held_out: points of the hull, drawn at random, that are evaluated exactly to measure the error.
      degree: of the polynomials; None: the lowest that is within the tolerance.
      seed: draws the points that are held out.
      protocol: how points are scored.
      score: takes the place of the protocol's probe, for example ``fixed_head(head)``; its points are not kept.
      settings: how the engine works; its results keep points that are evaluated exactly.
    """
    if held_out < 2:
        raise WsrError(f"surrogate: held_out must be at least 2 to measure an error, found {held_out}")
    coefficients = np.asarray(coefficients, np.float64)
    exact = _Exact(region, dataset, protocol, score, settings)
    inside = seeds.generator(seed, "held out", dataset.name).permutation(np.flatnonzero(_in_hull(coefficients)))
    # Those held out come last: where polynomials take the place of probes, they do so for them.
    held, rest = inside[:held_out], inside[held_out:]
    rows = _Rows()
    others = np.setdiff1d(np.arange(len(coefficients)), rest)
    if len(others):
        rows.put(others, exact(coefficients[others]), EXACT)
    used = np.flatnonzero(coefficients[inside].any(axis=0))
    wanted = coefficients[np.ix_([*rest, *held], used)]
    nodes = _Nodes(np.zeros((0, len(used))))
    labels = dataset.splits["test"].labels
    logits_of = score or probe_score(dataset, protocol)
    checks: list[Check] = []

    def check(losses: Float[np.ndarray, "held texts"], current: int) -> bool:
        errors = np.abs(losses.mean(axis=1) - rows.losses(held).mean(axis=1))
        found = Check(
            current,
            len(nodes.coefficients),
            len(held),
            float(errors.mean()),
            upper_bound(errors),
            float(errors.max()),
        )
        checks.append(found)
        return found.bound <= tolerance

    for current in [degree] if degree else range(1, _HIGHEST_DEGREE + 1):
        missing = lattice.count(len(used), current) - len(nodes.coefficients) if len(used) > 1 else 0
        if not 0 < missing < len(rest):
            break
        nodes.extend(lattice.place_nodes(wanted, current, nodes.coefficients), used, exact)
        logits_at = nodes.scorer(logits_of, current)
        if not check(_outcome(logits_at(wanted[len(rest) :]), labels)[0], current):
            if len(checks) > 1 and checks[-1].error > checks[-2].error / 2:
                break  # higher degrees do not help here
            continue
        losses, predictions = _score_all(logits_at, wanted, labels, current + 1, _SHARE_OF_SCORES * tolerance)
        checks.pop()
        if check(losses[len(rest) :], current):
            rows.put(rest, (losses[: len(rest)], predictions[: len(rest)]), checks[-1].how)
            settings.advance(len(rest), dataset.name)
            break
    if not (checks and checks[-1].bound <= tolerance) and len(rest):
        rows.put(rest, exact(coefficients[rest]), EXACT)
    return HullEvaluation(region, coefficients, dataset, *rows.stacked(), checks=tuple(checks))


def upper_bound(errors: Float[np.ndarray, " held"], confidence: float = CONFIDENCE) -> float:
    """Returns what the mean of the distribution of absolute errors is below, with a confidence.

    ``2 n mean / mu`` of n draws from an exponential distribution of mean ``mu`` is chi-squared with 2 n degrees of
    freedom. Errors that spread less about their mean than exponential ones (normal ones, whose absolute values have
    three quarters of that spread) are below the bound more often than the confidence says.
    """
    from scipy.special import chdtri

    return float(2 * errors.sum() / chdtri(2 * len(errors), confidence))


def probe_score(dataset: Dataset, protocol: Protocol) -> Score:
    """Returns the score by a fresh probe, as ``wsr.engine.evaluate.score_features`` fits it."""

    def score(features: Features) -> Float[Array, "points texts classes"]:
        heads = fit_on(features, dataset, protocol).heads
        return head_logits(jnp.asarray(features["test"]), heads)

    return score


def fixed_head(head: Head) -> Score:
    """Returns the score by a head that is the same for all points, for example that of a member."""
    heads = {name: jnp.asarray(leaf)[None] for name, leaf in head.items()}

    def score(features: Features) -> Float[Array, "points texts classes"]:
        own = {name: jnp.repeat(leaf, len(features["test"]), axis=0) for name, leaf in heads.items()}
        return head_logits(jnp.asarray(features["test"]), own)

    return score


@dataclass(frozen=True)
class _Exact:
    """Forward passes."""

    region: Region
    dataset: Dataset
    protocol: Protocol
    score: Score | None
    settings: Settings

    def __call__(self, coefficients: Float[np.ndarray, "points members"]) -> Scores:
        """Exact scores of points."""
        if self.score is None:
            found = evaluate(self.region, coefficients, self.dataset, protocol=self.protocol, settings=self.settings)
            return found.losses, found.predictions
        rows, labels = _Rows(), self.dataset.splits["test"].labels
        for numbers, features in self.features(coefficients):
            logits = np.asarray(self.score(features))[: len(numbers)]
            rows.put(np.array(numbers), _outcome(logits, labels), EXACT)
            self.settings.advance(len(numbers), self.dataset.name)
        return rows.stacked()[:2]

    def features(
        self, coefficients: Float[np.ndarray, "points members"]
    ) -> Iterator[tuple[list[int], dict[str, Float[Array, "chunk texts hidden"]]]]:
        """Features of points, chunk by chunk."""
        return region_features(
            self.region,
            coefficients,
            {split: self.dataset.splits[split] for split in ("probe", "test")},
            settings=self.settings,
        )


@dataclass
class _Nodes:
    """Where the encoder was run, and the features there; they stay when the degree rises."""

    coefficients: Float[np.ndarray, "nodes used"]
    features: dict[str, Float[Array, "nodes _ hidden"]] = field(default_factory=dict)

    def extend(self, new: Float[np.ndarray, "new used"], used: Int[np.ndarray, " used"], exact: _Exact) -> None:
        """Runs the encoder at more nodes."""
        rows = np.zeros((len(new), len(exact.region)))
        rows[:, used] = new
        parts = [self.features] if self.features else []
        for numbers, features in exact.features(rows):
            parts.append({split: jnp.asarray(values[: len(numbers)]) for split, values in features.items()})
            self.coefficients = np.concatenate([self.coefficients, new[numbers]])
            exact.settings.advance(0, f"{exact.dataset.name}: node {len(self.coefficients)}")
        self.features = {split: jnp.concatenate([part[split] for part in parts]) for split in parts[0]}

    def scorer(
        self, logits_of: Score, degree: int
    ) -> Callable[[Float[np.ndarray, "points used"]], Float[np.ndarray, "points texts classes"]]:
        """Returns a function from points to the logits that their interpolated features give."""
        interpolation = lattice.Interpolation.through(self.coefficients, degree)

        def logits_at(points: Float[np.ndarray, "points used"]) -> Float[np.ndarray, "points texts classes"]:
            parts = []
            for part in _parts(points):
                # The last ones are filled up with copies, so that one program serves all.
                filled = np.concatenate([part, np.repeat(part[-1:], _TOGETHER - len(part), axis=0)])
                weights = jnp.asarray(interpolation.weights(filled), jnp.float32)
                parts.append(np.asarray(logits_of(_mix(weights, self.features)))[: len(part)])
            return np.concatenate(parts)

        return logits_at


@jax.jit
def _mix(
    weights: Float[Array, "points nodes"], features: dict[str, Float[Array, "nodes _ hidden"]]
) -> dict[str, Float[Array, "points _ hidden"]]:
    return {
        split: jnp.tensordot(weights, values, axes=1, precision=linear_head.HIGHEST)
        for split, values in features.items()
    }


class _Rows:
    """Losses, predictions and their origin, gathered in any order."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[np.ndarray, np.ndarray, str]] = {}

    def put(self, numbers: Int[np.ndarray, " some"], scores: Scores, how: str) -> None:
        """Keeps the scores of some points."""
        for number, losses, predictions in zip(numbers.tolist(), *scores, strict=True):
            self._kept[number] = (losses, predictions, how)

    def losses(self, numbers: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some texts"]:
        """Losses of some points."""
        return np.stack([self._kept[number][0] for number in numbers.tolist()])

    def stacked(self) -> tuple[Float[np.ndarray, "points texts"], Shaped[np.ndarray, "points texts"], tuple[str, ...]]:
        """All of them, in order."""
        losses, predictions, how = zip(*(self._kept[number] for number in sorted(self._kept)), strict=True)
        return np.stack(losses), np.stack(predictions), how


def _score_all(
    logits_at: Callable[[Float[np.ndarray, "some used"]], Float[np.ndarray, "some texts classes"]],
    wanted: Float[np.ndarray, "points used"],
    labels: Shaped[np.ndarray, " texts"],
    degree: int,
    tolerance: float,
) -> Scores:
    """Scores the surrogate's points: some by ``logits_at``, the others by polynomials in the coefficients.

    With thousands of points the probes would take longer than the forward passes. Their logits are as smooth as the
    features, so polynomials of ``degree`` or more are fitted to the logits of some points. As many points again check
    them, and join them where they are off by more than the tolerance.
    """
    known = int(1.5 * lattice.count(wanted.shape[1], degree))
    if 2 * known > min(len(wanted), _MOST_KEPT):
        return _joined(_outcome(logits_at(part), labels) for part in _parts(wanted))
    logits = logits_at(wanted[:known])
    while 2 * known <= min(len(wanted), _MOST_KEPT):
        predicted = _fitted(wanted[:known], logits, degree)
        tried = logits_at(wanted[known : 2 * known])
        means = [_outcome(values, labels)[0].mean(axis=1) for values in (predicted(wanted[known : 2 * known]), tried)]
        logits, known = np.concatenate([logits, tried]), 2 * known
        if np.abs(means[0] - means[1]).mean() <= tolerance:
            logits_at = _fitted(wanted[:known], logits, degree)
            break
    rest = (_outcome(logits_at(part), labels) for part in _parts(wanted[known:]))
    return _joined(itertools.chain([_outcome(logits, labels)], rest))


def _fitted(
    points: Float[np.ndarray, "known used"], logits: Float[np.ndarray, "known texts classes"], degree: int
) -> Callable[[Float[np.ndarray, "some used"]], Float[np.ndarray, "some texts classes"]]:
    """Returns least-squares polynomials of the highest degree that the points carry."""
    while len(points) >= 1.5 * lattice.count(points.shape[1], degree + 1):
        degree += 1
    interpolation = lattice.Interpolation.through(points, degree)
    return lambda others: np.tensordot(interpolation.weights(others), logits, axes=1)


def _outcome(outputs: Float[np.ndarray, "points texts classes"], labels: Shaped[np.ndarray, " texts"]) -> Scores:
    predictions = outputs[..., 0] if outputs.shape[-1] == 1 else outputs.argmax(axis=-1)
    return np.asarray(linear_head.losses(outputs.astype(np.float32), labels)), predictions


def _joined(scores: Iterable[Scores]) -> Scores:
    losses, predictions = zip(*scores, strict=True)
    return np.concatenate(losses), np.concatenate(predictions)


def _parts(points: Float[np.ndarray, "points used"]) -> Iterator[Float[np.ndarray, "part used"]]:
    for first in range(0, len(points), _TOGETHER):
        yield points[first : first + _TOGETHER]


def _in_hull(coefficients: Float[np.ndarray, "points members"]) -> Bool[np.ndarray, " points"]:
    return (coefficients >= 0).all(axis=1) & (np.abs(coefficients.sum(axis=1) - 1) < 1e-6)
