"""Are models of one group better than those of another, and how sure is that?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Ties = Literal["half", "loss"]


@dataclass(frozen=True)
class Comparison:
    """P_B and its interval."""

    probability: float
    low: float
    high: float
    models_a: int
    models_b: int
    texts: int


@dataclass(frozen=True)
class Difference:
    """A paired difference: its mean, the interval of the mean, and how often it was above, at and below zero."""

    mean: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


def probability_better(
    losses_a: Float[np.ndarray, "models_a texts"],
    losses_b: Float[np.ndarray, "models_b texts"],
    *,
    generator: np.random.Generator,
    ties: Ties = "half",
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Comparison:
    """P_B(A > B): the probability that a model drawn from A has a lower mean loss than one drawn from B.

    The probability is over all pairs. Its interval is a percentile bootstrap over the models of both groups and over
    the texts; the texts are shared, so both groups are resampled with the same ones (paired). With few models the
    interval is too narrow: a bootstrap of three models knows only those three, and a group that wins every pair on
    every resample gets [1, 1].

    Args:
      losses_a: loss of each model of A on each test text.
      losses_b: of B, on the same texts.
      generator: draws the resamples.
      ties: a pair of equal mean losses counts as half a win, or as a loss for A as in the paper's released code.
      confidence: of the interval.
      resamples: of the bootstrap.
    """
    texts = losses_a.shape[1]
    weights = generator.multinomial(texts, np.full(texts, 1 / texts), size=resamples) / texts
    means_a, means_b = (_resampled_models(weights @ losses.T, generator) for losses in (losses_a, losses_b))
    draws = _share_of_wins(means_a, means_b, ties)
    low, high = np.quantile(draws, _tails(confidence))
    own = _share_of_wins(losses_a.mean(axis=1)[None], losses_b.mean(axis=1)[None], ties)[0]
    return Comparison(float(own), float(low), float(high), len(losses_a), len(losses_b), texts)


def barrier(alphas: Float[np.ndarray, " points"], losses: Float[np.ndarray, " points"]) -> float:
    """The maximum over alpha in [0, 1] of ``L(alpha) - [(1 - alpha) L(0) + alpha L(1)]``; 0 or more."""
    return float(_barriers(alphas, losses[None])[0])


def barrier_interval(
    alphas: Float[np.ndarray, " points"],
    losses: Float[np.ndarray, "points texts"],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval over texts of the barrier.

    A maximum is biased upwards by noise, so the interval of a line without a barrier starts at 0 and reaches above it.
    """
    texts = losses.shape[1]
    weights = generator.multinomial(texts, np.full(texts, 1 / texts), size=resamples) / texts
    low, high = np.quantile(_barriers(alphas, weights @ losses.T), _tails(confidence))
    return float(low), float(high)


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float, float]:
    """Returns the mean and its interval by Student's t; with a single value the interval is infinite."""
    from scipy.stats import t

    own = np.asarray(values, np.float64)
    mean = float(own.mean())
    if len(own) < 2:
        return mean, -np.inf, np.inf
    half = float(t.ppf((1 + confidence) / 2, len(own) - 1) * own.std(ddof=1) / np.sqrt(len(own)))
    return mean, mean - half, mean + half


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Difference:
    """Returns ``first - second``, pair by pair: its mean with Student's t interval, wins, ties and losses."""
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    mean, low, high = mean_interval(differences.tolist(), confidence)
    signs = np.sign(differences)
    return Difference(mean, low, high, int((signs > 0).sum()), int((signs == 0).sum()), int((signs < 0).sum()))


def _resampled_models(
    means: Float[np.ndarray, "resamples models"], generator: np.random.Generator
) -> Float[np.ndarray, "resamples models"]:
    chosen = generator.integers(means.shape[1], size=means.shape)
    return np.take_along_axis(means, chosen, axis=1)


def _share_of_wins(
    means_a: Float[np.ndarray, "resamples models_a"], means_b: Float[np.ndarray, "resamples models_b"], ties: Ties
) -> Float[np.ndarray, " resamples"]:
    wins = (means_a[:, :, None] < means_b[:, None, :]).mean(axis=(1, 2))
    if ties == "loss":
        return wins
    return wins + 0.5 * (means_a[:, :, None] == means_b[:, None, :]).mean(axis=(1, 2))


def _barriers(
    alphas: Float[np.ndarray, " points"], losses: Float[np.ndarray, "resamples points"]
) -> Float[np.ndarray, " resamples"]:
    start, end = (np.flatnonzero(alphas == alpha) for alpha in (0.0, 1.0))
    if len(start) != 1 or len(end) != 1:
        raise ValueError("a barrier needs the loss at alpha 0 and at alpha 1, once each")
    between = (alphas >= 0) & (alphas <= 1)
    chord = (1 - alphas) * losses[:, start] + alphas * losses[:, end]
    return (losses - chord)[:, between].max(axis=1)


def _tails(confidence: float) -> tuple[float, float]:
    return (1 - confidence) / 2, (1 + confidence) / 2
