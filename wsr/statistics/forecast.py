"""Whether something will help, forecast from what is known beforehand: a probability, and a statement or "cannot say".

The probability is that of a logistic regression for each method, calibrated on populations left out. The statement
comes from conformal prediction: each population's outcome is predicted without it, and the share of wrong predictions
bounds that of wrong statements. With few populations, or outcomes that the features do not explain, the answer is
"cannot say".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wsr.errors import WsrError

HELPS, DOES_NOT, CANNOT_SAY = "helps", "does not help", "cannot say"
LEVEL = 0.1
"""Largest share of populations with a wrong statement."""
FARTHEST = 3.0
"""A feature that lies farther from the mean, in standard deviations, is unlike the populations seen."""
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Strengths of the penalty of the slopes that are tried."""
_STEPS = 30


@dataclass(frozen=True, eq=False)
class Seen:
    """What is known of some populations: features from before, and outcomes."""

    features: Mapping[str, Float[np.ndarray, " populations"]]
    """By name."""
    outcomes: Mapping[str, Float[np.ndarray, " populations"]]
    """For each method, 1 where it helped and 0 where it did not; NaN where it was not tried."""
    apart: Bool[np.ndarray, "populations populations"]
    """Whether the first population may learn from the second, as when they share no dataset."""

    @property
    def table(self) -> Float[np.ndarray, "populations features"]:
        """The features, one row per population."""
        return np.stack(list(self.features.values()), axis=1)

    def where(self, kept: Bool[np.ndarray, " populations"]) -> "Seen":
        """Returns some of the populations."""
        return Seen(
            {name: own[kept] for name, own in self.features.items()},
            {name: own[kept] for name, own in self.outcomes.items()},
            self.apart[np.ix_(kept, kept)],
        )


@dataclass(frozen=True)
class Answer:
    """A forecast for one population and method."""

    probability: float
    """Probability that the method helps."""
    statement: str
    """``helps``, ``does not help`` or ``cannot say``."""
    why: str = ""
    """Why it cannot say."""


@dataclass(frozen=True)
class Forecast:
    """A fitted forecast.

    Example:
      Sixty populations whose only feature decides the outcome, up to noise.

      >>> import numpy as np
      >>> from wsr.statistics.forecast import Seen, fit_forecast
      >>> generator = np.random.default_rng(0)
      >>> gap = generator.normal(size=60)
      >>> helped = (gap + 0.1 * generator.normal(size=60) > 0).astype(float)
      >>> forecast = fit_forecast(Seen({"gap": gap}, {"ties": helped}, ~np.eye(60, dtype=bool)))
      >>> forecast.answer({"gap": 1.5}, "ties").statement, forecast.answer({"gap": 9.0}, "ties").statement
      ('helps', 'cannot say')
    """

    populations: int
    """Number of populations that it was fitted on."""
    penalty: float
    """Strength of the penalty of the slopes."""
    means: Mapping[str, float]
    """Mean of each feature."""
    deviations: Mapping[str, float]
    """Standard deviation of each feature; 0 for one that all populations share."""
    slopes: Mapping[str, Mapping[str, float]]
    """For each method, the coefficient of each standardised feature."""
    intercepts: Mapping[str, float]
    """For each method, the log odds at the mean of all features."""
    margins: Mapping[str, float | None]
    """For each method, the smallest probability of an outcome that can be true, 1 minus the conformal quantile; None
    if there are too few populations to tell."""

    def answer(self, features: Mapping[str, float], method: str) -> Answer:
        """Returns the forecast for a population.

        Args:
          features: those that the forecast was fitted on, by name.
          method: one of the methods that it was fitted on.

        Raises:
          WsrError: if a feature is missing or the method is not known.
        """
        missing = [name for name in self.means if name not in features]
        if missing or method not in self.intercepts:
            what = f"no feature {', '.join(missing)}" if missing else f"no method {method}"
            raise WsrError(f"forecast: {what}; it has {', '.join(self.means)} of {', '.join(self.intercepts)}")
        apart = {name: features[name] - mean for name, mean in self.means.items()}
        slopes = {
            name: own / self.deviations[name] for name, own in self.slopes[method].items() if self.deviations[name]
        }
        odds = self.intercepts[method] + sum(own * apart[name] for name, own in slopes.items())
        probability = float(1 / (1 + np.exp(-odds)))
        unlike = [name for name, own in apart.items() if not abs(own) <= FARTHEST * self.deviations[name] + 1e-9]
        if unlike:
            return Answer(probability, CANNOT_SAY, f"{', '.join(unlike)}: unlike the populations seen")
        margin = self.margins[method]
        if margin is None:
            return Answer(probability, CANNOT_SAY, "too few populations were seen")
        can_help, can_fail = probability >= margin, 1 - probability >= margin
        if can_help == can_fail:
            return Answer(probability, CANNOT_SAY, "populations like it had both outcomes")
        return Answer(probability, HELPS if can_help else DOES_NOT)

    def plain(self) -> dict[str, Any]:
        """Returns the forecast as plain data, with six significant digits; ``Forecast(**plain)`` is the forecast."""
        return _short(asdict(self))


