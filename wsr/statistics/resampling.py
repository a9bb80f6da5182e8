"""What the bootstraps share: checks of losses, draws with replacement, percentiles."""

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError


def checked_losses(
    losses: Float[np.ndarray, "*draws models texts"], group: str
) -> Float[np.ndarray, "*draws models texts"]:
    """Returns the losses in double precision.

    Raises:
      WsrError: if there are none, or one is not finite.
    """
    values = np.asarray(losses, np.float64)
    if values.size == 0:
        raise WsrError(f"losses {group}: expected at least one model and one text, found the shape {values.shape}")
    finite = np.isfinite(values).all(axis=-1)
    bad = np.flatnonzero(~finite.reshape(-1, finite.shape[-1]).all(axis=0))
    if bad.size:
        raise WsrError(f"losses {group}: models {bad.tolist()} have losses that are not finite; leave them out")
    return values


def counts(items: int, resamples: int, generator: np.random.Generator) -> Float[np.ndarray, "resamples items"]:
    """Returns how often each item is drawn, with replacement, in each resample."""
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)


def mean_weights(items: int, resamples: int, generator: np.random.Generator) -> Float[np.ndarray, "resamples items"]:
    """Returns the weight of each item in the mean of each resample.

    Resamples have one item fewer than there are, but at least one, which makes the variance that of a mean and not a
    smaller one (Rao and Wu 1988, Resampling inference with complex survey data).
    """
    if items == 1:
        return np.ones((resamples, 1))
    return generator.multinomial(items - 1, np.full(items, 1 / items), size=resamples) / (items - 1)


def percentiles(draws: Float[np.ndarray, " draws"], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
