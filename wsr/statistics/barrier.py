"""The loss barrier on the line between two models."""

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.statistics.interval import Interval
from wsr.statistics.resampling import checked_losses, counts, mean_weights, percentiles


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
      >>> from wsr.statistics.barrier import barrier
      >>> round(barrier(np.array([0.0, 0.5, 1.0]), np.array([0.3, 0.9, 0.5])), 4)
      0.5
    """
    return float(barriers(np.asarray(alphas), np.asarray(losses, np.float64)[:, None])[0])


def barrier_interval(
    alphas: Float[np.ndarray, " points"],
    losses: Float[np.ndarray, "*draws points texts"],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    generator: np.random.Generator,
) -> Interval:
    """Returns the barrier of the mean losses and its percentile bootstrap interval.

    The interval is over the texts, and over the draws of probe texts if there are several.

    Noise biases a maximum upwards, so a lower end just above zero is weak evidence of a barrier.

    Args:
      alphas: positions on the line; 0 and 1 must be among them.
      losses: loss at each position on each text; optionally for several draws of probe texts.
      confidence: level of the interval.
      resamples: number of bootstrap draws.
      generator: source of the draws.

    Raises:
      WsrError: if 0 or 1 is not among the alphas, or a loss is not finite.
    """
    values = checked_losses(losses, "on the line")
    values = values[None] if values.ndim == 2 else values
    texts = counts(values.shape[2], resamples, generator) / values.shape[2]
    draws = mean_weights(len(values), resamples, generator)
    means = sum(draws[:, number] * (own @ texts.T) for number, own in enumerate(values))
    low, high = percentiles(barriers(np.asarray(alphas), np.asarray(means)), confidence)
    return Interval(barrier(alphas, values.mean(axis=(0, 2))), low, high)


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
