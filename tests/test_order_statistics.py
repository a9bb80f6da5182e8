"""The k-th smallest of numbers read in pieces, against NumPy's sort, and methods that keep entries by rank."""

import numpy as np
import pytest
from merging_world import BASE, SHAPES, drawn, merged, opened

from wsr.merging.ingredients import Ingredients
from wsr.merging.method import made
from wsr.merging.order_statistics import Bracket, order_statistics


def test_order_statistics_are_those_of_a_sort():
    numbers = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    numbers[:300] = numbers[0]
    numbers[300:310] = 0
    ordered = np.sort(np.abs(numbers))
    pieces = [numbers[:37], numbers[37:900], numbers[900:]]
    ranks = [0, 9, 10, 499, 500, 999]
    found = order_statistics(lambda: pieces, ranks)
    np.testing.assert_array_equal([own.value for own in found], ordered[ranks])
    for own, rank in zip(found, ranks, strict=True):
        run = np.flatnonzero(ordered == ordered[rank])
        assert (own.before, own.equal) == (rank - run[0], len(run))


@pytest.mark.parametrize("piece", [5, 2**16])
@pytest.mark.parametrize("name", ["ties", "breadcrumbs"])
def test_of_equal_magnitudes_as_many_are_kept_as_the_density_says(name, piece):
    """Task vectors of few distinct magnitudes; which of equals are kept is what a stable sort says."""
    rounded = [{path: np.sign(leaf) * np.round(2 * np.abs(leaf)) for path, leaf in drawn(9, 1.0).items()}]
    own = {path: BASE[path] * 0 + leaf.astype(np.float32) for path, leaf in rounded[0].items()}
    zero = {path: np.zeros(shape, np.float32) for path, shape in SHAPES.items()}
    one = Ingredients(("a",), SHAPES, opened(zero), (opened(own),), stored="weights", piece=piece)
    options = {"scope": "leaf"} if name == "ties" else {"gamma": 0.2}
    found = merged(made(name, {"density": 0.5, "scale": 1.0, **options}), one)
    for path, leaf in own.items():
        vector = leaf.ravel()
        if name == "ties":
            chosen = np.argsort(-np.abs(vector), kind="stable")[: max(1, vector.size // 2)]
        else:
            first = max(0, vector.size - vector.size // 2 - int(0.2 * vector.size))
            chosen = np.argsort(np.abs(vector), kind="stable")[first : first + vector.size // 2]
        expected = np.zeros_like(vector)
        expected[chosen] = vector[chosen]
        np.testing.assert_array_equal(found[path].ravel(), expected, err_msg=path)


@pytest.mark.parametrize("size", [1, 2, 4000, 60_000])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("decimals", [2, 9], ids=["equal numbers", "different numbers"])
def test_a_bracket_finds_a_rank_in_one_reading(size, share, decimals):
    numbers = np.abs(np.random.default_rng(size).standard_normal(size)).round(decimals).astype(np.float32)
    rank = int(share * size)
    bracket = Bracket(size, rank)
    for piece in np.split(numbers, range(20_000, size, 20_000)):
        bracket.add(piece)
    found, ordered = bracket.found(), np.sort(numbers)
    assert found.value == ordered[rank]
    assert found.equal == (numbers == ordered[rank]).sum()
    assert found.before == rank - np.searchsorted(ordered, ordered[rank])


def test_a_bracket_that_the_first_numbers_mislead_finds_nothing():
    bracket = Bracket(60_000, 30_000)
    for scale in (1.0, 10.0, 10.0):
        bracket.add(scale + np.arange(20_000, dtype=np.float32) / 20_000)
    assert bracket.found() is None
    bracket = Bracket(60_000, 30_000)
    for piece in (np.arange(20_000, dtype=np.float32), np.full(40_000, 10_000, np.float32)):
        bracket.add(piece)
    assert bracket.found() is None  # more numbers between the bounds than it collects


def test_a_second_reading_finds_what_the_first_numbers_hid():
    """As in a token table, where the rows of frequent tokens come first and moved most."""
    rng = np.random.default_rng(0)
    numbers = (np.abs(rng.standard_normal(3_000_000)) * np.geomspace(10, 0.1, 3_000_000)).astype(np.float32)
    rank = 2_100_000
    first = Bracket(numbers.size, rank)
    for piece in np.split(numbers, range(100_000, numbers.size, 100_000)):
        first.add(piece)
    assert first.found() is None
    again = first.again()
    for piece in np.split(numbers, range(100_000, numbers.size, 100_000)):
        again.add(piece)
    assert again.found().value == np.partition(numbers, rank)[rank]
