"""Intervals over models and texts, and what studies of lines, groups and planes ask of losses, against NumPy."""

import numpy as np
import pytest
import scipy.stats
from worlds import made_up

from wsr.engine.lattice import lattice
from wsr.errors import WsrError
from wsr.statistics.bootstrap import bootstrap_mean
from wsr.statistics.interval import Interval
from wsr.studies import convex_hull, outcomes
from wsr.studies.landscape import Plane, _height
from wsr.studies.lines import _middle, _rise
from wsr.studies.probe_split import CHANGE, means_over_targets, with_seen_probe


def first(losses):
    """The mean loss of a unit's first point."""
    return losses[0]


def test_an_interval_over_texts_is_as_wide_as_the_standard_error():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap_mean([values[None]], ["a"], first, generator=np.random.default_rng(1), resamples=4000)
    error = values.std() / np.sqrt(400)
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_texts_of_one_dataset_are_drawn_together_and_others_apart():
    texts = np.random.default_rng(0).normal(size=(1, 300))

    def width(datasets):
        found = bootstrap_mean([texts] * 4, datasets, first, generator=np.random.default_rng(1))
        return found.high - found.low

    # Four equal units on the same texts are no more than one of them; on texts of their own they average.
    assert width("aaaa") == pytest.approx(2 * 1.96 * texts.std() / np.sqrt(300), rel=0.1)
    assert width("abcd") < 0.8 * width("aaaa")


@pytest.mark.parametrize("size", [2, 5])
def test_units_are_drawn_too_as_wide_as_the_standard_error_of_their_mean(size):
    values = np.random.default_rng(2).normal(size=size)
    units = [np.full((1, 5), value) for value in values]
    draws = [
        bootstrap_mean(units, "a" * size, first, generator=np.random.default_rng(0), confidence=c).high
        for c in np.linspace(0.01, 0.99, 99)
    ]
    # The quantiles above the middle and their mirror images make the distribution; its spread is the standard error.
    lows = [
        bootstrap_mean(units, "a" * size, first, generator=np.random.default_rng(0), confidence=c).low
        for c in np.linspace(0.01, 0.99, 99)
    ]
    assert np.std([*draws, *lows]) == pytest.approx(values.std(ddof=1) / np.sqrt(size), rel=0.08)


def test_draws_of_probe_texts_are_drawn_as_wide_as_the_standard_error_of_their_mean():
    draws = np.array([0.0, 1.0, 5.0])[:, None, None] * np.ones((3, 1, 4))
    found = bootstrap_mean([draws, draws], "aa", first, generator=np.random.default_rng(0), resamples=4000)
    # Two of three are drawn: a mean of 0 with probability 1/9, and of 5 likewise; both units share the draw.
    assert (found.value, found.low, found.high) == pytest.approx((2, 0, 5))
    inner = bootstrap_mean([draws], "a", first, generator=np.random.default_rng(0), confidence=0.5, resamples=4000)
    assert (inner.low, inner.high) == pytest.approx((0.5, 3))
    same = bootstrap_mean([np.ones((3, 1, 4))], "a", first, generator=np.random.default_rng(0))
    assert (same.low, same.high) == pytest.approx((1, 1))


def test_datasets_are_fixed():
    # What sets two datasets apart is no chance of the draw of units.
    units = [np.full((1, 5), value) for value in (0.0, 0.0, 1.0, 1.0)]
    found = bootstrap_mean(units, "aabb", first, generator=np.random.default_rng(0))
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


def test_an_interval_needs_finite_losses():
    with pytest.raises(WsrError, match="at least one unit"):
        bootstrap_mean([], [], first, generator=np.random.default_rng(0))
    with pytest.raises(WsrError, match="finite"):
        bootstrap_mean([np.array([[np.nan]])], ["a"], first, generator=np.random.default_rng(0))


def test_a_line_is_compared_with_its_ends():
    alphas = np.array([-3.0, 0.0, 0.4, 1.0])
    losses = np.array([[9.0], [1.0], [1.5], [2.0]])
    assert _middle(alphas, losses) == pytest.approx(1.5 - 1.4)
    assert _rise(alphas, -3.0, losses) == pytest.approx(9.0 - 1.0)
    assert _rise(np.array([0.0, 1.0, 2.0]), 2.0, losses[1:]) == pytest.approx(2.0 - 1.5)