def fit_forecast(seen: Seen, level: float = LEVEL) -> Forecast:
    """Returns the forecast that some populations give.

    Each method has a logistic regression on standardised features, with a penalty of ``penalty / 2`` times the squared
    length of the slopes. Two half observations at the mean of the features, one of each outcome, keep an intercept
    finite.

    The log odds x of all methods are then drawn together, to ``center + scale (x - center)``. The center is the log
    odds of the share of all outcomes that helped. The scale, from 0 to 1, gives outcomes the lowest log loss when each
    population is predicted from those that it may learn from (Platt 1999, Probabilistic outputs for support vector
    machines; his shift is left out, for without a population the odds lean away from its outcome). Of ``PENALTIES``,
    that is taken whose predictions, drawn together, have the lowest log loss.

    The margins are conformal: a population's outcome is predicted from those that it may learn from, and its score is
    1 minus the probability of what happened. The quantile of the scores at ``ceil((n + 1) (1 - level))`` of n is the
    largest that a true outcome may have (Vovk, Gammerman and Shafer 2005, Algorithmic learning in a random world;
    leaving one population out as in Barber et al. 2021, Predictive inference with the jackknife+).

    Args:
      seen: the populations.
      level: largest share of populations with a wrong statement.

    Raises:
      WsrError: if there is no population or no feature, or a feature is not finite.
    """
    table, outcomes = seen.table, np.stack(list(seen.outcomes.values()), axis=1)
    if not table.size or not np.isfinite(table).all():
        raise WsrError(f"forecast: expected finite features of at least one population, found {table.shape[0]}")
    # The first fit has all populations; each other one has those that a population may learn from.
    taken = np.concatenate([np.ones((1, len(table)), bool), seen.apart])
    unknown = np.isnan(outcomes) | ~seen.apart.any(axis=1, keepdims=True)
    center = float(np.log((np.nansum(outcomes) + 0.5) / (np.nansum(1 - outcomes) + 0.5)))

    def fitted(penalty: float) -> tuple[_Fits, Float[np.ndarray, "populations methods"]]:
        fits = _fits(table, outcomes, taken, penalty)
        odds = fits.log_odds(np.concatenate([table[:1], table]))[1:]
        scale = _scale(odds[~unknown] - center, outcomes[~unknown], center)
        probabilities = _logistic(center + scale * (odds - center))
        scores = np.where(unknown, np.nan, np.where(outcomes == 1, 1 - probabilities, probabilities))
        return fits.drawn_to(center, scale), scores

    tried = {penalty: fitted(penalty) for penalty in PENALTIES}
    log_losses = {penalty: -np.log1p(-scores[~unknown]).sum() for penalty, (_, scores) in tried.items()}
    penalty = min(log_losses, key=lambda own: log_losses[own])
    fits, scores = tried[penalty]
    names = list(seen.features)
    methods = list(seen.outcomes)
    return Forecast(
        len(table),
        penalty,
        dict(zip(names, fits.means[0].tolist(), strict=True)),
        dict(zip(names, fits.deviations[0].tolist(), strict=True)),
        {
            method: dict(zip(names, own, strict=True))
            for method, own in zip(methods, fits.weights[0, :, 1:].tolist(), strict=True)
        },
        dict(zip(methods, fits.weights[0, :, 0].tolist(), strict=True)),
        {method: _margin(own[np.isfinite(own)], level) for method, own in zip(methods, scores.T, strict=True)},
    )


def held_out(seen: Seen, level: float = LEVEL) -> list[dict[str, Answer]]:
    """Returns what the whole procedure says of each population without it, by method.

    Args:
      seen: the populations; each learns from those that it is apart from.
      level: largest share of populations with a wrong statement.
    """
    answers: list[dict[str, Answer]] = []
    for number, own in enumerate(seen.apart):
        features = {name: float(values[number]) for name, values in seen.features.items()}
        tried = [method for method, values in seen.outcomes.items() if np.isfinite(values[number])]
        if not own.any():
            answers.append(dict.fromkeys(tried, Answer(0.5, CANNOT_SAY, "no population was seen")))
            continue
        forecast = fit_forecast(seen.where(own), level)
        answers.append({method: forecast.answer(features, method) for method in tried})
    return answers


