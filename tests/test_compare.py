import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from wsr.errors import WsrError
from wsr.statistics.barrier import barrier, barrier_interval
from wsr.statistics.better import mean_probability, probability_better
from wsr.statistics.chord import chord_difference
from wsr.statistics.difference import holm, mean_difference, paired_difference
from wsr.statistics.interval import mean_interval, share_interval
from wsr.statistics.sources import Sources


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
    found = probability_better(a, b, ties=ties, generator=generator())
    assert found.probability == pytest.approx(won / 35, abs=1e-12)
    assert (found.models_a, found.models_b, found.texts) == (7, 5, 4)
    assert 0 <= found.low <= found.high <= 1


def test_probability_is_the_mann_whitney_statistic():
    a, b, _ = groups(9, 6, 12, 0.3)
    b[0], b[1] = a[0], a[1]  # ties between whole models
    found = probability_better(a, b, generator=generator()).probability
    statistic = stats.mannwhitneyu(b.mean(axis=1), a.mean(axis=1)).statistic
    assert found == pytest.approx(statistic / (9 * 6), abs=1e-12)


def test_equal_models_tie_in_every_resample():
    draw = generator()
    same = np.tile(draw.normal(size=(1, 37)), (5, 1))
    found = probability_better(same, same[:3], generator=generator())
    assert (found.probability, found.p_value) == (0.5, 1)
    assert found.low < 0.5 < found.high
    found = probability_better(same, same[:3], ties="loss", generator=generator())
    assert (found.probability, found.low) == (0, 0)
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 3))


def test_texts_are_drawn_for_both_groups_together():
    # Every model of a is better on every text; texts differ far more than models. Unpaired draws would overlap.
    draw = generator()
    text = 100 * draw.normal(size=(1, 10))
    a, b = text + draw.uniform(0, 1, (6, 1)), text + draw.uniform(2, 3, (6, 1))
    found = probability_better(a, b, generator=generator())
    assert (found.probability, found.high) == (1, 1)
    assert found.low == pytest.approx(0.025 ** (1 / 6))


@pytest.mark.long
@pytest.mark.parametrize(("models", "shift"), [(3, 0.5), (3, 2), (10, 1), (20, 1)])
def test_interval_holds_the_truth(models, shift):
    held, tries = 0, 100
    for seed in range(tries):
        a, b, truth = groups(models, models, 20, shift, seed)
        found = probability_better(a, b, generator=generator(seed))
        held += found.low <= truth <= found.high
    assert held >= stats.binom.ppf(0.001, tries, 0.95)


def test_interval_is_reproducible_and_narrows_with_more_models():
    a, b, _ = groups(40, 40, 20, 0.5)
    found = probability_better(a, b, generator=generator(7))
    assert found == probability_better(a, b, generator=generator(7))
    few = probability_better(a[:8], b[:8], generator=generator(7))
    assert found.high - found.low < 0.7 * (few.high - few.low)
    wide = probability_better(a, b, confidence=0.99, generator=generator(7))
    assert wide.low < found.low
    assert wide.high > found.high


@pytest.mark.parametrize("seed", range(4))
def test_p_value_is_the_error_at_which_the_interval_ends_at_one_half(seed):
    a, b, _ = groups(9, 12, 30, 1.0, seed)
    p_value = probability_better(a, b, generator=generator()).p_value
    assert 0 < p_value < 1
    found = probability_better(a, b, confidence=1 - p_value, generator=generator())
    assert min(abs(found.low - 0.5), abs(found.high - 0.5)) < 1e-3


def test_copies_of_a_model_are_no_evidence():
    a, b, _ = groups(6, 6, 40, 1.5, seed=2)
    once = probability_better(a, b, generator=generator())
    fivefold = Sources(tuple("abcdef"), np.repeat(np.eye(6), 5, axis=0), "dataset")
    many = probability_better(np.repeat(a, 5, axis=0), b, sources_a=fivefold, generator=generator())
    for what in ("probability", "low", "high", "p_value", "sources"):
        assert getattr(many, what) == pytest.approx(getattr(once, what), abs=0.01)
    naive = probability_better(np.repeat(a, 5, axis=0), b, generator=generator())
    assert naive.high - naive.low < once.high - once.low


def test_influences_of_points_of_a_hull_are_those_of_its_corners():
    draw = generator()
    corners, hull = draw.normal(size=5), draw.dirichlet(np.ones(5), 40)
    of_points = Sources(tuple("abcde"), hull).influences(hull @ corners)
    weights = hull.mean(axis=0)
    np.testing.assert_allclose(of_points, weights * (corners - weights @ corners), atol=1e-12)
    assert Sources(tuple("abcde"), hull[:4]).influences((hull @ corners)[:4]) is None


