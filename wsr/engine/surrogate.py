"""Surrogate evaluation: scores a whole convex hull from a few forward passes and measures the error.

Inside a hull the features of an encoder vary so smoothly that polynomials of low degree in the coefficients reproduce
them. The encoder runs at a few nodes (``wsr.engine.lattice``); every other point costs a small matrix product and a
probe. Some of the points are also evaluated exactly. The surrogate is used only if its error at these points is within
the tolerance.
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
from wsr.engine.evaluate import EXACT, Evaluation, Protocol, evaluate, fit_draws
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
"""Turns features of the probe and test splits into logits of the test texts (one value per text for regression)."""

CONFIDENCE = 0.95
"""Confidence of the bound on the surrogate's error."""
_HIGHEST_DEGREE = 8
_TOGETHER = 8  # points of the surrogate scored at a time
_MOST_KEPT = 1024  # points whose logits are kept for fitting polynomials
_SHARE_OF_SCORES = 0.1  # share of the tolerance given to polynomials in place of probes


@dataclass(frozen=True)
class Check:
    """Error of a surrogate's mean losses at held-out points. Errors are in the unit of the loss."""

    degree: int
    """Degree of the polynomials."""
    nodes: int
    """Points at which the encoder ran."""
    held_out: int
    """Points at which the error was measured."""
    error: float
    """Mean absolute difference from the exact mean loss."""
    bound: float
    """Upper confidence bound on that mean error, at ``CONFIDENCE``; see ``upper_bound``."""
    largest: float
    """Largest absolute difference."""

    @property
    def how(self) -> str:
        """Description of the surrogate in result rows."""
        return (
            f"surrogate(degree={self.degree}, error={self.error:.2g}, bound={self.bound:.2g}, held_out={self.held_out})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class HullEvaluation(Evaluation):
    """Losses and predictions of points, most of them by a surrogate if its measured error is small enough."""

    checks: tuple[Check, ...] = ()
    """One per surrogate tried; the last belongs to the points that are not exact, if there are any."""


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
    """Evaluates points of a region on a dataset, those in the convex hull by a surrogate if it is accurate and cheaper.

    Points outside the hull and held-out points are evaluated exactly. If no degree reaches the tolerance, all points
    are.

    Args:
      region: the population.
      coefficients: one row per point, one column per member.
      dataset: the target dataset; its probe and test splits are used.
      tolerance: largest mean absolute error of the mean loss, in the unit of the loss; compared with the upper bound of
        the measured error.
      held_out: number of random points of the hull that are evaluated exactly to measure the error.
      degree: degree of the polynomials; None: the lowest that is within the tolerance.
      seed: seed of the choice of held-out points.
      protocol: the classifier that is fitted to each point's features.
      score: replaces the protocol's probe, for example ``fixed_head(head)``; results are then not cached.
      settings: chunk size, memory, devices, precision and cache of exact results.

    Returns:
      Losses and predictions of all points, and the error of each surrogate tried.

    Raises:
      WsrError: if ``held_out`` is less than 2.

    Example:
      >>> import numpy as np, wsr
      >>> region = wsr.made_up_region(3)
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> points = np.random.default_rng(0).dirichlet(np.ones(3), size=20)
      >>> evaluation = wsr.evaluate_hull(region, points, data, tolerance=0.1)
      >>> evaluation.how.count("exact"), evaluation.checks[-1].degree  # six held-out points are exact
      (6, 1)
    """
    if held_out < 2:
        raise WsrError(f"surrogate: held_out must be at least 2, found {held_out}")
    coefficients = np.asarray(coefficients, np.float64)
    exact = _Exact(region, dataset, protocol, score, settings)
    inside = seeds.generator(seed, "held out", dataset.name).permutation(np.flatnonzero(_in_hull(coefficients)))
    # Held-out points come last, so that polynomials that replace probes are checked on them too.
    held, rest = inside[:held_out], inside[held_out:]
    rows = _Rows()
    others = np.setdiff1d(np.arange(len(coefficients)), rest)
    if len(others):
        rows.put(others, exact(coefficients[others]), EXACT)
    used = np.flatnonzero(coefficients[inside].any(axis=0))
    wanted = coefficients[np.ix_([*rest, *held], used)]
    nodes = _Nodes(np.zeros((0, len(used))))
    draws = 1 if score else protocol.draws
    labels = np.tile(dataset.splits["test"].labels, draws)
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
    losses, predictions, how = rows.stacked()
    by_draw = [np.stack(np.split(values, draws, axis=1)) for values in (losses, predictions)]
    return HullEvaluation(region, coefficients, dataset, by_draw[0], by_draw[1], how, protocol, checks=tuple(checks))


def upper_bound(errors: Float[np.ndarray, " held"], confidence: float = CONFIDENCE) -> float:
    """Returns an upper confidence bound on the mean of the distribution of absolute errors.

    For n draws from an exponential distribution of mean ``mu``, ``2 n mean / mu`` is chi-squared with 2 n degrees of
    freedom. For errors with a smaller relative spread than exponential ones the bound is conservative; absolute values
    of normal errors have three quarters of that spread.

    Args:
      errors: absolute errors at the held-out points.
      confidence: confidence of the bound.

    Example:
      >>> import numpy as np
      >>> from wsr.engine.surrogate import upper_bound
      >>> round(upper_bound(np.full(6, 0.01)), 4)
      0.023
    """
    from scipy.special import chdtri

    return float(2 * errors.sum() / chdtri(2 * len(errors), confidence))


def probe_score(dataset: Dataset, protocol: Protocol) -> Score:
    """Returns a score that fits a fresh probe to each point, as ``wsr.engine.evaluate.score_features`` does.

    The logits of each draw of probe texts follow those of the draw before, as if they were of further texts.

    Args:
      dataset: the labels of the probe split.
      protocol: the classifier.
    """

    def score(features: Features) -> Float[Array, "points texts classes"]:
        test, draws = jnp.asarray(features["test"]), fit_draws(features, dataset, protocol)
        return jnp.concatenate([head_logits(test, draw.heads) for draw in draws], axis=1)

    return score


def fixed_head(head: Head) -> Score:
    """Returns a score that applies one fixed head to all points, for example the head of a member.

    Args:
      head: the linear head.
    """
    heads = {name: jnp.asarray(leaf)[None] for name, leaf in head.items()}

    def score(features: Features) -> Float[Array, "points texts classes"]:
        own = {name: jnp.repeat(leaf, len(features["test"]), axis=0) for name, leaf in heads.items()}
        return head_logits(jnp.asarray(features["test"]), own)

    return score


@dataclass(frozen=True)
class _Exact:
    """Evaluates points by forward passes."""

    region: Region
    dataset: Dataset
    protocol: Protocol
    score: Score | None
    settings: Settings

    def __call__(self, coefficients: Float[np.ndarray, "points members"]) -> Scores:
        """Returns the exact losses and predictions of points."""
        if self.score is None:
            found = evaluate(self.region, coefficients, self.dataset, protocol=self.protocol, settings=self.settings)
            return np.concatenate(found.losses_by_draw, axis=1), np.concatenate(found.predictions_by_draw, axis=1)
        rows, labels = _Rows(), self.dataset.splits["test"].labels
        for numbers, features in self.features(coefficients):
            logits = np.asarray(self.score(features))[: len(numbers)]
            rows.put(np.array(numbers), _outcome(logits, labels), EXACT)
            self.settings.advance(len(numbers), self.dataset.name)
        return rows.stacked()[:2]

    def features(
        self, coefficients: Float[np.ndarray, "points members"]
    ) -> Iterator[tuple[list[int], dict[str, Float[Array, "chunk texts hidden"]]]]:
        """Yields the features of points, one chunk at a time."""
        return region_features(
            self.region,
            coefficients,
            {split: self.dataset.splits[split] for split in ("probe", "test")},
            settings=self.settings,
        )


@dataclass
class _Nodes:
    """The points at which the encoder ran, and the features there; they are reused at higher degrees."""

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
        """Returns a function from points to logits of their interpolated features."""
        interpolation = lattice.Interpolation.through(self.coefficients, degree)

        def logits_at(points: Float[np.ndarray, "points used"]) -> Float[np.ndarray, "points texts classes"]:
            parts = []
            for part in _parts(points):
                # The last part is padded with copies, so that one compiled program serves all parts.
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
    """Collects losses, predictions and their origin, in any order."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[np.ndarray, np.ndarray, str]] = {}

    def put(self, numbers: Int[np.ndarray, " some"], scores: Scores, how: str) -> None:
        """Stores the scores of some points."""
        for number, losses, predictions in zip(numbers.tolist(), *scores, strict=True):
            self._kept[number] = (losses, predictions, how)

    def losses(self, numbers: Int[np.ndarray, " some"]) -> Float[np.ndarray, "some texts"]:
        """Returns the losses of some points."""
        return np.stack([self._kept[number][0] for number in numbers.tolist()])

    def stacked(self) -> tuple[Float[np.ndarray, "points texts"], Shaped[np.ndarray, "points texts"], tuple[str, ...]]:
        """Returns the scores of all points, in order."""
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
    features, so polynomials of ``degree`` or higher are fitted to the logits of some points and checked on as many
    further points. If the error exceeds the tolerance, the further points join the fit.
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
    """Returns least-squares polynomials of the highest degree that the number of points supports."""
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
