"""How well features explain labels without fitting a classifier: the logarithm of the maximum evidence (LogME)."""

import numpy as np
from jaxtyping import Float, Float64, Shaped

_ROUNDS = 100
"""Most rounds of the fixed point; it needs fewer than 20 as a rule."""
_CHANGE = 1e-6
"""Relative change of the ratio of precisions at which the fixed point counts as reached."""
_LEAST = 1e-12
"""Least precision, and the inverse of the largest."""


def log_evidence(features: Float[np.ndarray, "texts hidden"], labels: Shaped[np.ndarray, " texts"]) -> float:
    """Returns the log evidence of linear models from features to labels, in nats a text and class.

    Each class is a regression of its indicator (0 or 1) on the features, with normal noise of precision beta and normal
    weights of precision alpha. The evidence integrates over the weights and is maximised over alpha and beta, so it
    prefers features that explain the labels with small weights and cannot overfit (You et al. 2021, "LogME").

    Args:
      features: features of each text.
      labels: class of each text, as whole numbers, or the value for regression.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.log_evidence import log_evidence
      >>> labels = np.arange(40) % 2
      >>> noise = np.random.default_rng(0).normal(size=(40, 8))
      >>> telling = noise + labels[:, None]
      >>> log_evidence(telling, labels) > log_evidence(noise, labels)
      True
    """
    left, singular, _ = np.linalg.svd(np.asarray(features, np.float64), full_matrices=False)
    if np.issubdtype(labels.dtype, np.integer):
        targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    else:
        targets = np.asarray(labels, np.float64)[:, None]
    hidden = features.shape[1]
    return float(np.mean([_evidence(left, singular**2, target, hidden) for target in targets.T])) / len(labels)


def _evidence(
    left: Float64[np.ndarray, "texts rank"],
    squares: Float64[np.ndarray, " rank"],
    target: Float64[np.ndarray, " texts"],
    hidden: int,
) -> float:
    """Returns the log evidence of one regression, maximised by MacKay's fixed point (Bishop 2006, 3.92 and 3.95).

    Everything follows from the target's coordinates along the left singular vectors of the features.

    Args:
      left: left singular vectors of the features.
      squares: their squared singular values.
      target: the regression's target.
      hidden: number of features.
    """
    texts = len(target)
    along = (left.T @ target) ** 2
    outside = max(float(target @ target - along.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(_ROUNDS):
        ratio = alpha / beta
        weights = float((squares * along / (squares + ratio) ** 2).sum())
        error = outside + float((along * (ratio / (squares + ratio)) ** 2).sum())
        used = float((squares / (squares + ratio)).sum())
        # A target that the features explain entirely, or not at all, has no finite optimum.
        alpha = float(np.clip(used / max(weights, _LEAST), _LEAST, 1 / _LEAST))
        beta = float(np.clip((texts - used) / max(error, _LEAST), _LEAST, 1 / _LEAST))
        if abs(alpha / beta - ratio) <= _CHANGE * ratio:
            break
    ratio = alpha / beta
    weights = float((squares * along / (squares + ratio) ** 2).sum())
    error = outside + float((along * (ratio / (squares + ratio)) ** 2).sum())
    determinant = float(np.log(alpha + beta * squares).sum()) + (hidden - len(squares)) * np.log(alpha)
    return (
        hidden / 2 * np.log(alpha)
        + texts / 2 * np.log(beta / (2 * np.pi))
        - beta / 2 * error
        - alpha / 2 * weights
        - determinant / 2
    )