@pytest.mark.parametrize(("names", "counted"), [("xy", "2 datasets"), ("x", "1 dataset")])
def test_few_sources_allow_no_interval(names, counted):
    few = Sources(tuple(names), np.repeat(np.eye(len(names)), 8, axis=0), "dataset")
    a, b = np.zeros((8 * len(names), 5)), np.ones((9, 5))
    found = probability_better(a, b, sources_a=few, generator=generator())
    assert (found.probability, found.low, found.high, found.p_value) == (1, 0, 1, 1)
    assert found.reason == f"group a comes from {counted}; an interval needs 3"
    found = probability_better(b, a, sources_b=few, generator=generator())
    assert (found.low, found.high, found.reason[:7]) == (0, 1, "group b")


def test_a_source_of_both_groups_counts_once():
    """The same members in both groups, each a little worse in b: what sets members apart cancels."""
    draw = generator()
    members = draw.normal(size=(12, 1)) + 0.01 * draw.normal(size=(12, 30))
    own = Sources(tuple("abcdefghijkl"), np.eye(12))
    shared = probability_better(members, members + 0.3, sources_a=own, sources_b=own, generator=generator())
    apart = probability_better(members, members + 0.3, generator=generator())
    assert shared.probability == apart.probability
    assert shared.high - shared.low < 0.9 * (apart.high - apart.low)


def test_draws_of_probe_texts_widen_the_interval():
    """Three draws, each of which favours the groups differently: more doubt than their mean alone shows."""
    a, b, _ = groups(20, 20, 50, 0.7, seed=1)
    draws = np.array([-2.0, 0.0, 2.0])[:, None, None]
    one = probability_better(a, b, generator=generator())
    three = probability_better(a + draws, np.stack([b] * 3), generator=generator())
    assert three.probability == one.probability
    assert three.high - three.low > 1.2 * (one.high - one.low)
    same = probability_better(np.stack([a] * 3), np.stack([b] * 3), generator=generator())
    assert (same.low, same.high) == pytest.approx((one.low, one.high), abs=0.02)
    wide, narrow = (
        mean_difference(a + own, np.stack([b] * 3), generator=generator()) for own in (draws, np.zeros((3, 1, 1)))
    )
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)
    plain = mean_difference(a, b, generator=generator())
    assert (narrow.low, narrow.high) == pytest.approx((plain.low, plain.high), abs=0.02)


def test_mean_over_targets_is_students_unless_targets_share_sources():
    values = generator().normal(1, 2, 8)
    alone = mean_interval(values, influences=[{f"of {k}": 3.0} for k in range(8)])
    assert alone == mean_interval(values)
    shared = mean_interval(values, influences=[{"a": 1.0, "b": -1.0, "c": 0.0}] * 8)
    # Of the variance of the sources, 2 * 3 / 2, the eighth is in the variance over targets.
    variance = values.var(ddof=1) / 8 + 3 * (1 - 1 / 8)
    assert shared.high - shared.value == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(variance))
    against = mean_interval(values, influences=[{"a": 1.0, "b": -1.0}, {"a": -1.0, "b": 1.0}] * 4)
    assert against == mean_interval(values)


def test_mean_probability_over_targets_has_a_floor():
    a, b, _ = groups(8, 8, 20, 9.0)
    found = [probability_better(a, b, generator=generator())] * 8
    unshared = [replace(own, influence={}) for own in found]
    mean = mean_probability(unshared)
    assert (mean.value, mean.high) == (1, 1)
    assert mean.low == pytest.approx(0.025 ** (1 / 8))
    assert mean_probability(unshared[:2]).low == 0
    with pytest.raises(WsrError, match="at least one comparison"):
        mean_probability([])


def test_a_chord_difference_is_the_mean_of_a_loop_over_points():
    draw = generator()
    members, hull = draw.normal(size=(4, 9)), draw.dirichlet(np.ones(4), 6)
    losses = draw.normal(size=(6, 9))
    each = [(losses[i] - sum(hull[i, k] * members[k] for k in range(4))).mean() for i in range(6)]
    found = chord_difference(losses, members, hull)
    assert found.mean == pytest.approx(np.mean(each))
    assert (found.below, found.points) == (sum(own < 0 for own in each), 6)
    again = chord_difference(np.stack([losses] * 3), np.stack([members] * 3), hull)
    assert (again.mean, again.low, again.high) == pytest.approx((found.mean, found.low, found.high))
    spread = np.array([-9.0, 0, 9])[:, None, None]
    assert chord_difference(losses + spread, np.stack([members] * 3), hull).high > found.high + 5


