"""P_B, the probability that a model of one group is better than one of another, with an interval that knows sources."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.statistics.interval import Interval, shared_variance
from wsr.statistics.resampling import checked_losses, mean_weights
from wsr.statistics.sources import FEWEST, Sources

PAIRS_AT_ONCE = 4_000_000  # comparisons held in memory together
RESAMPLES = 500
"""Draws of texts and probes, for the variance of P_B over them."""

Ends = Callable[[float], tuple[float, float]]
"""Maps an error probability to the ends of the interval."""


@dataclass(frozen=True)
class Comparison:
    """P_B of two groups with its interval and the number of models and texts behind it."""

    probability: float
    """P_B: the probability that a model of group a has a lower loss than one of group b."""
    low: float
    high: float
    models_a: int
    models_b: int
    texts: int
    p_value: float
    """Two-sided p-value of the hypothesis P_B = 1/2: the smallest error at which the interval excludes it."""
    sources: float = 0.0
    """Number of sources of the group that has fewer."""
    reason: str = ""
    """Why there is no interval: then ``low`` is 0, ``high`` 1 and ``p_value`` 1. Empty if there is one."""
    influence: Mapping[str, float] = field(default_factory=dict, repr=False)
    """How far each source moves P_B, for ``mean_probability``."""


def probability_better(
    losses_a: Float[np.ndarray, "*draws models_a texts"],
    losses_b: Float[np.ndarray, "*draws models_b texts"],
    *,
    sources_a: Sources | None = None,
    sources_b: Sources | None = None,
    ties: Literal["half", "loss"] = "half",
    confidence: float = 0.95,
    generator: np.random.Generator,
) -> Comparison:
    """Returns P_B: the probability that a model of group a has a lower mean loss than one of group b.

    P_B is the share of all pairs of one model of each group in which the model of group a has the lower mean loss.

    The interval says how far P_B would move with other sources (datasets, or members of one dataset), other texts and
    other draws of probe texts. It is that of Clopper and Pearson for a share of n comparisons, at an effective number n
    of independent ones (Korn and Graubard 1998). Let k be the number of sources of the group that has fewer.

    - If the groups do not overlap, n is k: if P_B is 1/2, at most ``2 ** -k`` of all draws of sources separate them.
    - If they overlap, n follows from the variance over sources, with its degrees of freedom (Brunner and Munzel 2000;
      for models of several sources the variance is that of ``Sources.influences``, and a source of both groups counts
      once). It is at least k, because no distribution has a larger variance than k independent pairs (Hoeffding 1963),
      and at most its value for two groups of the same distribution without common sources.
    - The variance over texts, by the Bayesian bootstrap (Rubin 1981), and over draws of probe texts then lowers n.

    ``benchmarks/coverage.py`` simulates how often the interval is wrong; docs/early_answers.md has its table.

    Args:
      losses_a: loss of each model of group a on each text; optionally for several draws of probe texts.
      losses_b: the same for group b, on the same texts and draws.
      sources_a: the sources of group a; None: its models are independent.
      sources_b: the same for group b.
      ties: a pair with equal means counts one half, or with ``"loss"`` nothing, as in the paper's released code.
      confidence: level of the interval.
      generator: source of the draws.

    Raises:
      WsrError: if a group has no losses, or a loss is not finite.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.better import probability_better
      >>> generator = np.random.default_rng(0)
      >>> better, worse = generator.normal(0.4, 0.1, (8, 100)), generator.normal(0.6, 0.1, (8, 100))
      >>> found = probability_better(better, worse, generator=generator)
      >>> found.probability, round(found.low, 2), found.high
      (1.0, 0.63, 1.0)
    """
    a, b = checked_losses(losses_a, "a"), checked_losses(losses_b, "b")
    models_a, models_b, texts = a.shape[-2], b.shape[-2], a.shape[-1]
    tie = {"half": 0.5, "loss": 0.0}[ties]
    whole = np.ones((1, texts)) / texts
    means_a, means_b = _means(a, b, whole, None)
    wins = _wins(means_a, means_b, tie)[0]
    probability = float(wins.mean())
    of = (sources_a or Sources.independent(models_a, "a"), sources_b or Sources.independent(models_b, "b"))
    fewest = min(own.count for own in of)
    found = [of[0].influences(wins.mean(axis=1)), of[1].influences(wins.mean(axis=0))]
    influence = _joined(of, found)
    reason = of[0].too_few("group a") or of[1].too_few("group b")
    if reason:
        return Comparison(probability, 0.0, 1.0, models_a, models_b, texts, 1.0, fewest, reason, influence)
    weights = generator.standard_exponential((RESAMPLES, texts))
    draws = None if a.ndim == 2 else mean_weights(len(a), RESAMPLES, generator)
    means_a, means_b = _means(a, b, weights / weights.sum(axis=1, keepdims=True), draws)
    together = max(1, PAIRS_AT_ONCE // (models_a * models_b))
    parts = [slice(first, first + together) for first in range(0, RESAMPLES, together)]
    moved = np.concatenate([_wins(means_a[part], means_b[part], tie).mean(axis=(1, 2)) for part in parts])
    usual = moved.mean() * (1 - moved.mean())
    ends = _ends(
        probability,
        *_spread(of, found),
        fewest=fewest,
        most=np.inf if set(of[0].names) & set(of[1].names) else 3 / sum(1 / own.count for own in of),
        of_texts=float(moved.var() / usual) if usual > 0 else 0.0,
    )
    low, high = ends(1 - confidence)
    return Comparison(probability, low, high, models_a, models_b, texts, _p_value(ends), fewest, influence=influence)


def mean_probability(comparisons: Sequence[Comparison], confidence: float = 0.95) -> Interval:
    """Returns the mean P_B over targets and its interval, for targets drawn from many.

    It is the interval of ``probability_better`` with targets in place of sources. If the same sources stand behind
    several targets, the covariance that they make widens it (see ``mean_interval``).

    Args:
      comparisons: the comparison on each target.
      confidence: level of the interval.

    Raises:
      WsrError: if there are no comparisons.
    """
    if not comparisons:
        raise WsrError("mean P_B: expected at least one comparison, found none")
    values = np.array([own.probability for own in comparisons])
    mean, targets = float(values.mean()), len(values)
    if targets < FEWEST:
        return Interval(mean, 0.0, 1.0)
    shared, sources = shared_variance([own.influence for own in comparisons])
    variance, freedom, fewest = float(values.var(ddof=1)) / targets, targets - 1, float(targets)
    if shared > 0:
        variance, freedom = variance + shared, min(freedom, sources - 1)
        fewest = min(fewest, *(own.sources for own in comparisons))
    return Interval(mean, *_ends(mean, variance, freedom, fewest=fewest)(1 - confidence))


def _ends(
    probability: float,
    variance: float,
    freedom: float,
    *,
    fewest: float,
    most: float = np.inf,
    of_texts: float = 0.0,
) -> Ends:
    """Returns the ends of the interval as a function of its error probability."""
    from scipy.special import betaincinv, ndtri, stdtrit

    def ends(error: float) -> tuple[float, float]:
        pairs = fewest
        if variance > 1e-12:
            student = (ndtri(1 - error / 2) / stdtrit(freedom, 1 - error / 2)) ** 2
            pairs = float(np.clip(probability * (1 - probability) / variance * student, fewest, max(fewest, most)))
        pairs = 1 / (1 / pairs + of_texts)
        won, lost = pairs * probability, pairs * (1 - probability)
        low = float(betaincinv(won, lost + 1, error / 2)) if won > 0 else 0.0
        high = float(betaincinv(won + 1, lost, 1 - error / 2)) if lost > 0 else 1.0
        return low, high

    return ends


def _spread(of: tuple[Sources, Sources], influences: list[Float[np.ndarray, " _"] | None]) -> tuple[float, float]:
    """Returns the variance of P_B over sources and its degrees of freedom; 0 if it cannot be estimated."""
    if influences[0] is None or influences[1] is None:
        return 0.0, 1.0
    sizes = [len(own.names) for own in of]
    # The spread of n sources about their mean is n - 1 in n of that about the truth.
    scaled = [own * np.sqrt(size / (size - 1)) for own, size in zip(influences, sizes, strict=True) if own is not None]
    variances = [float((own**2).sum()) for own in scaled]
    if not set(of[0].names) & set(of[1].names):
        total = sum(variances)
        weighed = sum((own / total) ** 2 / (size - 1) for own, size in zip(variances, sizes, strict=True) if total)
        return total, 1 / weighed if total else 1.0
    both = _joined(of, list(scaled))
    return float(sum(own**2 for own in both.values())), float(min(sizes) - 1)


def _joined(of: tuple[Sources, Sources], influences: list[Float[np.ndarray, " _"] | None]) -> dict[str, float]:
    """Returns the influence of each source on both groups together."""
    joined: dict[str, float] = {}
    for own, values in zip(of, influences, strict=True):
        for name, value in zip(own.names, [] if values is None else values.tolist(), strict=values is not None):
            joined[name] = joined.get(name, 0.0) + value
    return joined


def _p_value(ends: Ends) -> float:
    """Returns the smallest error at which the interval excludes one half, by bisection of its logarithm."""
    kept, excluded = 1e-9, 0.999
    for _ in range(40):
        error = np.sqrt(kept * excluded)
        low, high = ends(error)
        kept, excluded = (kept, error) if low > 0.5 or high < 0.5 else (error, excluded)
    return 1.0 if excluded > 0.99 else float(excluded)


def _means(
    a: Float[np.ndarray, "*draws models_a texts"],
    b: Float[np.ndarray, "*draws models_b texts"],
    texts: Float[np.ndarray, "resamples texts"],
    draws: Float[np.ndarray, "resamples draws"] | None,
) -> tuple[Float[np.ndarray, "resamples models_a"], Float[np.ndarray, "resamples models_b"]]:
    """Returns the mean losses of both groups under weights of the texts and of the draws of probe texts."""
    from threadpoolctl import threadpool_limits

    both = np.concatenate([a, b], axis=-2)
    both = both[None] if both.ndim == 2 else both
    # Equal models must tie whatever the order of summation: each distinct one is averaged once.
    rows, which = np.unique(both.swapaxes(0, 1), axis=0, return_inverse=True)
    of_draws = np.full((len(texts), len(both)), 1 / len(both)) if draws is None else draws
    with threadpool_limits(1, user_api="blas"):  # on matrices this small, threads wait for each other
        means = sum(of_draws[:, [draw]] * (texts @ rows[:, draw].T) for draw in range(len(both)))
    means = np.asarray(means)[:, which.reshape(-1)]
    return means[:, : a.shape[-2]], means[:, a.shape[-2] :]


def _wins(
    means_a: Float[np.ndarray, "draws models_a"], means_b: Float[np.ndarray, "draws models_b"], tie: float
) -> Float[np.ndarray, "draws models_a models_b"]:
    """Returns 1 where the model of a is better, ``tie`` where both are equal, else 0."""
    a, b = means_a[:, :, None], means_b[:, None, :]
    return (a < b) + tie * (a == b)
