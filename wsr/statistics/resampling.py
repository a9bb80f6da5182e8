"""What the bootstraps share: checks of losses, draws with replacement, percentiles."""

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError


def checked_losses(losses: Float[np.ndarray, "models texts"], group: str) -> Float[np.ndarray, "models texts"]:
    values = np.asarray(losses, np.float64)
    if values.size == 0:
        raise WsrError(f"losses {group}: expected at least one model and one text, found the shape {values.shape}")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise WsrError(f"losses {group}: models {bad.tolist()} have losses that are not finite; leave them out")
    return values


def counts(items: int, resamples: int, generator: np.random.Generator) -> Float[np.ndarray, "resamples items"]:
    """Returns how often each item is drawn, with replacement, in each resample."""
    return generator.multinomial(items, np.full(items, 1 / items), size=resamples).astype(np.float64)


def percentiles(draws: Float[np.ndarray, " draws"], confidence: float) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
