"""The Gram matrix, in pieces and in parts, against NumPy in float64."""

import json
import os
import random
import resource
import threading
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_store import make_store, near, random_head, random_params, record_of

from wsr.errors import WsrError
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.geometry.trees import flatten
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.store import Store

BASE = random_params(0)
MODEL = Model(name="none", config={}, init=lambda key: BASE, encode=lambda params, batch: None, hidden=1, max_length=1)
SIZES = {path: leaf.size for path, leaf in flatten(BASE).items()}


def vectors(members: list[dict[str, Any]]) -> np.ndarray:
    def flat(params: dict[str, Any]) -> np.ndarray:
        return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in flatten(params).values()])

    return np.stack([flat(member) - flat(BASE) for member in members])


def cosines(gram: np.ndarray) -> np.ndarray:
    return gram / np.sqrt(np.outer(np.diag(gram), np.diag(gram)))


@pytest.fixture
def members() -> list[dict[str, Any]]:
    return [near(BASE, seed) for seed in range(1, 6)]


@pytest.fixture
def store(tmp_path: Path, members: list[dict[str, Any]]) -> Store:
    store = make_store(tmp_path / "store", BASE)
    for number, member in enumerate(members):
        store.save(record_of(f"m{number}"), member, random_head(number))
    return store


def region_of(store: Store, names: list[str] | None = None) -> Region:
    return Region.from_store(store, MODEL, names=names)


