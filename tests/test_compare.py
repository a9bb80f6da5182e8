import math

import numpy as np
import pytest
from scipy import stats

from wsr.compare import barrier, barrier_interval, mean_interval, paired_difference, probability_better
from wsr.errors import WsrError


def generator(seed=0):
    return np.random.default_rng(seed)


def groups(models_a, models_b, texts, shift, seed=0):
    """Normal model effects, a shared text effect and noise; returns losses and the true P_B."""
    draw = generator(seed)
    text = draw.normal(size=(1, texts))
    a = draw.normal(size=(models_a, 1)) + text + 0.5 * draw.normal(size=(models_a, texts))
    b = draw.normal(size=(models_b, 1)) + text + 0.5 * draw.normal(size=(models_b, texts)) + shift
    truth = stats.norm.cdf(shift / math.sqrt(2 * (1 + 0.25 / texts)))
    return a, b, truth


@pytest.mark.parametrize("ties", ["half", "loss"])
def test_probability_is_that_of_a_loop_over_all_pairs(ties):
    draw = generator()
    a, b = draw.integers(0, 3, (7, 4)).astype(float), draw.integers(0, 3, (5, 4)).astype(float)
    won = 0.0
    for row in a:
        for other in b:
            won += (row.mean() < other.mean()) + (0.5 if ties == "half" else 0.0) * (row.mean() == other.mean())
    found = probability_better(a, b, ties=ties, resamples=50, generator=generator())
    assert found.probability == pytest.approx(won / 35, abs=1e-12)
    assert (found.models_a, found.models_b, found.texts) == (7, 5, 4)
    assert 0 <= found.low <= found.high <= 1


def test_probability_is_the_mann_whitney_statistic():
    a, b, _ = groups(9, 6, 12, 0.3)
    b[0], b[1] = a[0], a[1]  # ties between whole models
    found = probability_better(a, b, resamples=10, generator=generator()).probability
    statistic = stats.mannwhitneyu(b.mean(axis=1), a.mean(axis=1)).statistic
    assert found == pytest.approx(statistic / (9 * 6), abs=1e-12)


def test_equal_models_tie_in_every_resample():
    draw = generator()
    same = np.tile(draw.normal(size=(1, 37)), (5, 1))
    found = probability_better(same, same[:3], generator=generator())
    assert (found.probability, found.low, found.high) == (0.5, 0.5, 0.5)
    found = probability_better(same, same[:3], ties="loss", generator=generator())
    assert (found.probability, found.low, found.high) == (0, 0, 0)


def test_texts_are_drawn_for_both_groups_together():
    # Every model of a is better on every text; texts differ far more than models. Unpaired draws would overlap.
    draw = generator()
    text = 100 * draw.normal(size=(1, 10))
    a, b = text + draw.uniform(0, 1, (6, 1)), text + draw.uniform(2, 3, (6, 1))
    found = probability_better(a, b, generator=generator())
    assert (found.probability, found.low, found.high) == (1, 1, 1)


def test_interval_is_that_of_a_loop_over_resamples():
    a, b, _ = groups(6, 5, 8, 0.5, seed=3)
    draw, probabilities = generator(1), []
    for _ in range(4000):
        texts, rows_a, rows_b = draw.integers(0, 8, 8), draw.integers(0, 6, 6), draw.integers(0, 5, 5)
        means_a, means_b = a[rows_a][:, texts].mean(axis=1), b[rows_b][:, texts].mean(axis=1)
        probabilities.append(np.mean(means_a[:, None] < means_b[None, :]))
    found = probability_better(a, b, resamples=4000, generator=generator())
    expected = np.quantile(probabilities, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], expected, atol=0.04)


@pytest.mark.parametrize(
    ("models", "shift", "coverage"), [(3, 0.5, 0.91), (3, 1, 0.79), (3, 2, 0.47), (10, 1, 0.92), (20, 1, 0.93)]
)
def test_interval_holds_the_truth_as_often_as_the_docstring_says(models, shift, coverage):
    """The figures are those of 300 draws; here 120, which vary by three standard errors."""
    held, tries = 0, 120
    for seed in range(tries):
        a, b, truth = groups(models, models, 20, shift, seed)
        found = probability_better(a, b, resamples=200, generator=generator(seed))
        held += found.low <= truth <= found.high
    assert abs(held / tries - coverage) <= 3 * math.sqrt(coverage * (1 - coverage) / tries)


