"""The gain of a start is that of the metric that it stands for."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from wsr.studies.few_shot import FewShot, right_answers


def target(labels, *, regression):
    """What of a dataset is looked at."""
    return SimpleNamespace(regression=regression, splits={"test": SimpleNamespace(labels=labels)})


def test_right_answers_average_to_the_accuracy():
    draw = np.random.default_rng(0)
    labels, predictions = draw.integers(0, 3, 50), draw.integers(0, 3, 50)
    right = right_answers.__wrapped__(target(labels, regression=False), predictions)
    assert right.mean() == sum(a == b for a, b in zip(labels, predictions, strict=True)) / 50


def test_of_a_regression_they_average_to_pearsons_correlation():
    draw = np.random.default_rng(0)
    labels = draw.normal(size=50)
    predictions = labels + draw.normal(size=50)
    right = right_answers.__wrapped__(target(labels, regression=True), predictions)
    assert right.mean() == pytest.approx(stats.pearsonr(labels, predictions).statistic)
    assert right_answers.__wrapped__(target(labels, regression=True), np.ones(50)).mean() == 0


@pytest.mark.parametrize("examples", [16, 48, 0])
def test_few_examples_are_passed_over_until_there_are_enough_steps(dataset, examples):
    plan = FewShot(examples=examples, least_steps=40)
    job = plan.job(dataset, seed=0)
    assert job.steps >= 40
    assert job.steps == 40 or job.recipe.epochs == plan.recipe.epochs