def count_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many entries of each member are read from here on."""
    entries: Counter[str] = Counter()
    lock, inner = threading.Lock(), Store.open_task_vector

    def counting(store: Store, name: str) -> Any:
        opened = inner(store, name)

        def open_leaf(path: str) -> Any:
            read = opened(path)

            def counted(start: int, out: np.ndarray) -> None:
                with lock:
                    entries[name] += out.size
                read(start, out)

            return counted

        return open_leaf

    monkeypatch.setattr(Store, "open_task_vector", counting)
    return entries


@pytest.mark.parametrize("memory_bytes", [16, 500, 10**7])
@pytest.mark.parametrize("known", [0, 1, 3, 5])
def test_gram_is_that_of_flattened_task_vectors_whatever_the_block_and_whatever_is_known(members, memory_bytes, known):
    product = vectors(members) @ vectors(members).T
    expected = (product + product.T) / 2  # the last bit of a product may depend on where its rows lie in memory
    before = np.full((5, 5), np.nan)
    before[:known, :known] = expected[:known, :known]
    found = gram_matrix(SIZES, [in_memory(m, BASE) for m in members], before, memory_bytes=memory_bytes)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(found[:known, :known], expected[:known, :known])


def test_cosines_of_long_vectors_are_within_1e5_of_float64():
    generator = np.random.default_rng(0)
    common = generator.normal(size=700_000)
    base = {"a": generator.normal(size=700_000).astype(np.float32)}
    rows = [common * share + generator.normal(size=common.size) for share in (0, 0.3, 1, 30, -30)]
    members = [{"a": (base["a"] + 1e-3 * row).astype(np.float32)} for row in rows]
    exact = np.stack([m["a"].astype(np.float64) - base["a"] for m in members])
    found = gram_matrix({"a": common.size}, [in_memory(m, base) for m in members])
    np.testing.assert_allclose(cosines(found), cosines(exact @ exact.T), atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16_task_vector"])
def test_from_disk_each_entry_is_read_once(tmp_path, members, dtype, monkeypatch):
    store = make_store(tmp_path / "store", BASE)
    for number, member in enumerate(members):
        store.save(record_of(f"m{number}"), member, random_head(number), dtype=dtype)
    loaded = vectors([store.load(name)[0] for name in store.names()])
    entries = count_reads(monkeypatch)
    monkeypatch.setattr(Store, "load", None)
    np.testing.assert_allclose(region_of(store).gram, loaded @ loaded.T, rtol=1e-4, atol=1e-6)
    assert entries == dict.fromkeys(store.names(), sum(SIZES.values()))


def test_a_second_time_nothing_is_read_and_a_new_member_costs_one_row(store, members, monkeypatch):
    whole = vectors(members) @ vectors(members).T
    first = region_of(store, ["m0", "m1", "m2", "m3"]).gram
    products: list[tuple[int, ...]] = []
    monkeypatch.setattr("wsr.geometry.similarity._products", partial(recorded, products))
    again = region_of(Store.open(store.path), ["m3", "m1"]).gram
    np.testing.assert_array_equal(again, first[np.ix_([3, 1], [3, 1])])
    assert not products
    grown = region_of(store).gram
    np.testing.assert_allclose(grown, whole, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(grown[:4, :4], first)
    assert set(products) == {(1, 5)}
    np.testing.assert_array_equal(region_of(store).gram, grown)


def recorded(shapes: list[tuple[int, ...]], block: np.ndarray, new: int) -> np.ndarray:
    shapes.append((new, len(block)))
    return np.concatenate([block[:new] @ block[:new].T, block[:new] @ block[new:].T], axis=1)


def test_parts_that_overlap_are_kept_side_by_side(store, members):
    whole = vectors(members) @ vectors(members).T
    for names in (["m0", "m1", "m2"], ["m2", "m3"], ["m4", "m1"]):
        places = [int(name[1:]) for name in names]
        found = region_of(store, names).gram
        np.testing.assert_allclose(found, whole[np.ix_(places, places)], rtol=1e-5, atol=1e-7)
    kept = store.gram_file.read([store.record(name).content_sha256 for name in store.names()])
    assert np.isnan(kept).sum() == 2 * 5  # the pairs that no region held: 0-3, 0-4, 1-3, 2-4, 3-4
    np.testing.assert_allclose(region_of(store).gram, whole, rtol=1e-5, atol=1e-7)


def test_members_of_equal_content_are_told_apart_by_nothing(store, members):
    store.save(record_of("twin"), members[0], random_head(0))
    gram = region_of(store).gram
    names = store.names()
    np.testing.assert_allclose(gram[names.index("twin")], gram[names.index("m0")], rtol=1e-6)
    np.testing.assert_array_equal(region_of(store).gram, gram)


def test_another_member_under_an_old_name_is_not_taken_for_it(store, members):
    import shutil

    region_of(store).gram  # noqa: B018  # kept in the store's folder
    shutil.rmtree(store.path / "members" / "m2")
    store.save(record_of("m2"), near(BASE, 77), random_head(2))
    now = vectors([*members[:2], near(BASE, 77), *members[3:]])
    np.testing.assert_allclose(region_of(store).gram, now @ now.T, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("damage", ["cut", "number", "base", "nothing"])
def test_a_damaged_file_of_products_counts_as_none(store, damage):
    expected = region_of(store).gram
    path = store.path / "gram.json"
    content = json.loads(path.read_text())
    if damage == "number":
        content["gram"][0][1] *= 2
    if damage == "base":
        content["base_sha256"] = "0" * 64
    text = json.dumps(content)
    path.write_text({"cut": text[: len(text) // 2], "nothing": ""}.get(damage, text))
    np.testing.assert_array_equal(region_of(store).gram, expected)
    np.testing.assert_array_equal(json.loads(path.read_text())["gram"], expected)


def test_a_store_that_may_only_be_read_is_mapped_all_the_same(store, members, monkeypatch):
    def refuse(*args: object) -> None:
        raise WsrError("read-only")

    monkeypatch.setattr("wsr.store.checkpoint.write_json", refuse)
    np.testing.assert_allclose(region_of(store).gram, vectors(members) @ vectors(members).T, rtol=1e-5, atol=1e-7)


def test_a_damaged_member_is_one_line_and_nothing_is_kept(store):
    path = store.path / "members" / "m3" / "state" / "params.embeddings.tokens" / "0.0"
    content = bytearray(path.read_bytes())
    content[1234] ^= 4
    path.write_bytes(content)
    with pytest.raises(
        WsrError, match=r"members/m3 was changed on disk: leaf params/embeddings/tokens: blake3"
    ) as error:
        region_of(store).gram  # noqa: B018
    assert "\n" not in str(error.value)
    for wrong in (content[:-1], content + b"x"):
        path.write_bytes(wrong)
        with pytest.raises(WsrError, match=r"members/m3 was changed.*the file has [0-9]+ bytes, expected 3200"):
            region_of(store).gram  # noqa: B018
    path.unlink()
    with pytest.raises(WsrError, match=r"members/m3 was changed.*No such file"):
        region_of(store).gram  # noqa: B018
    assert not (store.path / "gram.json").exists()


def test_more_members_than_a_process_may_hold_files_open(tmp_path):
    store = make_store(tmp_path / "store", {"a": np.zeros(40, np.float32)})
    rows = np.random.default_rng(0).normal(size=(30, 40)).astype(np.float32)
    for number, row in enumerate(rows):
        store.save(record_of(f"m{number:02}"), {"a": row}, {})
    region, (soft, hard) = region_of(store), resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 16, hard))
    try:
        np.testing.assert_allclose(region.gram, rows.astype(float) @ rows.T, rtol=1e-5, atol=1e-5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_memory_does_not_grow_with_the_members():
    """What is filled is all that is held: a few blocks of the size asked for, whatever the number of members."""
    for count in (3, 50):
        held: set[int] = set()

        def read(start: int, out: np.ndarray, held: set[int] = held) -> None:
            held.add(out.ctypes.data)
            out[:] = 1.0

        found = gram_matrix(
            {"a": 5000, "b": 7},
            [lambda path: read] * count,
            memory_bytes=50 * 4 * 10 * (len(os.sched_getaffinity(0)) + 1),
        )
        np.testing.assert_array_equal(found, np.full((count, count), 5007.0))
        assert len(held) <= count * (len(os.sched_getaffinity(0)) + 1) * 2


def test_pieces_of_a_leaf_are_read_in_order_however_long_each_takes():
    """Threads fill several blocks at once; a hash of a leaf needs its bytes in order."""
    draw, out_of_order = random.Random(0), []

    def opened(path: str) -> Any:
        position = 0

        def read(start: int, out: np.ndarray) -> None:
            nonlocal position
            time.sleep(draw.choice((0, 0, 0.002)))
            if start != position:
                out_of_order.append((path, start, position))
            position = start + out.size
            out[:] = 1.0

        return read

    found = gram_matrix({"a": 500, "b": 3, "c": 100}, [opened] * 5, memory_bytes=5 * 4 * 10 * 3)
    np.testing.assert_array_equal(found, np.full((5, 5), 603.0))
    assert not out_of_order


def test_jax_arrays_and_numpy_arrays_give_the_same(members):
    on_device = [jax.tree.map(jax.numpy.asarray, m) for m in members]
    found = [gram_matrix(SIZES, [in_memory(m, BASE) for m in own]) for own in (members, on_device)]
    np.testing.assert_array_equal(*found)
