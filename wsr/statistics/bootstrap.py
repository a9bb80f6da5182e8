"""Bootstrap intervals over models and texts at once; models scored on the same texts share each draw of them."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.statistics.interval import Interval
from wsr.statistics.resampling import mean_weights

Statistic = Callable[[Float[np.ndarray, "points draws"]], Float[np.ndarray, " draws"]]
"""Maps the mean losses of a unit's points, one column per draw of texts, to one number per draw."""


def bootstrap_mean(
    units: Sequence[Float[np.ndarray, "*draws _ _"]],
    datasets: Sequence[str],
    statistic: Statistic,
    *,
    generator: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Returns the mean of a statistic over units (pairs, directions, models) and its percentile bootstrap interval.

    The datasets are fixed. Within each dataset, units and texts are resampled. Each draw of texts is shared by all
    units scored on them, so differences within and between units stay paired. Draws of probe texts, where there are
    several, are resampled and shared likewise. From a dataset with n units, n - 1 are drawn, and so are the draws of
    probe texts, which makes the variance of their mean unbiased at any n (Rao and Wu 1988, Resampling inference with
    complex survey data). If a dataset has one unit, only its texts vary.

    Args:
      units: losses of each unit, shape ``[points, texts]``, or ``[draws, points, texts]`` with draws of probe texts.
      datasets: the dataset that each unit is scored on, one per unit.
      statistic: maps the mean losses of a unit's points to one number.
      generator: source of the draws.
      confidence: level of the interval.
      resamples: number of draws.

    Raises:
      WsrError: if there is no unit, or a loss is not finite.

    Example:
      The mean difference of two points, over three units scored on the same dataset.

      >>> import numpy as np
      >>> from wsr.statistics.bootstrap import bootstrap_mean
      >>> generator = np.random.default_rng(0)
      >>> units = [generator.normal([[1.0], [0.0]], 0.1, (2, 50)) for _ in range(3)]
      >>> mean = bootstrap_mean(units, ["cola"] * 3, lambda points: points[0] - points[1], generator=generator)
      >>> mean.low < 1.0 < mean.high
      True
    """
    if not units or not all(np.isfinite(unit).all() for unit in units):
        raise WsrError(f"interval: expected finite losses of at least one unit, found {len(units)} units")
    shares: dict[str, np.ndarray] = {}  # the weight of each text in each resample
    of_probes: dict[str, np.ndarray] = {}  # the weight of each draw of probe texts
    units = [unit[None] if unit.ndim == 2 else unit for unit in units]
    for unit, dataset in zip(units, datasets, strict=True):
        probes, _, texts = unit.shape
        if dataset not in shares:
            drawn_texts = generator.multinomial(texts, np.full(texts, 1 / texts), size=resamples)
            shares[dataset] = np.concatenate([np.full((1, texts), 1 / texts), drawn_texts / texts]).T
            drawn_probes = mean_weights(probes, resamples, generator)
            of_probes[dataset] = np.concatenate([np.full((1, probes), 1 / probes), drawn_probes]).T
    # The first column holds the observed statistic.
    each = np.stack(
        [
            statistic(np.einsum("dpr,dr->pr", unit @ shares[name], of_probes[name]))
            for unit, name in zip(units, datasets, strict=True)
        ]
    )
    drawn = np.zeros(resamples)
    for name in shares:
        own = each[[place for place, dataset in enumerate(datasets) if dataset == name], 1:]
        size = len(own)
        counts = generator.multinomial(max(size - 1, 1), np.full(size, 1 / size), size=resamples)
        drawn += (counts.T * own).sum(axis=0) / max(size - 1, 1) * size / len(units)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(each[:, 0].mean()), float(low), float(high))
