"""Low-rank task vectors on disk and among others, against the same members made dense."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from test_similarity import MODEL
from test_store import make_store, near, random_head, random_params, record_of, same_bits
from test_store import task_vector as read_in_pieces

from wsr.errors import WsrError
from wsr.geometry import low_rank
from wsr.geometry.low_rank import Factors, OpenLowRank, inner_products
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.geometry.trees import flatten
from wsr.region.region import Region
from wsr.store import Store

BASE = random_params(0)
SIZES = {path: leaf.size for path, leaf in flatten(BASE).items()}
QUERY, TOKENS = "layers/0/query/kernel", "embeddings/tokens"


def random_factors(seed: int, inputs: int, outputs: int, rank: int) -> Factors:
    random = np.random.default_rng(seed)
    a, b = (0.1 * random.standard_normal(shape, dtype=np.float32) for shape in ((inputs, rank), (rank, outputs)))
    return Factors(a, b)


def random_task_vector(seed: int, rank: int = 3, paths: tuple[str, ...] = (QUERY, TOKENS)) -> dict[str, Factors]:
    sizes = {QUERY: (16, 16), TOKENS: (50, 16)}
    return {path: random_factors(seed + place, *sizes[path], rank) for place, path in enumerate(paths)}


def dense(task_vector: dict[str, Factors]) -> np.ndarray:
    """The flattened task vector in float64."""
    parts = {path: np.zeros(leaf.shape) for path, leaf in flatten(BASE).items()}
    for path, (a, b) in task_vector.items():
        parts[path] = a.astype(np.float64) @ b.astype(np.float64)
    return np.concatenate([part.ravel() for part in parts.values()])


def store_of(path: Path, task_vectors: list[dict[str, Factors]]) -> Store:
    store = make_store(path, BASE)
    for number, task_vector in enumerate(task_vectors):
        store.save_low_rank(record_of(f"low{number}", mode="lora"), task_vector, random_head(number))
    return store


@pytest.fixture
def task_vectors() -> list[dict[str, Factors]]:
    return [
        random_task_vector(10),
        random_task_vector(20, rank=5),
        random_task_vector(30, paths=(QUERY,)),
        random_task_vector(40, paths=(TOKENS,), rank=1),
    ]


@pytest.fixture
def store(tmp_path: Path, task_vectors: list[dict[str, Factors]]) -> Store:
    return store_of(tmp_path / "store", task_vectors)


# The products


@pytest.mark.parametrize("seed", range(5))
def test_inner_products_are_those_of_the_products(seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs, outputs = random.integers(1, 30, 2)
    kinds = [random_factors(100 * seed + n, inputs, outputs, random.integers(1, 9)) for n in range(6)]
    whole = np.stack([(a.astype(np.float64) @ b.astype(np.float64)).ravel() for a, b in kinds])
    found = inner_products(kinds[:2], kinds)
    np.testing.assert_allclose(found, whole[:2] @ whole.T, rtol=1e-10, atol=1e-12)


def test_add_moves_what_has_factors_and_shares_the_rest(task_vectors: list[dict[str, Factors]]) -> None:
    base = flatten(BASE)
    found = flatten(low_rank.add(BASE, task_vectors[2]))
    a, b = task_vectors[2][QUERY]
    np.testing.assert_allclose(found[QUERY], base[QUERY] + a @ b, rtol=1e-6)
    assert all(found[path] is base[path] for path in base if path != QUERY)


@pytest.mark.parametrize("width", [1, 5, 16, 40, 256])
def test_pieces_of_any_width_are_the_leaf(task_vectors: list[dict[str, Factors]], width: int) -> None:
    opened = OpenLowRank(task_vectors[0].get)
    for path, size in SIZES.items():
        read, found = opened(path), np.full(size, np.nan, np.float32)
        for start in range(0, size, width):
            read(start, found[start : start + width])
        a, b = task_vectors[0].get(path, (np.zeros((1, 1)), np.zeros((1, size))))
        np.testing.assert_allclose(found, (a @ b).ravel(), atol=1e-6)


# On disk


def test_a_member_of_factors_comes_back_as_the_base_plus_their_product(
    store: Store, task_vectors: list[dict[str, Factors]]
) -> None:
    again = Store.open(store.path)
    for number, task_vector in enumerate(task_vectors):
        params, head = again.load(f"low{number}")
        assert same_bits(params, low_rank.add(BASE, task_vector))
        assert same_bits(head, random_head(number))
        pieces = read_in_pieces(again, f"low{number}")
        np.testing.assert_allclose(np.concatenate([*pieces.values()]), dense(task_vector), atol=1e-6)
        opened = again.open_task_vector(f"low{number}")
        assert isinstance(opened, OpenLowRank)
        found = {path: factors for path in SIZES if (factors := opened.factors(path))}
        assert same_bits(jax.tree.leaves(found), jax.tree.leaves(task_vector))
        one = again.load_leaves(f"low{number}", [TOKENS, "layers/0/scale"])
        assert same_bits(one, {path: flatten(params)[path] for path in one})
    assert again.verify() == []
    assert again.record("low0").mode == "lora"


def test_factors_take_little_room_and_the_store_says_how_it_keeps_a_member(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", {"kernel": np.zeros((300, 200), np.float32)})
    factors = random_factors(0, 300, 200, 4)
    store.save_low_rank(record_of("low"), {"kernel": factors}, {})
    store.save(record_of("whole"), {"kernel": factors.a @ factors.b}, {})
    store.save(record_of("half"), {"kernel": factors.a @ factors.b}, {}, dtype="bfloat16_task_vector")
    assert {name: store.kept_as(name) for name in store.names()} == {
        "half": ("bfloat16_task_vector", 2 * 300 * 200),
        "low": ("rank 4", 4 * 4 * (300 + 200)),
        "whole": ("float32", 4 * 300 * 200),
    }

    def bytes_on_disk(name: str) -> int:
        return sum(file.stat().st_size for file in (store.path / "members" / name / "state").rglob("*"))

    assert bytes_on_disk("low") < bytes_on_disk("whole") / 10


def test_a_member_of_factors_is_saved_once_and_never_changes(store: Store) -> None:
    again = store.save_low_rank(record_of("low0", mode="lora"), random_task_vector(10), random_head(0))
    assert repr(again) == repr(store.record("low0"))
    with pytest.raises(WsrError, match=r"has another member 'low0', members never change: content_sha256"):
        store.save_low_rank(record_of("low0", mode="lora"), random_task_vector(11), random_head(0))
    with pytest.raises(WsrError, match=r"has another member 'low0'"):
        store.save(record_of("low0", mode="lora"), low_rank.add(BASE, random_task_vector(10)), random_head(0))


def test_a_vector_may_move_too(tmp_path: Path) -> None:
    """Its change is a matrix of one row; inner products are those of the dense task vectors."""
    bias = "layers/0/query/bias"
    moves = [np.random.default_rng(seed).standard_normal((1, 16), dtype=np.float32) for seed in (1, 2)]
    vectors = [{bias: Factors(np.ones((1, 1), np.float32), own), QUERY: random_factors(3, 16, 16, 2)} for own in moves]
    store = store_of(tmp_path / "store", vectors)
    loaded = flatten(store.load("low0")[0])
    np.testing.assert_array_equal(loaded[bias], flatten(BASE)[bias] + moves[0][0])
    np.testing.assert_array_equal(read_in_pieces(store, "low1")[bias], moves[1][0])
    flat = [
        np.concatenate([own[0].astype(np.float64), (vector[QUERY].a @ vector[QUERY].b).astype(np.float64).ravel()])
        for own, vector in zip(moves, vectors, strict=True)
    ]
    members = [store.open_task_vector(name) for name in ("low0", "low1")]
    np.testing.assert_allclose(gram_matrix(SIZES, members), np.inner(flat, flat), rtol=1e-5)


def test_what_is_no_low_rank_task_vector_of_the_base_is_refused(store: Store) -> None:
    fitting = random_factors(0, 16, 16, 2)
    wrong: dict[str, Factors] = {
        "layers/9/kernel": fitting,
        "layers/0/query/bias": fitting,
        TOKENS: fitting,
        QUERY: Factors(fitting.a, random_factors(0, 16, 16, 3).b),
    }
    with pytest.raises(WsrError, match="member 'm' does not have the form of the base") as caught:
        store.save_low_rank(record_of("m"), wrong, {})
    for part in (
        "leaf layers/9/kernel is unexpected",
        "leaf layers/0/query/bias: factors of [16] expected, found [16, 2] and [2, 16]",
        "leaf embeddings/tokens: factors of [50, 16] expected, found [16, 2] and [2, 16]",
        "leaf layers/0/query/kernel: factors of [16, 16] expected, found [16, 2] and [3, 16]",
    ):
        assert part in str(caught.value)
    with pytest.raises(WsrError, match="no leaf has factors"):
        store.save_low_rank(record_of("m"), {}, {})
    with pytest.raises(WsrError, match=r"low_rank/layers/0/query/kernel/b is float64 and not float32"):
        store.save_low_rank(record_of("m"), {QUERY: Factors(fitting.a, fitting.b.astype(np.float64))}, {})
    with pytest.raises(WsrError, match=r"kernel/a holds NaN"):
        store.save_low_rank(record_of("m"), {QUERY: Factors(fitting.a * np.nan, fitting.b)}, {})
    assert "m" not in store


def test_a_changed_factor_is_found_out_wherever_it_is_read(store: Store) -> None:
    path = store.path / "members" / "low1" / "state" / f"low_rank.{QUERY.replace('/', '.')}.b" / "0.0"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    for read in (
        lambda: store.load("low1"),
        lambda: store.load_leaf("low1", QUERY),
        lambda: store.open_task_vector("low1")(QUERY),
        lambda: region_of(store).gram,
    ):
        with pytest.raises(WsrError, match=r"members/low1 was changed on disk: leaf low_rank/.*/b: blake3"):
            read()
    assert len(store.verify()) == 1


def test_who_reads_only_older_formats_is_told_and_not_given_an_empty_encoder(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(record_of("whole"), near(BASE, 1), {})
    monkeypatch.setattr("wsr.store.checkpoint.READABLE", (1, 2))
    assert same_bits(store.load("whole")[0], near(BASE, 1))
    with pytest.raises(WsrError, match=r"members/low0: has format 3 of another version of wsr"):
        store.load("low0")


# Similarity


def region_of(store: Store, names: list[str] | None = None) -> Region:
    return Region.from_store(store, MODEL, names=names)


def count_entries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all pieces of low-rank leaves that are made dense from here on."""
    sizes: list[int] = []
    product = low_rank._product

    def counted(factors: Factors) -> Any:
        found = product(factors)
        sizes.append(found.size)
        return found

    monkeypatch.setattr(low_rank, "_product", counted)
    return sizes


