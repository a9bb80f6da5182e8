"""Says which of two groups of models is better, and how certain that is: P_B, means, barriers, p-values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError

PAIRS_AT_ONCE = 4_000_000  # comparisons held in memory together


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
    """Two-sided p-value of the hypothesis P_B = 1/2; see ``probability_better`` and ``holm``."""


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval."""

    value: float
    low: float
    high: float


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


def probability_better(
    losses_a: Float[np.ndarray, "models_a texts"],
    losses_b: Float[np.ndarray, "models_b texts"],
    *,
    ties: Literal["half", "loss"] = "half",
    confidence: float = 0.95,
    resamples: int = 2000,
    generator: np.random.Generator,
) -> Comparison:
    """Returns P_B: the probability that a model of group a has a lower mean loss than one of group b.

    P_B is the share of all pairs of one model of each group in which the model of group a has the lower mean loss.

    The interval is a percentile bootstrap over the models of both groups and over the texts; both groups share each
    draw of texts. It says how far P_B would move with other models of the same kind and other texts of the same
    dataset. It sees only the spread within the sample, so it is too narrow with few models, the more so the further
    apart the groups are. In a simulation of normally distributed groups (tests/test_compare.py), the coverage of a
    95 % interval was:

    - groups one standard deviation apart: 93 % with twenty models per group, 92 % with ten, 79 % with three;
    - three models per group: 91 % half a standard deviation apart, 47 % two standard deviations apart.

    If the groups do not overlap, the interval has no width; that is not certainty. ``probability_interval`` is made
    for few models.

    The p-value is twice the smaller share of resamples on one side of 1/2. It has the same limits: for equal groups
    it fell below 0.05 in 13 % of draws with three models per group, 8 % with five and 5 % with ten.

    Args:
      losses_a: loss of each model of group a on each text.
      losses_b: the same for group b, on the same texts.
      ties: a pair with equal means counts one half, or with ``"loss"`` nothing, as in the paper's released code.
      confidence: level of the interval.
      resamples: number of bootstrap draws.
      generator: source of the draws.

    Raises:
      WsrError: if a group has no losses, or a loss is not finite.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.compare import probability_better
      >>> generator = np.random.default_rng(0)
      >>> better, worse = generator.normal(0.4, 0.1, (5, 100)), generator.normal(0.6, 0.1, (5, 100))
      >>> probability_better(better, worse, generator=generator).probability
      1.0
    """
    a, b = _losses(losses_a, "a"), _losses(losses_b, "b")
    tie = {"half": 0.5, "loss": 0.0}[ties]
    draws = _draws(a.shape[1], resamples, generator)
    counts_a, counts_b = (_draws(len(group), resamples, generator) for group in (a, b))
    drawn = _probability(*_means(a, b, draws), counts_a, counts_b, tie=tie)
    observed = _probability(*_means(a, b, np.ones((1, a.shape[1]))), tie=tie)
    low, high = _percentiles(drawn, confidence)
    below, above = (drawn <= 0.5).sum(), (drawn >= 0.5).sum()
    p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + resamples))
    return Comparison(float(observed[0]), low, high, len(a), len(b), a.shape[1], float(p_value))


