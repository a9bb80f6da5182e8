"""Power against simulated t-tests and published numbers, and the page against the kept rows."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from wsr.statistics.power import power, smallest_effect, units_needed


@pytest.mark.parametrize(("effect", "units"), [(0.0, 5), (0.5, 10), (1.5, 4), (-0.8, 14)])
def test_power_is_the_share_of_simulated_tests_that_find_the_effect(effect, units):
    draws = effect + np.random.default_rng(0).standard_normal((20_000, units))
    found = (ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean()
    assert power(effect, 1.0, units) == pytest.approx(found, abs=0.012)  # 3.5 standard errors of the simulation


def test_numbers_of_units_are_those_of_the_tables():
    # Cohen, Statistical power analysis, 1988, and G*Power for one sample: d 0.5 and 0.8 at 80 %, two-sided 5 %.
    assert units_needed(0.5, 1.0) == 34
    assert units_needed(0.8, 1.0) == 15
    assert units_needed(1e-4, 1.0) is None


def test_the_smallest_effect_has_the_wanted_power():
    for units in (4, 14):
        assert power(smallest_effect(2.0, units), 2.0, units) == pytest.approx(0.8)


def test_without_spread_an_effect_is_found_and_nothing_is_not():
    assert (power(1.0, 0.0, 4), power(0.0, 0.0, 4), smallest_effect(0.0, 4)) == (1.0, 0.0, 0.0)


def test_the_page_is_what_the_kept_rows_say(capsys):
    from experiments.power import PAGE, main
    from wsr.cli.program import call

    assert call(PAGE, main, []) == 0
    assert "no difference" in capsys.readouterr().out