def test_the_claims_of_the_hull_are_judged_by_means_over_targets():
    """In' against In by its chords, the others by P_B; and what the paper does not claim does not count."""
    sure, open_, small = Interval(0.9, 0.7, 1.0), Interval(0.6, 0.3, 0.8), Interval(0.0, -0.004, 0.004)
    means = {
        (level, better, worse): open_ if (better, worse) == ("interior", "member") else sure
        for level in outcomes.LEVELS
        for better, worse in outcomes.COMPARED[level]
    }
    lower = dict.fromkeys(outcomes.LEVELS, Interval(-0.02, -0.03, -0.01))
    assert convex_hull._verdict(means, lower) == "holds"
    assert convex_hull._verdict(means, lower | {"general": small}) == "holds in part"
    for reading in ("exterior", outcomes.DIRECTIONS):  # with the pretrained model, and without
        assert convex_hull._verdict(means | {("general", "member", reading): open_}, lower) == "holds in part"
    assert convex_hull._verdict(means | {("dataset", "member", "exterior"): open_}, lower) == "holds in part"
    assert convex_hull._verdict(dict.fromkeys(means, open_), dict.fromkeys(lower, small)) == "open"
    assert convex_hull._verdict({}, dict.fromkeys(lower, small)) == "no effect"
    worse = dict.fromkeys(lower, Interval(0.02, 0.01, 0.03))
    assert convex_hull._verdict(dict.fromkeys(means, open_), worse) == "refuted"


def test_a_plane_keeps_distances_and_finds_the_foot_of_the_base():
    members = np.random.default_rng(0).normal(size=(3, 10))  # task vectors: the base is the origin
    plane = Plane(members @ members.T)
    x, y = np.linspace(-2, 3, 4), np.linspace(-1, 2, 3)
    rows = plane.coefficients(x, y)
    assert rows.sum(axis=1) == pytest.approx(1)
    grid = np.stack([axis.ravel() for axis in np.meshgrid(x, y)], axis=1)
    assert plane.positions(rows) == pytest.approx(grid)
    points = rows @ members
    between = np.linalg.norm(points[:, None] - points, axis=-1)
    assert between == pytest.approx(np.linalg.norm(grid[:, None] - grid, axis=-1))
    foot, off = plane.base()
    steps = members[1:] - members[0]
    share, *_ = np.linalg.lstsq(steps.T, -members[0], rcond=None)
    assert foot[0] == pytest.approx(plane.positions(np.array([[1 - share.sum(), *share]]))[0])
    assert off == pytest.approx(np.linalg.norm(members[0] + share @ steps))


def test_a_triangle_rises_over_the_plane_through_its_corners():
    triangle = lattice(3, 2)
    plane = triangle @ np.array([1.0, 2.0, 4.0])
    assert _height(triangle, plane[:, None]) == pytest.approx(0)
    middle = np.flatnonzero((triangle == [0, 0.5, 0.5]).all(axis=1))[0]
    plane[middle] += 0.25
    assert _height(triangle, plane[:, None]) == pytest.approx(0.25)


def test_a_probe_on_seen_texts_has_as_many_texts_and_all_of_them_seen(tiny):
    dataset = made_up(tiny, "made_up_a1")
    seen = with_seen_probe(dataset)

    def texts(split):
        return [tuple(split.token_ids[a:b]) for a, b in zip(split.offsets[:-1], split.offsets[1:], strict=True)]

    assert len(seen.splits["probe"]) == len(dataset.splits["probe"])
    assert set(texts(seen.splits["probe"])) <= set(texts(dataset.splits["finetune"]))
    assert seen.splits["test"] is dataset.splits["test"]
    assert seen.content_hash != dataset.content_hash


def test_the_change_from_unseen_to_seen_texts_is_a_paired_mean_over_targets():
    random = np.random.default_rng(5)
    gains = {
        (target, probe, group): random.normal()
        for target in "abcde"
        for probe in ("unseen", "seen")
        for group in (("member", "interior") if target != "e" else ("member",))  # one target has a single member
    }
    found = means_over_targets(gains)
    for group, targets in (("member", "abcde"), ("interior", "abcd")):
        paired = scipy.stats.ttest_rel(*([gains[own, probe, group] for own in targets] for probe in ("seen", "unseen")))
        ends = paired.confidence_interval(0.95)
        own = found[CHANGE, group]
        np.testing.assert_allclose([own.low, own.high], [ends.low, ends.high], rtol=1e-9)
        assert own.value == pytest.approx(found["seen", group].value - found["unseen", group].value)