@dataclass(frozen=True, eq=False)
class _Fits:
    """Several fits of all methods."""

    means: Float[np.ndarray, "fits features"]
    deviations: Float[np.ndarray, "fits features"]
    weights: Float[np.ndarray, "fits methods columns"]
    """The intercept, then the slopes."""

    def log_odds(self, table: Float[np.ndarray, "fits features"]) -> Float[np.ndarray, "fits methods"]:
        """Returns what each fit says of one population."""
        rows = _with_ones(_standardised(table - self.means, self.deviations))
        return np.einsum("kmc,kc->km", self.weights, rows)

    def drawn_to(self, center: float, scale: float) -> "_Fits":
        """Returns the fits whose log odds are ``center + scale (x - center)``."""
        return replace(
            self, weights=scale * self.weights + (1 - scale) * center * (np.arange(self.weights.shape[-1]) == 0)
        )


def _scale(apart: Float[np.ndarray, " n"], outcomes: Float[np.ndarray, " n"], center: float) -> float:
    """Returns how far log odds may lie apart from the center, by bisection of the slope: the loss is convex."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        rising = apart @ (_logistic(center + middle * apart) - outcomes) > 0
        low, high = (low, middle) if rising else (middle, high)
    return (low + high) / 2


def _logistic(odds: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 1 / (1 + np.exp(-odds))


def _fits(
    table: Float[np.ndarray, "populations features"],
    outcomes: Float[np.ndarray, "populations methods"],
    taken: Bool[np.ndarray, "fits populations"],
    strength: float,
) -> _Fits:
    """Fits all methods to each choice of populations, at once, by Newton's method: the losses are strictly convex."""
    count, features, methods = len(taken), table.shape[1], outcomes.shape[1]
    share = taken / np.maximum(taken.sum(axis=1, keepdims=True), 1)
    means = share @ table
    deviations = np.sqrt(np.einsum("kp,kpf->kf", share, (table - means[:, None]) ** 2))
    deviations[deviations < 1e-9] = 0
    units = _standardised(table - means[:, None], deviations[:, None])
    rows = _with_ones(np.concatenate([units, np.zeros((count, 2, features))], axis=1))
    right = np.concatenate([np.nan_to_num(outcomes), np.zeros((1, methods)), np.ones((1, methods))])
    counted = np.concatenate([taken[..., None] & np.isfinite(outcomes), np.full((count, 2, methods), 0.5)], axis=1)
    penalty = strength * np.diag([0.0, *np.ones(features)])
    across = rows.swapaxes(1, 2)
    weights = np.zeros((count, methods, features + 1))
    for _ in range(_STEPS):
        probability = _logistic(rows @ weights.swapaxes(1, 2))
        slope = (counted * (probability - right)).swapaxes(1, 2) @ rows + weights @ penalty
        bend = (counted * probability * (1 - probability)).swapaxes(1, 2)
        curve = (bend[:, :, None] * across[:, None]) @ rows[:, None] + penalty
        step = np.linalg.solve(curve, slope[..., None])[..., 0]
        # Shortened where it is long: far from the minimum, a full step may overshoot.
        weights = weights - step / np.maximum(1.0, np.abs(step).max(axis=-1, keepdims=True) / 2)
        if np.abs(step).max() < 1e-9:
            break
    return _Fits(means, deviations, weights)


def _standardised(
    differences: Float[np.ndarray, "*rows features"], deviations: Float[np.ndarray, "*fits features"]
) -> Float[np.ndarray, "*rows features"]:
    """Features that do not differ have no slope: they are 0."""
    return np.where(deviations > 0, differences / np.where(deviations > 0, deviations, 1.0), 0.0)


def _with_ones(rows: Float[np.ndarray, "*rows features"]) -> Float[np.ndarray, "*rows columns"]:
    return np.concatenate([np.ones((*rows.shape[:-1], 1)), rows], axis=-1)


def _margin(scores: Sequence[float] | Float[np.ndarray, " populations"], level: float) -> float | None:
    place = int(np.ceil((len(scores) + 1) * (1 - level)))
    return None if place > len(scores) else float(1 - np.sort(scores)[place - 1])


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return {name: _short(own) for name, own in value.items()} if isinstance(value, Mapping) else value