def probability_interval(
    losses_a: Float[np.ndarray, "models_a texts"],
    losses_b: Float[np.ndarray, "models_b texts"],
    *,
    confidence: float,
    generator: np.random.Generator,
) -> tuple[float, float, float]:
    """Returns P_B and the ends of an interval made for few models and few texts.

    The interval is that of Clopper and Pearson for a share of n comparisons, at an effective number n of independent
    ones (Korn and Graubard 1998). Let k be the number of models of the smaller group: k pairs share no model.

    - If the groups do not overlap, n is k: if P_B is 1/2, at most ``2 ** -k`` of all draws of groups are separated.
    - If they overlap, n follows from the variance over models, with its degrees of freedom (Brunner and Munzel 2000).
      It is at least k, because no distribution has a larger variance than k independent pairs (Hoeffding 1963), and at
      most its value for two groups of the same distribution.
    - The variance over texts, by the Bayesian bootstrap (Rubin 1981), then lowers n.

    Args:
      losses_a: loss of each model of group a on each text.
      losses_b: the same for group b, on the same texts.
      confidence: level of the interval.
      generator: source of the draws.

    Returns:
      P_B, with ties counted as one half; the lower end; the upper end.
    """
    from scipy.stats import beta, norm, t

    error = 1 - confidence
    models_a, models_b = len(losses_a), len(losses_b)
    a, b = losses_a.astype(np.float64), losses_b.astype(np.float64)
    means_a, means_b = _means(a, b, np.ones((1, a.shape[1])))
    probability = float(_probability(means_a, means_b)[0])
    placed_a, placed_b = _placements(means_a[0], means_b[0])

    pairs = float(min(models_a, models_b))
    of_a, of_b = placed_a.var(ddof=1) / models_a, placed_b.var(ddof=1) / models_b
    if of_a + of_b > 0:
        freedom = (of_a + of_b) ** 2 / (of_a**2 / (models_a - 1) + of_b**2 / (models_b - 1))
        student = (norm.ppf(1 - error / 2) / t.ppf(1 - error / 2, freedom)) ** 2
        seen = probability * (1 - probability) / (of_a + of_b) * student
        pairs = float(np.clip(seen, pairs, 3 * models_a * models_b / (models_a + models_b)))

    # Enough resamples for the tail that the interval is about.
    weights = generator.standard_exponential((int(np.ceil(10 / error)), a.shape[1]))
    of_texts = _probability(*_means(a, b, weights))
    most = of_texts.mean() * (1 - of_texts.mean())
    pairs = 1 / (1 / pairs + (of_texts.var() / most if most > 0 else 0.0))

    won, lost = pairs * probability, pairs * (1 - probability)
    low = float(beta.ppf(error / 2, won, lost + 1)) if won > 0 else 0.0
    high = float(beta.ppf(1 - error / 2, won + 1, lost)) if lost > 0 else 1.0
    return probability, low, high


