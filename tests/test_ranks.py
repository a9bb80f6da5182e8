"""Ranks against SciPy, and means over populations against what sampling theory says."""

import numpy as np
import pytest
from scipy.stats import rankdata

from wsr.errors import WsrError
from wsr.statistics.ranks import mean_over_populations, ranks


def test_ranks_are_those_of_scipy():
    scores = np.random.default_rng(0).integers(0, 6, (40, 9)) / 7  # many ties
    np.testing.assert_array_equal(ranks(scores), rankdata(-scores, method="average", axis=1))
    np.testing.assert_array_equal(ranks(scores[0]), rankdata(-scores[0]))


def test_sums_in_another_order_are_tied():
    scores = np.array([0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1, 0.7])
    assert scores[0] != scores[1]
    assert ranks(scores).tolist() == [2.5, 2.5, 1.0]


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(WsrError, match="found 1 that are not"):
        ranks(np.array([0.5, np.nan]))


def test_an_interval_has_the_spread_between_populations_and_that_of_texts():
    random = np.random.default_rng(1)
    between, within = random.normal(0, 2.0, (40, 1, 1)), random.normal(0, 1.0, (1, 4000, 1))
    (both,) = mean_over_populations(between + within, generator=random)
    assert both.value == pytest.approx(between.mean() + within[0, 0, 0])
    wanted = 2 * 1.96 * np.sqrt(between.var(ddof=1) / 40 + 1.0)
    assert both.high - both.low == pytest.approx(wanted, rel=0.08)


def test_a_single_population_is_fixed():
    draws = np.random.default_rng(2).normal(0, 1.0, (1, 4000, 1))
    (own,) = mean_over_populations(draws, generator=np.random.default_rng(0))
    assert own.high - own.low == pytest.approx(2 * 1.96, rel=0.08)
