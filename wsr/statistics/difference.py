"""Differences of means, with intervals and p-values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.statistics.interval import mean_interval
from wsr.statistics.resampling import checked_losses, mean_weights


@dataclass(frozen=True)
class Difference:
    """A difference of two means with its confidence interval and two-sided p-value."""

    mean: float
    low: float
    high: float
    p_value: float


@dataclass(frozen=True)
class PairedDifference:
    """Mean of ``a - b`` over pairs with its confidence interval; ``wins`` counts the pairs with ``a > b``."""

    mean: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


def mean_difference(
    values_a: Float[np.ndarray, "*draws models_a texts"],
    values_b: Float[np.ndarray, "*draws models_b texts"],
    *,
    paired: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    generator: np.random.Generator,
) -> Difference:
    """Returns the mean of group a minus the mean of group b, with an interval over the models and over the texts.

    The values may be losses or any other number per text: 1 for a correct prediction, for example. The standard error
    comes from a bootstrap over the models and the shared texts. Each draw takes one item fewer than there are, which
    makes the variance that of a mean and not a smaller one (Rao and Wu 1988). The ends follow Student's t, with Welch's
    degrees of freedom for the models of both groups, the texts and the draws, so few models give a wide interval. In
    simulations (tests/test_compare.py), a 95 % interval covered the truth in 94 to 98 % of draws with three or more
    models per group, and in at least 89 % with two pairs. A group of one model, such as a centroid, contributes no
    spread over models; if both groups have one, the interval is over the texts alone.

    Args:
      values_a: one number per model of group a and text; optionally for several draws of probe texts.
      values_b: one number per model of group b and text, on the same texts and draws.
      paired: whether the models of both groups form pairs in this order (the same seed, for example); pairs are then
        drawn together.
      confidence: level of the interval.
      resamples: number of bootstrap draws.
      generator: source of the draws.

    Raises:
      WsrError: if a group has no values, a value is not finite, or paired groups differ in size.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.difference import mean_difference
      >>> generator = np.random.default_rng(0)
      >>> a, b = generator.normal(0.5, 0.1, (4, 100)), generator.normal(0.4, 0.1, (4, 100))
      >>> difference = mean_difference(a, b, generator=generator)
      >>> bool(difference.low < 0.1 < difference.high), difference.p_value < 0.001
      (True, True)
    """
    from scipy.stats import t

    a, b = checked_losses(values_a, "a"), checked_losses(values_b, "b")
    if paired:
        if a.shape != b.shape:
            found = f"found {b.shape[-2]} and {a.shape[-2]}"
            raise WsrError(f"paired groups: expected as many models in b as in a, {found}")
        a, b = a - b, np.zeros((*b.shape[:-2], 1, b.shape[-1]))
    a, b = (own[None] if own.ndim == 2 else own for own in (a, b))
    mean = float(a.mean() - b.mean())
    if a.size == b.size == 1:
        return Difference(mean, -np.inf, np.inf, 1.0)
    by_draw, by_text = (a.mean(axis=axes) - b.mean(axis=axes) for axes in ((1, 2), (0, 1)))
    freedom = _welch([a.mean(axis=(0, 2)), b.mean(axis=(0, 2)), by_text, by_draw])
    texts, draws = (mean_weights(size, resamples, generator) for size in (a.shape[2], len(a)))
    drawn = []
    for group in (a, b):
        means = sum(draws[:, [number]] * (texts @ own.T) for number, own in enumerate(group))
        drawn.append((means * mean_weights(group.shape[1], resamples, generator)).sum(axis=1))
    error = float(np.std(drawn[0] - drawn[1]))
    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * t.sf(abs(mean) / error, freedom) if error > 0 else float(mean == 0)
    return Difference(mean, mean - half, mean + half, float(p_value))


def paired_difference(
    a: Float[np.ndarray, " pairs"], b: Float[np.ndarray, " pairs"], confidence: float = 0.95
) -> PairedDifference:
    """Returns the mean of ``a - b`` over pairs, with its Student t interval and the wins, ties and losses of a.

    Args:
      a: first value of each pair.
      b: second value of each pair: the same seed and target, for example.
      confidence: level of the interval.

    Raises:
      WsrError: if there are no pairs, or a value is not finite.
    """
    first, second = np.stack([a, b]).astype(np.float64)
    difference = first - second
    interval = mean_interval(difference, confidence)
    wins, ties, losses = (int(np.sum(which)) for which in (difference > 0, difference == 0, difference < 0))
    return PairedDifference(interval.value, interval.low, interval.high, wins, ties, losses)


def holm(p_values: Float[np.ndarray, " tests"] | Sequence[float]) -> Float[np.ndarray, " tests"]:
    """Returns p-values adjusted for the number of tests, by Holm's method.

    If the adjusted values below 0.05 are called significant, the probability of any false one among them is at most
    0.05. The k-th smallest of m p-values is multiplied by m + 1 - k, and none becomes smaller than the one before it
    (Holm 1979). For intervals instead, ``confidence = 1 - 0.05 / m`` makes m of them hold together (Bonferroni).

    Args:
      p_values: the p-value of each test.

    Raises:
      WsrError: if a p-value is not between 0 and 1.

    Example:
      >>> from wsr.statistics.difference import holm
      >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
      [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise WsrError(f"holm: expected p-values between 0 and 1, found {values.tolist()}")
    order = np.argsort(values)
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def _welch(means: Sequence[Float[np.ndarray, " _"]]) -> float:
    """Returns the degrees of freedom of a sum of independent means (Welch 1947), from the values behind each mean."""
    spread = [(own.var(ddof=1) / len(own), len(own) - 1) for own in means if len(own) > 1]
    total = sum(variance for variance, _ in spread)
    return float(total**2 / sum(variance**2 / free for variance, free in spread)) if total > 0 else 1.0