def test_interval_is_reproducible_and_narrows_with_more_models():
    a, b, _ = groups(40, 40, 20, 0.5)
    found = probability_better(a, b, generator=generator(7))
    assert found == probability_better(a, b, generator=generator(7))
    few = probability_better(a[:8], b[:8], generator=generator(7))
    assert found.high - found.low < 0.7 * (few.high - few.low)
    wide = probability_better(a, b, confidence=0.99, generator=generator(7))
    assert wide.low < found.low
    assert wide.high > found.high


def test_refuses_losses_that_cannot_be_compared():
    bad = np.zeros((3, 4))
    bad[1, 2] = np.nan
    with pytest.raises(WsrError, match=r"losses b: models \[1\] have losses that are not finite"):
        probability_better(np.zeros((2, 4)), bad, generator=generator())
    with pytest.raises(WsrError, match="at least one model"):
        probability_better(np.zeros((0, 4)), np.zeros((2, 4)), generator=generator())


def test_barrier_is_the_highest_point_above_the_chord():
    alphas = np.array([0.5, 0.0, 1.0, 0.25, 2.0])  # any order; alpha 2 is not between
    losses = np.array([3.0, 1.0, 2.0, 2.5, 99.0])
    assert barrier(alphas, losses) == pytest.approx(3.0 - 1.5)
    assert barrier(alphas, np.array([0.0, 1.0, 2.0, 0.5, 99.0])) == 0
    for missing in (0.0, 1.0):
        kept = alphas != missing
        with pytest.raises(WsrError, match=f"alpha {missing:g} must be among the points"):
            barrier(alphas[kept], losses[kept])


def test_barrier_takes_alphas_in_float32():
    alphas = np.linspace(0, 1, 11, dtype=np.float32)
    assert barrier(alphas, np.array([0, *[1.0] * 9, 0])) == pytest.approx(1.0, abs=1e-6)


def test_barrier_interval_is_that_of_a_loop_over_resamples():
    draw = generator()
    alphas = np.linspace(0, 1, 5)
    losses = 1 + 0.3 * np.sin(np.pi * alphas)[:, None] + 0.2 * draw.normal(size=(5, 25))
    found = barrier_interval(alphas, losses, resamples=3000, generator=generator())
    barriers = []
    for _ in range(3000):
        means = losses[:, draw.integers(0, 25, 25)].mean(axis=1)
        barriers.append(max(m - (1 - x) * means[0] - x * means[-1] for x, m in zip(alphas, means, strict=True)))
    assert found.value == pytest.approx(barrier(alphas, losses.mean(axis=1)))
    np.testing.assert_allclose([found.low, found.high], np.quantile(barriers, [0.025, 0.975]), atol=0.02)


def test_mean_interval_is_students():
    values = generator().normal(3, 2, 7)
    low, high = stats.t.interval(0.9, 6, loc=values.mean(), scale=stats.sem(values))
    found = mean_interval(values, 0.9)
    np.testing.assert_allclose([found.value, found.low, found.high], [values.mean(), low, high], rtol=1e-12)


def test_mean_interval_of_one_value_is_unbounded():
    found = mean_interval(np.array([2.0]))
    assert (found.value, found.low, found.high) == (2.0, -math.inf, math.inf)
    with pytest.raises(WsrError, match="finite values"):
        mean_interval(np.array([1.0, np.nan]))
    with pytest.raises(WsrError, match="finite values"):
        mean_interval(np.array([]))


def test_paired_difference_is_the_paired_t_test():
    draw = generator()
    a = draw.normal(size=8)
    b = a + draw.normal(0.1, 0.3, 8)
    b[2] = a[2]
    found = paired_difference(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([found.low, found.high], [expected.low, expected.high], rtol=1e-10)
    assert found.mean == pytest.approx(np.mean(a - b))
    assert (found.wins, found.ties, found.losses) == (np.sum(a > b), 1, np.sum(a < b))
