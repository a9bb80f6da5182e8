"""The gain of a start is that of the metric that it stands for."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from wsr.report.document import Section
from wsr.studies import plain_base as study
from wsr.studies.centroid_start import MODES
from wsr.studies.few_shot import FewShot, right_answers
from wsr.studies.fewer_examples import fewer_examples


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


def test_gains_on_few_and_on_many_examples_are_compared_target_by_target():
    """Against a paired t-test of SciPy."""
    draw = np.random.default_rng(0)
    targets = [f"t{number}" for number in range(6)]
    level = dict(zip(targets, draw.normal(0, 0.1, 6), strict=True))  # of a target, on any number of examples
    gain = {
        (mode, size, target): level[target] + more * (size == 16) + draw.normal(0, 0.003)
        for mode, more in (("bitfit", 0.02), ("head", 0.0))
        for size in (64, 16, "all")
        for target in targets
    }
    rows = [
        {"group": f"gain, {mode}", "dataset": target, "metric": "gain", "value": value, "examples": size}
        for (mode, size, target), value in gain.items()
    ]
    rows.append({"group": "centroid, head", "dataset": "t0", "metric": "accuracy", "value": 0.5, "examples": 16})
    found, section = fewer_examples.__wrapped__(SimpleNamespace(targets=targets, command="here"), rows)
    for row, mode in zip(found, ("bitfit", "head"), strict=True):
        few, most = ([gain[mode, size, target] for target in targets] for size in (16, "all"))
        low, high = stats.ttest_rel(few, most).confidence_interval()
        assert row["value"] == pytest.approx(np.mean(few) - np.mean(most))
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert (row["group"], row["examples"]) == (f"gain, {mode}", "16 and all")
    assert section.verdict == "holds in part"  # with BitFit, and no effect on the head
    assert [row["name"] for row in section.figures[0].data["rows"]] == ["16 examples", "64 examples", "all examples"]


def test_one_target_has_a_difference_of_gains_and_no_interval():
    rows = [
        {"group": f"gain, {mode}", "dataset": "t0", "metric": "gain", "value": value, "examples": size}
        for mode in ("bitfit", "head")
        for size, value in ((16, 0.03), (64, 0.01))
    ]
    found, section = fewer_examples.__wrapped__(SimpleNamespace(targets=["t0"], command="here"), rows)
    assert all("low" not in row for row in found)
    assert section.verdict == "open"
    assert section.measured == "bitfit: +2.0 points more; head: +2.0 points more"
    json.dumps(section.figures[0].data, allow_nan=False)


def test_gains_from_two_checkpoints_are_compared_target_by_target(monkeypatch):
    """Against a paired t-test of SciPy."""
    draw = np.random.default_rng(0)
    targets = [f"t{number}" for number in range(6)]
    gain = {
        (base, mode): draw.normal(0.02 * (base == "plain"), 0.003, 6) for base in ("plain", "tuned") for mode in MODES
    }

    def trained(context, plan):
        rows = [
            {"group": f"gain, {mode}", "dataset": target, "metric": "gain", "value": value}
            for mode in MODES
            for target, value in zip(targets, gain[context.name, mode], strict=True)
        ]
        return rows, Section("The centroid starts better", "?", "", "", "open", headline="From it.")

    monkeypatch.setattr(study, "centroid_start", trained)
    contexts = [SimpleNamespace(name=name, targets=targets, command="here") for name in ("plain", "tuned")]
    alone, (rows, section) = study.plain_base.__wrapped__(*contexts, FewShot(examples=16), "It is small.")
    assert [row["base"] for row in alone[0]] == [study.PLAIN] * 12 + [study.TUNED] * 12
    assert alone[1].text == ("It is small.",)
    assert alone[1].headline == "From a checkpoint that was pretrained only: from it."
    for row, mode in zip(rows, MODES, strict=True):
        low, high = stats.ttest_rel(gain["plain", mode], gain["tuned", mode]).confidence_interval()
        assert (row["low"], row["high"]) == pytest.approx((low, high))
        assert (row["group"], row["examples"]) == (f"gain, {mode}", "16")
    assert section.verdict == "holds"