def test_similarity_of_factors_makes_nothing_dense(
    store: Store, task_vectors: list[dict[str, Factors]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = np.stack([dense(task_vector) for task_vector in task_vectors])
    sizes = count_entries(monkeypatch)
    monkeypatch.setattr("wsr.geometry.similarity._rows", None)
    monkeypatch.setattr(Store, "load", None)
    gram = region_of(store).gram
    assert sizes == []
    np.testing.assert_allclose(gram, whole @ whole.T, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(gram, gram.T)


def test_a_new_member_of_factors_costs_its_own_row_and_the_file_of_products_is_used(
    store: Store, task_vectors: list[dict[str, Factors]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = region_of(store, ["low0", "low1"]).gram
    shapes: list[tuple[int, int]] = []

    def recorded(fresh: Any, members: Any) -> Any:
        shapes.append((len(fresh), len(members)))
        return inner_products(fresh, members)

    monkeypatch.setattr("wsr.geometry.similarity.inner_products", recorded)
    grown = region_of(store, ["low0", "low1", "low2"]).gram
    np.testing.assert_array_equal(grown[:2, :2], first)
    assert shapes == [(1, 3)]  # the new one has factors of one leaf
    shapes.clear()
    np.testing.assert_array_equal(
        region_of(Store.open(store.path), ["low2", "low0"]).gram, grown[np.ix_([2, 0], [2, 0])]
    )
    assert shapes == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16_task_vector"])
@pytest.mark.parametrize("known", [[], ["low0", "low1"], ["low1", "whole"], ["whole", "other"]])
def test_beside_dense_members_the_gram_is_that_of_dense_ones(
    store: Store, task_vectors: list[dict[str, Factors]], dtype: Any, known: list[str]
) -> None:
    store.save(record_of("whole"), near(BASE, 1), random_head(1), dtype=dtype)
    store.save(record_of("other"), low_rank.add(near(BASE, 2), task_vectors[0]), random_head(2), dtype=dtype)
    names = store.names()
    of_base = np.concatenate([np.ravel(leaf) for leaf in flatten(BASE).values()]).astype(np.float64)
    rows = []
    for name in names:
        if name.startswith("low"):
            rows.append(dense(task_vectors[int(name[3:])]))
        else:
            params = flatten(store.load(name)[0])
            rows.append(np.concatenate([np.ravel(leaf) for leaf in params.values()]).astype(np.float64) - of_base)
    whole = np.stack(rows)
    if known:
        region_of(store, known).gram  # noqa: B018  # kept in the store's folder
    scale = np.sqrt(np.outer(*2 * [(whole**2).sum(axis=1)]))
    gram = region_of(store).gram
    np.testing.assert_allclose(gram / scale, whole @ whole.T / scale, atol=1e-5)
    np.testing.assert_array_equal(gram, gram.T)


def test_beside_dense_members_no_more_than_a_piece_is_dense(
    store: Store, task_vectors: list[dict[str, Factors]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(record_of("whole"), near(BASE, 1), random_head(1))
    sizes = count_entries(monkeypatch)
    members = region_of(store).open_task_vectors()
    blocks = 1 + len(os.sched_getaffinity(0))
    gram_matrix(SIZES, members, memory_bytes=32 * 4 * len(members) * blocks)
    assert sizes
    assert max(sizes) <= 32 + 16  # a piece of 32 entries, and the row that it begins in


def test_memory_is_that_of_the_factors_however_large_the_leaves() -> None:
    members = [OpenLowRank({"kernel": random_factors(seed, 4000, 3000, 2)}.get) for seed in range(4)]
    tracemalloc.start()
    gram_matrix({"kernel": 4000 * 3000}, members)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 4000 * 3000 / 10  # a tenth of one dense leaf


def test_factors_and_the_dense_member_they_make_are_one_point(store: Store, task_vectors: Any) -> None:
    """Identity across forms: cosine 1, distance 0."""
    low = OpenLowRank(task_vectors[0].get)
    gram = gram_matrix(SIZES, [low, in_memory(low_rank.add(BASE, task_vectors[0]), BASE)])
    np.testing.assert_allclose(gram / gram[0, 0], np.ones((2, 2)), rtol=1e-5)


def test_a_region_evaluates_members_of_factors_like_others(store: Store, task_vectors: Any) -> None:
    region = region_of(store)
    point = region.params(np.array([0.5, 0.5, 0.0, 0.0]))
    found = np.concatenate([np.ravel(leaf) for leaf in flatten(point).values()])
    of_base = np.concatenate([np.ravel(leaf) for leaf in flatten(BASE).values()])
    expected = of_base + 0.5 * dense(task_vectors[0]) + 0.5 * dense(task_vectors[1])
    np.testing.assert_allclose(found, expected, atol=1e-5)
