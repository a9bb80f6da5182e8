"""What a study says of a claim."""

import itertools

import pytest

from wsr.report.document import VERDICTS
from wsr.statistics.interval import Interval
from wsr.studies.harness.verdict import above, below, verdict

SURELY, SURELY_NOT, OPEN = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1), Interval(0.2, -0.1, 0.5)
UNKNOWN = Interval(0.2, float("nan"), float("nan"))


@pytest.mark.parametrize(
    ("interval", "bound", "found"),
    [(SURELY, 0.0, True), (SURELY_NOT, 0.0, False), (OPEN, 0.0, None), (UNKNOWN, 0.0, None), (SURELY, 0.4, False)],
)
def test_an_interval_decides_or_leaves_open(interval, bound, found):
    assert above(interval, bound) is found
    assert below(interval, bound) is {True: False, False: True, None: None}[found]


def test_a_corrected_p_leaves_open_what_the_interval_alone_would_decide():
    assert above(SURELY, p=0.2) is None
    assert below(SURELY, p=0.2) is None
    assert above(SURELY, p=0.01) is True


def test_every_verdict_has_its_reason():
    assert verdict([]) == "not tested"
    for parts in itertools.chain.from_iterable(itertools.product((True, False, None), repeat=n) for n in (1, 2, 3)):
        found = verdict(parts)
        assert found in VERDICTS
        assert (found == "holds") == (set(parts) == {True})
        assert (found == "does not hold") == (set(parts) == {False})
        assert (found == "partly") == (True in parts and set(parts) != {True})
