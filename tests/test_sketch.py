"""Sketches: what is promised of their inner products, against NumPy; and what is kept of them."""

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_similarity import MODEL, SIZES, cosines, count_reads, region_of, vectors
from test_store import make_store, near, random_head, random_params, record_of

from wsr.errors import WsrError
from wsr.geometry.low_rank import Factors
from wsr.region import sketch as room
from wsr.region.region import from_params
from wsr.region.sketch import BLOCK, nearest, products, sketch, sketches
from wsr.runtime.seeds import generator
from wsr.store import Store
from wsr.store.sketch_file import SketchFile

BASE = random_params(0)


def of(vector: np.ndarray) -> Any:
    """A task vector of one leaf."""

    def open_leaf(path: str) -> Any:
        def read(start: int, out: np.ndarray) -> None:
            out[:] = vector[start : start + out.size]

        return read

    return open_leaf


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 256 entries, so that short vectors fill many."""
    monkeypatch.setattr(room, "BLOCK", 256)
    room._permutation.cache_clear()
    room._signs_and_turn.cache_clear()
    yield
    room._permutation.cache_clear()
    room._signs_and_turn.cache_clear()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = make_store(tmp_path / "store", BASE)
    for number in range(5):
        store.save(record_of(f"m{number}"), near(BASE, number + 1), random_head(number))
    return store


def test_each_entry_goes_to_one_sum_with_one_sign():
    """Written out entry by entry, as the module's text says it."""
    size, seed, entries = 512, 3, BLOCK + 1000
    vector = np.random.default_rng(0).standard_normal(entries).astype(np.float32)
    order = generator(seed, "sketch", "permutation").permutation(BLOCK)
    sum_of_place = np.empty(BLOCK, int)
    sum_of_place[order] = np.arange(BLOCK) % size
    expected = np.zeros(size)
    for block in range(2):
        random = generator(seed, "sketch", block)
        turn = random.integers(BLOCK)
        negative = np.unpackbits(np.frombuffer(random.bytes(BLOCK // 8), np.uint8))
        own = vector[block * BLOCK : (block + 1) * BLOCK].astype(np.float64)
        places = (np.arange(len(own)) + turn) % BLOCK
        np.add.at(expected, sum_of_place[places], own * (1.0 - 2.0 * negative[: len(own)]))
    np.testing.assert_allclose(sketch({"all": entries}, of(vector), size, seed=seed), expected, rtol=1e-5, atol=1e-4)


def pairs():
    """Two vectors each: unlike, alike, and of structures that a plain fold of every 32nd entry would get wrong."""
    draw = np.random.default_rng(1)
    x, y = draw.standard_normal((2, 1000))
    column = np.where(np.arange(1000) % 32 == 7, 1.0, 0.001)
    return {
        "unlike": (x, y),
        "alike": (x, x + 0.3 * y),
        "one column": (column * x, column * (x + y)),
        "constant": (np.ones(1000), np.ones(1000)),
        "one entry": (np.eye(1000)[5], np.eye(1000)[5] + 0.1 * x),
    }


@pytest.mark.parametrize("name", pairs())
def test_inner_products_are_unbiased_with_the_promised_variance(name, small_blocks):
    first, second = (own.astype(np.float32) for own in pairs()[name])
    size, trials = 32, 600
    found = np.array(
        [
            sketch({"a": 1000}, of(first), size, seed=seed) @ sketch({"a": 1000}, of(second), size, seed=seed)
            for seed in range(trials)
        ]
    )
    exact = float(first.astype(np.float64) @ second)
    promised = (float(first @ first) * float(second @ second) + exact**2) / size
    assert abs(found.mean() - exact) < 4 * np.sqrt(promised / trials)
    # The variance of so many trials is itself known to about 6 %, more where tails are heavy.
    assert found.var() < 1.3 * promised


def test_a_sketch_is_linear_and_does_not_depend_on_how_leaves_are_cut_into_blocks():
    x, y = (np.random.default_rng(n).standard_normal(5000).astype(np.float32) for n in (0, 1))
    whole = partial(sketch, {"a": 5000}, size=256)
    np.testing.assert_allclose(whole(of(x)) + whole(of(y)), whole(of(x + y)), atol=1e-4)

    def in_parts(path: str) -> Any:
        return of({"a/1": x[:1], "a/2": x[1:4000], "b": x[4000:]}[path])(path)

    assert np.array_equal(sketch({"b": 1000, "a/1": 1, "a/2": 3999}, in_parts, 256), whole(of(x)))


def test_as_many_sums_as_a_block_holds_keep_every_product():
    vector = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    own = sketch({"a": 1000}, of(vector), BLOCK)
    assert sorted(np.abs(own[own != 0])) == sorted(np.abs(vector))


def test_memory_is_that_of_a_block():
    def read(start: int, out: np.ndarray) -> None:
        out[:] = 1.0

    sketch({"a": BLOCK}, lambda path: read, 4096)
    tracemalloc.start()
    sketch({"a": 20 * BLOCK + 5}, lambda path: read, 4096)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 4 * BLOCK < 4 * 20 * BLOCK


def test_sketches_of_a_store_are_kept_and_a_new_member_costs_its_own_row(store, monkeypatch):
    size = 1024
    entries = count_reads(monkeypatch)
    rows = sketches(region_of(store), store.sketch_file(size))
    assert entries == {f"m{number}": sum(SIZES.values()) for number in range(5)}
    entries.clear()
    assert np.array_equal(sketches(region_of(store), store.sketch_file(size)), rows)
    assert not entries
    store.save(record_of("m9"), near(BASE, 9), random_head(9))
    more = sketches(region_of(Store.open(store.path)), store.sketch_file(size))
    assert np.array_equal(more[:5], rows)
    assert entries == {"m9": sum(SIZES.values())}
    exact = vectors([store.load(name)[0] for name in store.names()])
    np.testing.assert_allclose(cosines(products(more)), cosines(exact @ exact.T), atol=6 / np.sqrt(size))
    assert Store.open(store.path).verify() == []
    make_store(store.path, BASE)  # sketches/ is a folder of ours


def test_in_memory_and_as_factors_it_is_the_same_sketch(tmp_path):
    path = next(path for path in SIZES if random_leaf(path).ndim == 2)
    draw = np.random.default_rng(0)
    rows, columns = random_leaf(path).shape
    factors = Factors(
        draw.standard_normal((rows, 2)).astype(np.float32), draw.standard_normal((2, columns)).astype(np.float32)
    )
    store = make_store(tmp_path / "store", BASE)
    store.save_low_rank(record_of("thin"), {path: factors}, random_head(0))
    kept = sketches(region_of(store), store.sketch_file(512))
    whole = from_params(MODEL, BASE, {"thin": store.load("thin")[0]})
    np.testing.assert_allclose(kept, sketches(whole, SketchFile(tmp_path / "own", "base", 512)), atol=1e-5)


def random_leaf(path: str) -> np.ndarray:
    from wsr.geometry.trees import flatten

    return np.asarray(flatten(BASE)[path])


@pytest.mark.parametrize("damage", ["garble", "truncate", "other base", "empty", "header"])
def test_damaged_rows_count_as_none(store, damage):
    file = store.sketch_file(256)
    rows = sketches(region_of(store), file)
    (path,) = file.folder.glob("*.rows")
    content = path.read_bytes()
    changed = {
        "garble": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
        "truncate": content[:-7],
        "other base": content.replace(store.base_sha256.encode(), b"0" * 64),
        "empty": b"",
        "header": content.replace(b'"format": 1', b'"format": 2'),
    }[damage]
    assert changed != content
    path.write_bytes(changed)
    assert file.read() == {}
    assert np.array_equal(sketches(region_of(store), file), rows)


def test_two_writers_of_the_same_rows_do_no_harm(store):
    file = store.sketch_file(256)
    rows = sketches(region_of(store), file)
    hashes = [member.content_sha256 for member in region_of(store).members]
    file.add(dict(zip(hashes[2:], rows[2:], strict=True)))
    file.add(dict(zip(hashes, rows, strict=True)))
    assert file.read().keys() == set(hashes)
    assert len(list(file.folder.iterdir())) == 2  # the same content has the same name


def test_sketches_of_another_size_are_not_taken(store):
    sketches(region_of(store), store.sketch_file(256))
    assert store.sketch_file(512).read() == {}
    for size in (0, 100, 2 * BLOCK):
        with pytest.raises(WsrError, match="power of two"):
            sketches(region_of(store), store.sketch_file(size))


def test_the_nearest_are_those_of_a_full_sort():
    rows = np.random.default_rng(0).standard_normal((50, 16)).astype(np.float32)
    own = rows[7] + 0.1
    found, near_by = nearest(rows, own, 5)
    exact = rows @ own / np.linalg.norm(rows, axis=1) / np.linalg.norm(own)
    assert found.tolist() == np.argsort(-exact)[:5].tolist()
    np.testing.assert_allclose(near_by, np.sort(exact)[::-1][:5], rtol=1e-5)
    assert nearest(rows, own, 100)[0].shape == (50,)
