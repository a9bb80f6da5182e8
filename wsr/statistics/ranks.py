"""Ranks of methods on several populations, and means over populations with their intervals."""

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.statistics.interval import Interval
from wsr.statistics.resampling import mean_weights, percentiles

DECIMALS = 9
"""Scores that are equal to so many decimals are tied: sums of the same numbers in another order differ in the last."""


def ranks(scores: Float[np.ndarray, "*draws methods"]) -> Float[np.ndarray, "*draws methods"]:
    """Returns the rank of each method: 1 has the highest score, and equal scores share the mean of their ranks.

    Args:
      scores: the score of each method, in several draws.

    Raises:
      WsrError: if a score is not finite.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.ranks import ranks
      >>> ranks(np.array([0.7, 0.9, 0.7, 0.1])).tolist()
      [2.5, 1.0, 2.5, 4.0]
    """
    if not np.isfinite(scores).all():
        raise WsrError(f"ranks: expected finite scores, found {int((~np.isfinite(scores)).sum())} that are not")
    own = np.round(scores, DECIMALS)
    higher = (own[..., None, :] > own[..., :, None]).sum(axis=-1)
    equal = (own[..., None, :] == own[..., :, None]).sum(axis=-1)
    return higher + (equal + 1) / 2


def mean_over_populations(
    draws: Float[np.ndarray, "populations draws methods"],
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
) -> list[Interval]:
    """Returns the mean of each method's value over populations, with its percentile bootstrap interval.

    The populations are resampled on top of what the draws resample already, such as texts. A single population is
    fixed.

    Args:
      draws: values of each population and method. The first draw is what was observed, the others are resamples that
        all populations share.
      generator: source of the resamples of populations.
      confidence: level of the intervals.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.ranks import mean_over_populations
      >>> draws = np.random.default_rng(0).normal(1.0, 0.1, (8, 500, 1))
      >>> (interval,) = mean_over_populations(draws, generator=np.random.default_rng(1))
      >>> interval.low < interval.value < interval.high
      True
    """
    populations, resamples, _ = draws.shape
    weights = mean_weights(populations, resamples - 1, generator)
    resampled = np.einsum("rp,prm->rm", weights, draws[:, 1:])
    return [
        Interval(float(value), *percentiles(own, confidence))
        for value, own in zip(draws[:, 0].mean(axis=0), resampled.T, strict=True)
    ]
