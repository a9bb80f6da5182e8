"""Which members learned: the exact binomial test against sums written out, and what a region leaves out."""

from math import comb

import numpy as np
import pytest

from wsr.data.metrics import score
from wsr.region.learned import better_than_chance


def tail(right: int, texts: int, chance: float) -> float:
    """The probability of at least ``right`` of ``texts``, each with probability ``chance``."""
    return sum(comb(texts, k) * chance**k * (1 - chance) ** (texts - k) for k in range(right, texts + 1))


@pytest.mark.parametrize("chance", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("texts", [20, 75, 200])
def test_an_accuracy_is_better_where_the_binomial_tail_is_below_the_level(chance, texts):
    for right in range(texts):
        assert better_than_chance(right / texts, chance, texts, "accuracy") == (tail(right, texts, chance) < 0.05)


def test_everything_right_is_better_than_any_constant_prediction():
    # 72 of 75 texts are of one class: two standard errors above 0.96 are 1.005.
    assert better_than_chance(1.0, 72 / 75, 75, "accuracy")
    assert better_than_chance(1.0, 39 / 40, 40, "accuracy")  # a tail of 0.36
    assert not better_than_chance(1.0, 1.0, 40, "accuracy")  # the test texts are of one class


@pytest.mark.parametrize("metric", ["f1", "macro_f1", "macro_recall", "matthews"])
def test_everything_right_is_better_in_any_metric_of_classes(metric):
    # 72 of 75 texts are of one class; predicting it everywhere has this score.
    labels = np.array([1] * 72 + [0] * 3)
    chance = score(metric, labels, np.ones_like(labels))
    assert better_than_chance(score(metric, labels, labels), chance, 75, metric)
    assert not better_than_chance(chance, chance, 75, metric)
    assert better_than_chance(1.0, 0.0, 3, metric)  # two standard errors above 0 are 1.15


def test_a_correlation_of_two_texts_says_nothing():
    assert not better_than_chance(1.0, 0.0, 2, "pearson")


def test_what_is_not_a_number_is_no_better():
    assert not better_than_chance(float("nan"), 0.5, 100, "accuracy")
