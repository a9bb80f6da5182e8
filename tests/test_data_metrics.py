"""Each metric against its formula, written out."""

import numpy as np
import pytest

from wsr.data.metrics import score
from wsr.errors import WsrError

LABELS = np.array([0, 0, 1, 1, 1, 2, 0, 1], np.int32)
PREDICTIONS = np.array([0, 1, 1, 0, 1, 2, 0, 2], np.int32)
# Per class: hits, predicted, actual.
COUNTS = {0: (2, 3, 3), 1: (2, 3, 4), 2: (1, 2, 1)}


def test_multiclass_metrics():
    f1 = [2 * hits / (predicted + actual) for hits, predicted, actual in COUNTS.values()]
    recall = [hits / actual for hits, _, actual in COUNTS.values()]
    assert score("accuracy", LABELS, PREDICTIONS) == pytest.approx(5 / 8)
    assert score("macro_f1", LABELS, PREDICTIONS) == pytest.approx(np.mean(f1))
    assert score("macro_recall", LABELS, PREDICTIONS) == pytest.approx(np.mean(recall))


def test_two_class_metrics():
    labels, predictions = np.array([1, 1, 1, 0, 0, 1]), np.array([1, 0, 1, 1, 0, 1])
    hits, false_alarms, misses, rejections = 3, 1, 1, 1
    assert score("f1", labels, predictions) == pytest.approx(2 * hits / (2 * hits + false_alarms + misses))
    product = (hits + false_alarms) * (hits + misses) * (rejections + false_alarms) * (rejections + misses)
    expected = (hits * rejections - false_alarms * misses) / np.sqrt(product)
    assert score("matthews", labels, predictions) == pytest.approx(expected)


def test_correlations():
    labels, predictions = np.array([0.0, 1, 2, 3, 5], np.float32), np.array([0.1, 0.2, 0.9, 0.4, 9], np.float32)
    assert score("pearson", labels, predictions) == pytest.approx(np.corrcoef(labels, predictions)[0, 1], abs=1e-5)
    ranks = np.argsort(np.argsort(predictions))
    assert score("spearman", labels, predictions) == pytest.approx(np.corrcoef(np.arange(5), ranks)[0, 1], abs=1e-5)


@pytest.mark.parametrize("metric", ["pearson", "spearman", "matthews", "f1"])
def test_constant_predictions_score_zero_and_not_nan(metric):
    assert score(metric, np.array([0, 1, 1]), np.array([0, 0, 0])) == 0.0


def test_an_unknown_metric_lists_those_there_are():
    with pytest.raises(WsrError, match="accuracy, f1, macro_f1"):
        score("acc", LABELS, PREDICTIONS)
