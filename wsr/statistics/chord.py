"""Points of a hull against their chords: the loss of a mixture minus the same mixture of its members' losses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from wsr.statistics.resampling import checked_losses
from wsr.statistics.sources import FEWEST, by_source


@dataclass(frozen=True)
class ChordDifference:
    """Mean over points of the loss minus that of the chord; below 0 the points are better than their members."""

    mean: float
    low: float
    high: float
    p_value: float
    """Two-sided p-value of the hypothesis that the mean is 0."""
    below: int
    """Number of points below their chord."""
    points: int
    reason: str = ""
    """Why there is no interval: then its ends are infinite and ``p_value`` is 1. Empty if there is one."""
    influence: Mapping[str, float] = field(default_factory=dict, repr=False)
    """How far each source moves the mean, for the interval of a mean over several targets (``mean_interval``)."""


def chord_difference(
    losses: Float[np.ndarray, "*draws points texts"],
    members: Float[np.ndarray, "*draws members texts"],
    coefficients: Float[np.ndarray, "points members"],
    *,
    sources: Sequence[str] | None = None,
    confidence: float = 0.95,
) -> ChordDifference:
    """Returns the mean over points of ``L(sum_k c_k theta_k) - sum_k c_k L(theta_k)``.

    The difference is paired: how good the members are, and how hard the texts, cancels. What is left is the curvature
    of the loss between the members. To second order a point is ``sum_{j<k} c_j c_k s_jk`` below its chord, where
    ``s_jk`` depends on a pair of members.

    The variance is a sum over sources, points, texts and draws of probe texts. That over sources is Hajek's for a
    statistic of pairs: each source has a number u, a point's difference is fitted as ``sum_k c_k (1 - c_k) u_k`` (that
    is, ``s_jk = u_j + u_k``), and the spread of the u is that between sources. The ends follow Student's t, with
    Welch's degrees of freedom. ``benchmarks/coverage.py`` simulates how often the interval is wrong.

    Args:
      losses: loss of each point on each text; optionally for several draws of probe texts.
      members: loss of each member on the same texts and draws.
      coefficients: one row per point; every row sums to 1.
      sources: the source of each member, such as its dataset; None: the members are independent.
      confidence: level of the interval.

    Raises:
      WsrError: if there are no losses, or one is not finite.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.chord import chord_difference
      >>> generator = np.random.default_rng(0)
      >>> members, hull = generator.normal(1, 0.2, (5, 80)), generator.dirichlet(np.ones(5), 10)
      >>> found = chord_difference(hull @ members - 0.1, members, hull)
      >>> round(found.mean, 3), found.below, found.high < 0
      (-0.1, 10, True)
    """
    from scipy.stats import t

    values, corners = checked_losses(losses, "of the points"), checked_losses(members, "of the members")
    differences = values - coefficients @ corners  # [*draws, points, texts]
    of_points = differences.mean(axis=(*range(differences.ndim - 2), -1))
    mean, below, points = float(of_points.mean()), int((of_points < 0).sum()), len(of_points)
    of_members = [str(k) for k in range(coefficients.shape[1])] if sources is None else sources
    names = list(dict.fromkeys(of_members))
    bends = by_source(of_members, coefficients * (1 - coefficients))
    numbers, _, rank, _ = np.linalg.lstsq(bends, of_points, rcond=1e-8)
    reason = ""
    if len(names) < FEWEST:
        reason = f"the corners come from {len(names)} source{'s' * (len(names) != 1)}; an interval needs {FEWEST}"
    elif rank < len(names) or points <= len(names):
        reason = f"{points} points are too few for corners of {len(names)} sources; draw more points"
    usual = mean / max(bends.sum(axis=1).mean(), 1e-12)
    influence = bends.mean(axis=0) * (numbers - usual)
    by_name = dict(zip(names, influence.tolist(), strict=True)) if rank == len(names) else {}
    if reason:
        return ChordDifference(mean, -np.inf, np.inf, 1.0, below, points, reason, by_name)
    count, residuals = len(names), of_points - bends @ numbers
    parts = [
        (float((influence**2).sum()) * count / (count - 1), count - 1),
        (float((residuals**2).sum()) / (points - count) / points, points - count),
        _of_a_mean(differences.mean(axis=tuple(range(differences.ndim - 1)))),
    ]
    if differences.ndim == 3:
        parts.append(_of_a_mean(differences.mean(axis=(1, 2))))
    variance = sum(own for own, _ in parts)
    freedom = variance**2 / sum(own**2 / free for own, free in parts if own) if variance else 1.0
    error = float(np.sqrt(variance))
    half = float(t.ppf((1 + confidence) / 2, freedom)) * error
    p_value = 2 * float(t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return ChordDifference(mean, mean - half, mean + half, p_value, below, points, influence=by_name)


def _of_a_mean(values: Float[np.ndarray, " items"]) -> tuple[float, int]:
    """Returns the variance of a mean and its degrees of freedom; 0 for a single item."""
    return (float(values.var(ddof=1)) / len(values), len(values) - 1) if len(values) > 1 else (0.0, 1)
