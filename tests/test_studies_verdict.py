"""The five verdicts: what an interval says about a part, and what the parts say about a claim."""

import itertools

import numpy as np
import pytest
from scipy import stats

from wsr.report.document import VERDICTS, Section
from wsr.statistics.interval import Interval
from wsr.studies.harness.verdict import above, all_of, any_of, below, power_told, reached, smallest_effect, verdict
from wsr.studies.random_directions import judged

SURELY, SURELY_NOT, OPEN = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.2, -0.1, 0.5)
SMALL, SMALL_AND_SURE = Interval(0.0, -0.004, 0.006), Interval(0.004, 0.002, 0.006)
UNKNOWN = Interval(0.2, float("nan"), float("nan"))
NONE = Interval(0.2, -float("inf"), float("inf"))
OPPOSITE = {"holds": "refuted", "refuted": "holds", "no effect": "no effect", "open": "open"}


@pytest.mark.parametrize(
    ("interval", "bound", "margin", "found"),
    [
        (SURELY, 0.0, 0.0, "holds"),
        (SURELY_NOT, 0.0, 0.0, "refuted"),
        (OPEN, 0.0, 0.0, "open"),
        (UNKNOWN, 0.0, 1.0, "open"),
        (NONE, 0.0, 1.0, "open"),
        (SURELY, 0.4, 0.0, "refuted"),
        (SMALL, 0.0, 0.01, "no effect"),
        (SMALL, 0.0, 0.005, "open"),
        (SMALL, 0.0, 0.0, "open"),
        (SMALL_AND_SURE, 0.0, 0.01, "holds"),
        (OPEN, 0.0, 0.2, "open"),
        (OPEN, 0.2, 0.4, "no effect"),
    ],
)
def test_an_interval_decides_or_leaves_open(interval, bound, margin, found):
    assert above(interval, bound, margin=margin) == found
    assert below(interval, bound, margin=margin) == OPPOSITE[found]


def test_a_corrected_p_leaves_open_what_the_interval_alone_would_decide():
    assert above(SURELY, p=0.2) == below(SURELY, p=0.2) == above(SURELY_NOT, p=0.05) == "open"
    assert above(SURELY, p=0.01) == "holds"
    assert above(SMALL_AND_SURE, p=0.2, margin=0.01) == "no effect"


TABLE = {
    "": "not tested",
    "H": "holds",
    "R": "refuted",
    "N": "no effect",
    "O": "open",
    "HR": "holds in part",
    "HN": "holds in part",
    "HO": "holds in part",
    "RN": "refuted",
    "RO": "refuted",
    "NO": "open",
    "HRN": "holds in part",
    "HRO": "holds in part",
    "HNO": "holds in part",
    "RNO": "refuted",
    "HRNO": "holds in part",
}
WORDS = {"H": "holds", "R": "refuted", "N": "no effect", "O": "open"}


def test_every_combination_of_parts_has_its_verdict():
    assert {frozenset(combination) for combination in TABLE} == {
        frozenset(own) for size in range(5) for own in itertools.combinations(WORDS, size)
    }
    for combination, expected in TABLE.items():
        for order in itertools.permutations(combination):
            assert verdict(WORDS[letter] for letter in [*order, *order]) == expected
    assert set(TABLE.values()) == set(VERDICTS)


def test_a_part_of_several_conditions_is_as_good_as_its_worst_or_its_best():
    assert all_of(["holds", "holds"]) == any_of(["holds", "refuted", "open"]) == "holds"
    assert all_of(["holds", "refuted", "open"]) == any_of(["refuted", "refuted"]) == "refuted"
    assert all_of(["holds", "open", "no effect"]) == any_of(["refuted", "open", "no effect"]) == "open"
    assert all_of(["holds", "no effect"]) == any_of(["refuted", "no effect"]) == "no effect"
    assert all_of([]) == any_of([]) == "open"
    assert [reached(True), reached(False)] == ["holds", "refuted"]


def test_an_effect_of_the_smallest_size_is_shown_in_80_of_100_repetitions():
    generator, error = np.random.default_rng(0), 0.3
    effect = smallest_effect(Interval(0.0, -1.96 * error, 1.96 * error))
    estimates = generator.normal(effect, error, 4000)
    shown = sum(above(Interval(own, own - 1.96 * error, own + 1.96 * error)) == "holds" for own in estimates)
    assert stats.binom.ppf(0.001, 4000, 0.8) <= shown <= stats.binom.ppf(0.999, 4000, 0.8)


def test_the_power_is_told_where_there_are_intervals():
    assert power_told({"a": Interval(0, -0.0196, 0.0196), "b": NONE}) == (
        "Smallest effect that these data show with 80 % power: 0.028 nats (a)."
    )
    assert power_told({"": Interval(0, -0.0196, 0.0196)}, "points", scale=100).endswith(": 2.8 points.")
    many = {str(k): Interval(0, -0.01 * k, 0.01 * k) for k in range(1, 6)}
    assert power_told(many).endswith(": 0.014 to 0.071 nats, depending on the comparison.")
    assert power_told({"b": NONE}) == power_told({}) == ""


@pytest.mark.parametrize(
    ("earlier", "word"), [("partly", "holds in part"), ("does not hold", "refuted"), ("not settled", "open")]
)
def test_documents_of_earlier_versions_are_read_with_the_new_words(earlier, word):
    assert Section("title", "question", "paper", "measured", earlier).verdict == word


@pytest.mark.parametrize(
    ("rise", "home", "expected"),
    [
        ((0.03, 0.05), (-0.01, 0.01), "holds"),
        ((0.0, 0.001), (-0.01, 0.01), "refuted"),  # no step of this length hurts
        ((0.03, 0.05), (0.03, 0.05), "refuted"),  # the way to the pretrained model hurts as well
        ((0.01, 0.05), (-0.01, 0.01), "open"),
        ((0.03, 0.05), (0.01, 0.05), "open"),
    ],
)
def test_a_random_step_hurts_only_if_it_does_and_the_ways_to_the_origin_do_not(rise, home, expected):
    zero = Interval(0.0, -0.001, 0.001)
    assert judged(Interval(0.0, *rise), zero, Interval(0.0, *home)) == expected