def test_members_and_texts_cancel_in_a_chord_difference():
    """Members differ by 100 and texts by 100; the points lie 0.1 below their chords."""
    draw = generator()
    members = 100 * draw.normal(size=(6, 1)) + 100 * draw.normal(size=(1, 50)) + 0.01 * draw.normal(size=(6, 50))
    hull = draw.dirichlet(np.ones(6), 20)
    bends = 0.1 * (1 - (hull**2).sum(axis=1, keepdims=True)) / (1 - (hull**2).sum(axis=1)).mean()
    found = chord_difference(hull @ members - bends, members, hull)
    assert found.mean == pytest.approx(-0.1)
    assert -0.11 < found.low < found.high < -0.09
    assert found.p_value < 1e-6


def test_the_spread_of_a_chord_difference_is_that_between_members():
    """Members bend by different amounts: the interval is Student's over these, whatever the number of points."""
    draw = generator()
    amounts, hull = np.array([0.05, 0.1, 0.2, 0.3]), draw.dirichlet(np.ones(4), 4000)
    losses = -(hull * (1 - hull)) @ amounts[:, None]
    found = chord_difference(losses, np.zeros((4, 1)), hull)
    share = (hull * (1 - hull)).mean(axis=0).sum()
    half = stats.t.ppf(0.975, 3) * share * amounts.std(ddof=1) / 2
    assert found.high - found.mean == pytest.approx(half, rel=0.05)


def test_few_corners_or_points_allow_no_interval_of_a_chord_difference():
    draw = generator()
    hull = draw.dirichlet(np.ones(4), 10)
    members, losses = draw.normal(size=(4, 9)), draw.normal(size=(10, 9))
    found = chord_difference(losses, members, hull, sources=["x", "x", "y", "y"])
    assert (found.low, found.high, found.p_value) == (-math.inf, math.inf, 1)
    assert found.reason == "the corners come from 2 sources; an interval needs 3"
    found = chord_difference(losses[:4], members, hull[:4])
    assert "4 points are too few for corners of 4 sources" in found.reason


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


def test_barrier_interval_over_draws_is_that_of_a_loop_over_resamples():
    draw = generator()
    alphas = np.linspace(0, 1, 5)
    bump = np.sin(np.pi * alphas)[:, None]
    losses = 1 + np.stack([height * bump + 0.1 * draw.normal(size=(5, 25)) for height in (0.1, 0.3, 0.7)])
    found = barrier_interval(alphas, losses, resamples=3000, generator=generator())
    barriers = []
    for _ in range(3000):
        # One draw fewer than there are: Rao and Wu 1988.
        means = losses[draw.integers(0, 3, 2)].mean(axis=0)[:, draw.integers(0, 25, 25)].mean(axis=1)
        barriers.append(max(m - (1 - x) * means[0] - x * means[-1] for x, m in zip(alphas, means, strict=True)))
    assert found.value == pytest.approx(barrier(alphas, losses.mean(axis=(0, 2))))
    np.testing.assert_allclose([found.low, found.high], np.quantile(barriers, [0.025, 0.975]), atol=0.02)
    alone = barrier_interval(alphas, losses.mean(axis=0), resamples=3000, generator=generator())
    assert found.high - found.low > 3 * (alone.high - alone.low)


def test_mean_interval_is_students():
    values = generator().normal(3, 2, 7)
    low, high = stats.t.interval(0.9, 6, loc=values.mean(), scale=stats.sem(values))
    found = mean_interval(values, 0.9)
    np.testing.assert_allclose([found.value, found.low, found.high], [values.mean(), low, high], rtol=1e-12)


@pytest.mark.parametrize("yes", [0, 1, 5, 14])
def test_share_interval_is_that_of_clopper_and_pearson(yes):
    expected = stats.binomtest(yes, 14).proportion_ci(0.9, method="exact")
    found = share_interval((np.arange(14) < yes).astype(float), 0.9)
    np.testing.assert_allclose([found.value, found.low, found.high], [yes / 14, *expected], rtol=1e-9, atol=1e-12)


