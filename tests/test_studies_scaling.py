"""Subsets of a population: different, of the sizes asked for, and as many as were said."""

import itertools

import numpy as np

from wsr.studies.region_scaling import Grid, comparable, count_points, draw_subsets

GROUPS = {"a": [0, 1, 2], "b": [3, 4, 5], "c": [6, 7, 8], "d": [9, 10]}


def draw(**changes):
    """Subsets of GROUPS."""
    wanted = {"datasets": 2, "each": 2, "with_group": None, "wanted": 5} | changes
    return draw_subsets(np.random.default_rng(0), GROUPS, **wanted)


def of_group(number):
    """The group of a member."""
    return next(name for name, numbers in GROUPS.items() if number in numbers)


def test_subsets_differ_and_have_the_sizes_asked_for():
    for with_group in (None, "b"):
        found = draw(with_group=with_group, wanted=8)
        assert len(set(found)) == len(found) == 8
        for subset in found:
            counts = {name: [of_group(k) for k in subset].count(name) for name in map(of_group, subset)}
            assert set(counts.values()) == {2}
            assert len(counts) == 2
            assert with_group is None or with_group in counts


def test_all_subsets_are_found_where_there_are_few():
    found = draw(datasets=3, each=3, wanted=50)
    assert found == [tuple(range(9))]  # d has too few members
    pairs = draw(datasets=1, each=2, wanted=50)
    expected = {pair for own in GROUPS.values() for pair in itertools.combinations(own, 2)}
    assert set(pairs) == expected
    assert draw(datasets=4, each=3) == []
    assert draw(each=3, with_group="d") == []


def test_each_member_is_drawn_as_often_as_its_group_allows():
    generator = np.random.default_rng(1)
    counts = np.zeros(11)
    for _ in range(600):
        (subset,) = draw_subsets(generator, GROUPS, datasets=1, each=1, with_group=None, wanted=1)
        counts[list(subset)] += 1
    expected = 600 * np.array([1 / 12] * 9 + [1 / 8] * 2)
    assert np.all(np.abs(counts - expected) < 4 * np.sqrt(expected))


def test_points_are_counted_as_they_are_drawn():
    grid = Grid((1, 3, 9), (1, 2), subsets=4)
    names = ["made_up_a1", "made_up_a2", "made_up_b1", "made_up_b2"]
    groups = {name: [2 * k, 2 * k + 1] for k, name in enumerate(names)}
    drawn = 1  # the pretrained model
    for with_group, rest in ((None, names[1:]), (names[0], names)):
        for datasets in dict.fromkeys(min(size, len(rest)) for size in grid.datasets):
            for each in grid.members:
                own = {name: groups[name] for name in rest}
                drawn += len(
                    draw_subsets(
                        np.random.default_rng(0), own, datasets=datasets, each=each, with_group=with_group, wanted=4
                    )
                )
    assert count_points(2, names, names[:1], grid) == drawn


def test_means_are_over_the_targets_that_have_the_sizes_of_most():
    """One target lacks a size that two have; another has one more."""
    sizes = {"a": [1, 3], "b": [1, 3], "c": [1], "d": [1, 3, 9]}
    scored: dict = {}
    for target, own in sizes.items():
        for size in own:
            scored.setdefault(("left out", size, 1), {})[target] = f"{target} {size}"
    scored["in", 1, 1] = {"c": "c in"}
    assert comparable(scored) == {
        "left out": {
            ("left out", size, 1): {target: f"{target} {size}" for target in ("a", "b", "d")} for size in (1, 3)
        },
        "in": {("in", 1, 1): {"c": "c in"}},
    }