def mean_difference(
    values_a: Float[np.ndarray, "models_a texts"],
    values_b: Float[np.ndarray, "models_b texts"],
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
    degrees of freedom for the models of both groups and the texts, so few models give a wide interval. In simulations
    (tests/test_compare.py), a 95 % interval covered the truth in 94 to 98 % of draws with three or more models per
    group, and in at least 89 % with two pairs. A group of one model, such as a centroid, contributes no spread over
    models; if both groups have one, the interval is over the texts alone.

    Args:
      values_a: one number per model of group a and text.
      values_b: one number per model of group b and text, on the same texts.
      paired: whether the models of both groups form pairs in this order (the same seed, for example); pairs are then
        drawn together.
      confidence: level of the interval.
      resamples: number of bootstrap draws.
      generator: source of the draws.

    Raises:
      WsrError: if a group has no values, a value is not finite, or paired groups differ in size.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.compare import mean_difference
      >>> generator = np.random.default_rng(0)
      >>> a, b = generator.normal(0.5, 0.1, (4, 100)), generator.normal(0.4, 0.1, (4, 100))
      >>> difference = mean_difference(a, b, generator=generator)
      >>> bool(difference.low < 0.1 < difference.high), difference.p_value < 0.001
      (True, True)
    """
    from scipy.stats import t

    a, b = _losses(values_a, "a"), _losses(values_b, "b")
    if paired:
        if len(a) != len(b):
            raise WsrError(f"paired groups: expected as many models in b as in a, found {len(b)} and {len(a)}")
        a, b = a - b, np.zeros((1, b.shape[1]))
    mean = float(a.mean() - b.mean())
    if a.size == b.size == 1:
        return Difference(mean, -np.inf, np.inf, 1.0)
    freedom = _welch([a.mean(axis=1), b.mean(axis=1), a.mean(axis=0) - b.mean(axis=0)])
    texts = _shares(a.shape[1], resamples, generator)
    of_a, of_b = (((texts @ group.T) * _shares(len(group), resamples, generator)).sum(axis=1) for group in (a, b))
    error = float(np.std(of_a - of_b))
    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * t.sf(abs(mean) / error, freedom) if error > 0 else float(mean == 0)
    return Difference(mean, mean - half, mean + half, float(p_value))


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
      >>> from wsr.statistics.compare import holm
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


def barrier(alphas: Float[np.ndarray, " points"], losses: Float[np.ndarray, " points"]) -> float:
    """Returns the loss barrier on the line between two models.

    It is the maximum over alpha in [0, 1] of ``L(alpha) - [(1 - alpha) L(0) + alpha L(1)]``, and never negative.

    Args:
      alphas: positions on the line; 0 and 1 must be among them. Positions outside [0, 1] are ignored.
      losses: mean loss at each position.

    Raises:
      WsrError: if 0 or 1 is not among the alphas.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.compare import barrier
      >>> round(barrier(np.array([0.0, 0.5, 1.0]), np.array([0.3, 0.9, 0.5])), 4)
      0.5
    """
    return float(barriers(np.asarray(alphas), np.asarray(losses, np.float64)[:, None])[0])


def barrier_interval(
    alphas: Float[np.ndarray, " points"],
    losses: Float[np.ndarray, "points texts"],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    generator: np.random.Generator,
) -> Interval:
    """Returns the barrier of the mean losses and its percentile bootstrap interval over the texts.

    Noise biases a maximum upwards, so a lower end just above zero is weak evidence of a barrier.

    Args:
      alphas: positions on the line; 0 and 1 must be among them.
      losses: loss at each position on each text.
      confidence: level of the interval.
      resamples: number of bootstrap draws.
      generator: source of the draws.

    Raises:
      WsrError: if 0 or 1 is not among the alphas, or a loss is not finite.
    """
    values = _losses(losses, "on the line")
    drawn = barriers(np.asarray(alphas), values @ _draws(values.shape[1], resamples, generator).T / values.shape[1])
    low, high = _percentiles(drawn, confidence)
    return Interval(barrier(alphas, values.mean(axis=1)), low, high)


def mean_interval(values: Float[np.ndarray, " values"], confidence: float = 0.95) -> Interval:
    """Returns the mean of some values and its Student t interval; with a single value the ends are infinite.

    Args:
      values: independent values.
      confidence: level of the interval.

    Raises:
      WsrError: if there are no values, or one is not finite.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.compare import mean_interval
      >>> interval = mean_interval(np.array([1.0, 2.0, 3.0]))
      >>> round(interval.value, 2), round(interval.low, 2), round(interval.high, 2)
      (2.0, -0.48, 4.48)
    """
    from scipy.stats import t

    data = np.asarray(values, np.float64)
    if data.size == 0 or not np.all(np.isfinite(data)):
        raise WsrError(
            f"mean: expected finite values, found {data.size} of which {np.sum(~np.isfinite(data))} are not finite"
        )
    mean = float(data.mean())
    if data.size == 1:
        return Interval(mean, -np.inf, np.inf)
    half = float(t.ppf((1 + confidence) / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size))
    return Interval(mean, mean - half, mean + half)


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


def _losses(losses: Float[np.ndarray, "models texts"], group: str) -> Float[np.ndarray, "models texts"]:
    values = np.asarray(losses, np.float64)
    if values.size == 0:
        raise WsrError(f"losses {group}: expected at least one model and one text, found the shape {values.shape}")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise WsrError(f"losses {group}: models {bad.tolist()} have losses that are not finite; leave them out")
    return values


def _draws(items: int, resamples: int, generator: np.random.Generator) -> Float[np.ndarray, "resamples items"]:
    """Returns how often each item is drawn, with replacement, in each resample."""
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)


def _welch(means: Sequence[Float[np.ndarray, " _"]]) -> float:
    """Returns the degrees of freedom of a sum of independent means (Welch 1947), from the values behind each mean."""
    spread = [(own.var(ddof=1) / len(own), len(own) - 1) for own in means if len(own) > 1]
    total = sum(variance for variance, _ in spread)
    return float(total**2 / sum(variance**2 / free for variance, free in spread)) if total > 0 else 1.0


def _shares(items: int, resamples: int, generator: np.random.Generator) -> Float[np.ndarray, "resamples items"]:
    """Returns the weight of each item in the mean of each resample; resamples have one item fewer, but at least one."""
    if items == 1:
        return np.ones((resamples, 1))
    return generator.multinomial(items - 1, np.full(items, 1 / items), size=resamples) / (items - 1)


def _means(
    a: Float[np.ndarray, "models_a texts"],
    b: Float[np.ndarray, "models_b texts"],
    weights: Float[np.ndarray, "draws texts"],
) -> tuple[Float[np.ndarray, "draws models_a"], Float[np.ndarray, "draws models_b"]]:
    """Returns the mean losses of both groups under each draw of the texts."""
    # Equal models must tie whatever the order of summation: each distinct row is averaged once.
    rows, which = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    means = (weights / weights.sum(axis=1, keepdims=True) @ rows.T)[:, which.reshape(-1)]
    return means[:, : len(a)], means[:, len(a) :]


def _probability(
    means_a: Float[np.ndarray, "draws models_a"],
    means_b: Float[np.ndarray, "draws models_b"],
    counts_a: Float[np.ndarray, "draws models_a"] | None = None,
    counts_b: Float[np.ndarray, "draws models_b"] | None = None,
    *,
    tie: float = 0.5,
) -> Float[np.ndarray, " draws"]:
    """Returns P_B in each draw; ``counts`` say how often each model was drawn (None: once)."""
    counts_a = np.ones_like(means_a) if counts_a is None else counts_a
    counts_b = np.ones_like(means_b) if counts_b is None else counts_b
    draws, together = len(means_a), max(1, PAIRS_AT_ONCE // (means_a.shape[1] * means_b.shape[1]))
    won = np.empty(draws)
    for start in range(0, draws, together):
        part = slice(start, start + together)
        a, b = means_a[part, :, None], means_b[part, None, :]
        won[part] = np.einsum("da,dab,db->d", counts_a[part], (a < b) + tie * (a == b), counts_b[part])
    return won / (counts_a.sum(axis=1) * counts_b.sum(axis=1))


def _placements(
    a: Float[np.ndarray, " models_a"], b: Float[np.ndarray, " models_b"]
) -> tuple[Float[np.ndarray, " models_a"], Float[np.ndarray, " models_b"]]:
    """Returns the share of group b above each model of a, and the share of group a below each model of b."""
    above = (a[:, None] < b) + 0.5 * (a[:, None] == b)
    return above.mean(axis=1), above.mean(axis=0)


def barriers(
    alphas: Float[np.ndarray, " points"], losses: Float[np.ndarray, "points draws"]
) -> Float[np.ndarray, " draws"]:
    """Returns the barrier of each column of losses; see ``barrier``.

    Args:
      alphas: positions on the line; 0 and 1 must be among them.
      losses: one column of losses per draw.

    Raises:
      WsrError: if 0 or 1 is not among the alphas.
    """
    ends = []
    for end in (0.0, 1.0):
        at = np.flatnonzero(np.isclose(alphas, end, rtol=0, atol=1e-6))
        if not at.size:
            raise WsrError(f"barrier: alpha {end:g} must be among the points, found {np.sort(alphas).tolist()}")
        ends.append(losses[at[0]])
    inside = (alphas >= 0) & (alphas <= 1)
    alpha = alphas[inside, None]
    above = losses[inside] - ((1 - alpha) * ends[0] + alpha * ends[1])
    # The ends lie on the chord even if rounding of an alpha says otherwise.
    return np.maximum(above.max(axis=0), 0.0)


def _percentiles(draws: Float[np.ndarray, " draws"], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