def test_share_interval_holds_the_mean_of_shares_as_often_as_promised():
    draw = generator()
    held = []
    for _ in range(500):
        found = share_interval(draw.beta(0.3, 0.1, 14))
        held.append(found.low <= 0.75 <= found.high)
    assert np.mean(held) >= 0.95
    with pytest.raises(WsrError, match="between 0 and 1"):
        share_interval(np.array([0.5, 1.5]))


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


def crossed(models, texts, seed, *, paired=False, model_spread=1.0):
    """Groups of equal means whose models, texts, and texts by group differ; paired ones share an effect of the seed."""
    draw = generator(seed)
    text, own = draw.normal(size=(1, texts)), 0.7 * draw.normal(size=(1, texts))
    shared = 3 * draw.normal(size=(models, 1)) if paired else 0.0
    a, b = (
        shared + model_spread * draw.normal(size=(models, 1)) + text + 0.5 * draw.normal(size=(models, texts))
        for _ in range(2)
    )
    return a + own, b


@pytest.mark.parametrize(
    ("paired", "models", "model_spread", "coverage"),
    [(False, 3, 0.1, 0.94), (False, 5, 1.0, 0.94), (True, 2, 1.0, 0.89), (True, 3, 1.0, 0.94), (True, 10, 0.1, 0.94)],
)
def test_interval_of_a_mean_difference_holds_the_truth(paired, models, model_spread, coverage):
    """As often as the docstring says, which is what 600 draws showed; here 200, within three standard errors."""
    held, false, tries = 0, 0, 200
    for seed in range(tries):
        a, b = crossed(models, 20, seed, paired=paired, model_spread=model_spread)
        found = mean_difference(a, b, paired=paired, resamples=200, generator=generator(seed))
        held += found.low <= 0 <= found.high
        false += found.p_value < 0.05
    assert held / tries >= coverage - 3 * math.sqrt(coverage * (1 - coverage) / tries)
    assert held + false == tries  # the p-value is that of the interval


def test_mean_difference_of_many_models_is_the_t_test():
    # Texts that all say the same leave the models: Welch's test, and paired the paired test.
    draw = generator()
    a, b = draw.normal(0.3, 1, 30), draw.normal(0, 2, 30)
    for paired, expected in ((False, stats.ttest_ind(a, b, equal_var=False)), (True, stats.ttest_rel(a, b))):
        found = mean_difference(
            np.repeat(a[:, None], 4, axis=1),
            np.repeat(b[:, None], 4, axis=1),
            paired=paired,
            resamples=40_000,
            generator=generator(),
        )
        low, high = expected.confidence_interval()
        np.testing.assert_allclose([found.mean, found.low, found.high], [a.mean() - b.mean(), low, high], atol=0.02)
        assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)


def test_mean_difference_of_single_models_is_over_the_texts():
    draw = generator()
    a, b = draw.normal(0.2, 1, (1, 60)), draw.normal(0, 1, (1, 60))
    found = mean_difference(a, b, resamples=40_000, generator=generator())
    expected = stats.ttest_rel(a[0], b[0])
    low, high = expected.confidence_interval()
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.01)
    assert found.p_value == pytest.approx(expected.pvalue, abs=0.01)
    alone = mean_difference(a[:, :1], b[:, :1], generator=generator())
    assert (alone.low, alone.high, alone.p_value) == (-math.inf, math.inf, 1)
    same = mean_difference(a, a, generator=generator())
    assert (same.mean, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    with pytest.raises(WsrError, match="expected as many models in b as in a, found 2 and 1"):
        mean_difference(a, np.concatenate([b, b]), paired=True, generator=generator())


@pytest.mark.parametrize("models", [3, 5, 10])
def test_p_value_of_equal_groups_is_seldom_small(models):
    found, tries = 0, 100
    for seed in range(tries):
        a, b, _ = groups(models, models, 20, 0.0, seed)
        found += probability_better(a, b, generator=generator(seed)).p_value < 0.05
    assert found <= stats.binom.ppf(0.999, tries, 0.05)


def test_holm_is_the_step_down_procedure():
    # Holm 1979: reject from the smallest on while p_(k) <= level / (m + 1 - k).
    draw = generator()
    for _ in range(20):
        values = draw.uniform(0, 1, 6) ** 3
        adjusted = holm(values)
        for level in (0.01, 0.05, 0.3):
            rejected = np.zeros(6, bool)
            for step, number in enumerate(np.argsort(values)):
                if values[number] > level / (6 - step):
                    break
                rejected[number] = True
            np.testing.assert_array_equal(adjusted <= level, rejected)
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([]).size == 0
    with pytest.raises(WsrError, match="between 0 and 1"):
        holm([0.5, float("nan")])
