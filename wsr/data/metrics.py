"""Metrics by name, as scikit-learn and SciPy compute them."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Real

from wsr.errors import WsrError

Values = Real[np.ndarray, " texts"]


def score(metric: str, labels: Values, predictions: Values) -> float:
    """Returns a metric of predictions.

    Args:
      metric: a name in ``METRICS``. ``f1`` is that of class 1 against class 0; ``macro_f1`` and ``macro_recall`` are
        means over the classes; ``matthews`` is Matthews' correlation coefficient. ``pearson`` and ``spearman`` are
        correlations for regression, and 0 for constant predictions.
      labels: the number of each text's class, or real numbers for regression.
      predictions: the same, as predicted.

    Raises:
      WsrError: if there is no such metric.

    Example:
      >>> import numpy as np
      >>> from wsr.data.metrics import score
      >>> score("accuracy", np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]))
      0.75
    """
    if metric not in METRICS:
        raise WsrError(f"no metric is called {metric!r}; choose one of {', '.join(METRICS)}")
    return float(METRICS[metric](labels, predictions))


def _accuracy(labels: Values, predictions: Values) -> float:
    return np.mean(labels == predictions)


def _f1(labels: Values, predictions: Values) -> float:
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, zero_division=0)


def _macro_f1(labels: Values, predictions: Values) -> float:
    from sklearn.metrics import f1_score

    return f1_score(labels, predictions, average="macro", zero_division=0)


def _macro_recall(labels: Values, predictions: Values) -> float:
    from sklearn.metrics import recall_score

    # Only over classes among the labels: a class that occurs only in predictions has no recall.
    return recall_score(labels, predictions, labels=np.unique(labels), average="macro", zero_division=0)


def _matthews(labels: Values, predictions: Values) -> float:
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(labels, predictions)


def _pearson(labels: Values, predictions: Values) -> float:
    from scipy.stats import pearsonr

    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return pearsonr(labels.astype(np.float64), predictions.astype(np.float64)).statistic


def _spearman(labels: Values, predictions: Values) -> float:
    from scipy.stats import spearmanr

    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    return spearmanr(labels, predictions).statistic


METRICS: dict[str, Callable[[Values, Values], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "macro_recall": _macro_recall,
    "matthews": _matthews,
    "pearson": _pearson,
    "spearman": _spearman,
}
REGRESSION_METRICS = ("pearson", "spearman")
