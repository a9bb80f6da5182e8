"""Error bounds of points against simulated laws of errors."""

import numpy as np
import pytest

from wsr.engine.held_out import error_bounds
from wsr.engine.lattice import Interpolation, lattice
from wsr.geometry import sampling

LINEAR = Interpolation.through(lattice(2, 1), 1)
LAWS = {
    "exponential": lambda generator, size: generator.exponential(size=size),
    "half normal": lambda generator, size: np.abs(generator.normal(size=size)),
    "uniform": lambda generator, size: generator.uniform(size=size),
    "lognormal": lambda generator, size: generator.lognormal(size=size),
    "mixed": lambda generator, size: generator.exponential(size=size) * generator.choice([1, 10], size, p=[0.9, 0.1]),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("held", [6, 12, 24, 60])
def test_a_point_and_the_mean_exceed_their_bounds_no_more_often_than_stated(law, held):
    """All points have the same remainder, so a bound is only about the law."""
    generator = np.random.default_rng(0)
    points = sampling.line(np.full(held + 50, 0.3))
    over, means = [], []
    for errors in LAWS[law](generator, (400, held + 50)):
        bounds = error_bounds(LINEAR, points[:held], errors[:held], points[held:], drawn=held, level=0.05)
        over.append((errors[held:] > bounds).mean())
        means.append(errors[held:].mean() > bounds.mean())
    assert np.mean(over) <= 0.05 + 3 * np.std(over) / np.sqrt(len(over))
    assert np.mean(means) <= 0.05
    if held == 60:
        assert np.mean(over) > 0.025


def test_bounds_follow_the_remainder_and_end_at_the_furthest_held_out_point():
    held, errors = sampling.line([0.5, 0.4, 0.9]), np.array([0.02, 0.01, 0.001])

    def bounds_at(*alphas):
        return error_bounds(LINEAR, held, errors, sampling.line(alphas), drawn=2, level=0.5)

    middle, near, end = bounds_at(0.5, 0.45, 0.99)
    assert middle == pytest.approx(0.02)
    assert near == pytest.approx(0.02 * 0.45 * 0.55 / 0.25)
    assert 0 < end < near
    assert bounds_at(0.5, 1.5)[1] == np.inf


def test_a_point_without_a_finite_error_allows_nothing():
    points = sampling.line([0.2, 0.4, 0.5, 0.6])
    bounds = error_bounds(LINEAR, points[:3], np.array([0.1, np.nan, 0.1]), points[3:], drawn=3, level=0.05)
    assert bounds[0] == np.inf
