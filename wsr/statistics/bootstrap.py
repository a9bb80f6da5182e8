"""Intervals over models and texts at once: both are drawn again, and texts that models share are drawn together."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.statistics.compare import Interval

Statistic = Callable[[Float[np.ndarray, "points draws"]], Float[np.ndarray, " draws"]]
"""From mean losses of a unit's points, one column a draw of texts, to what is asked about the unit."""


def bootstrap_mean(
    units: Sequence[Float[np.ndarray, "_ _"]],
    datasets: Sequence[str],
    statistic: Statistic,
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Returns the mean of a statistic over units (pairs, directions, models) and its percentile bootstrap interval.

    Units are drawn again within each dataset, for the datasets are fixed, and so are its texts; a draw of texts serves
    all units that are scored on it, so differences within and between them stay paired. Of ``n`` units of a dataset
    ``n - 1`` are drawn, with which the variance of their mean is right at any ``n`` (Rao and Wu 1988, Resampling
    inference with complex survey data). A dataset with one unit leaves its texts.

    Args:
      units: losses [points, texts] of each unit.
      datasets: what each unit is scored on.
      statistic: of the mean losses of a unit's points.
      generator: of the draws.
      confidence: of the interval.
      resamples: number of draws.

    Raises:
      WsrError: where there is no unit, or a loss is not finite.
    """
    if not units or not all(np.isfinite(unit).all() for unit in units):
        raise WsrError(f"interval: needs finite losses of at least one unit, found {len(units)} units")
    shares: dict[str, np.ndarray] = {}  # how much of a draw each text is
    for unit, dataset in zip(units, datasets, strict=True):
        texts = unit.shape[1]
        if dataset not in shares:
            drawn_texts = generator.multinomial(texts, np.full(texts, 1 / texts), size=resamples)
            shares[dataset] = np.concatenate([np.full((1, texts), 1 / texts), drawn_texts / texts]).T
    # The first column is what was observed.
    each = np.stack([statistic(unit @ shares[name]) for unit, name in zip(units, datasets, strict=True)])
    drawn = np.zeros(resamples)
    for name in shares:
        own = each[[place for place, dataset in enumerate(datasets) if dataset == name], 1:]
        size = len(own)
        counts = generator.multinomial(max(size - 1, 1), np.full(size, 1 / size), size=resamples)
        drawn += (counts.T * own).sum(axis=0) / max(size - 1, 1) * size / len(units)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(each[:, 0].mean()), float(low), float(high))
