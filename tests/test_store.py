"""The store on a good day: what goes in comes out, and what does not belong is refused."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from blake3 import blake3
from orbax.checkpoint import v1 as ocp

from wsr.engine.scoring import key_of
from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.store import MemberRecord, Quarantined, Store
from wsr.store.leaves import HASHES, json_sha256
from wsr.store.record import record_from_json, record_to_json

CONFIG = {"hidden": 16, "layers": 2, "pooling": "mean", "kinds": ("a", "b")}


def random_params(seed: int, scale: float = 1.0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)

    def array(*shape: int) -> np.ndarray:
        return np.asarray(scale * generator.standard_normal(shape), np.float32)

    layer = {"query": {"kernel": array(16, 16), "bias": array(16)}, "scale": array()}
    return {"embeddings": {"tokens": array(50, 16)}, "layers": {"0": layer, "1": {"bias": array(16)}}}


def near(base: dict[str, Any], seed: int) -> dict[str, Any]:
    return jax.tree.map(lambda leaf, step: leaf + step, base, random_params(seed, scale=0.01))


def random_head(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "kernel": generator.standard_normal((16, 3), dtype=np.float32),
        "bias": generator.standard_normal(3, dtype=np.float32),
    }


def record_of(name: str, **changes: Any) -> MemberRecord:
    fields: dict[str, Any] = {
        "name": name,
        "dataset": "vader_movie",
        "family": "sentiment",
        "seed": 3,
        "mode": "full",
        "size": 1000,
        "hyperparameters": {"learning_rate": 1e-4, "betas": (0.9, 0.999)},
        "metrics": {"accuracy": np.float64(0.81), "matthews": float("nan")},
        "jaxlib": "0.10.2",
        "device_kind": "cpu",
        "threads": 2,
        "group_size": 4,
    }
    return MemberRecord(**fields | changes)


def make_store(path: Path, base: dict[str, Any], **changes: Any) -> Store:
    fields = {"model_name": "tiny", "model_config": CONFIG, "base_name": "tiny"} | changes
    return Store.create(path, base_params=base, **fields)


def as_format_1(folder: Path) -> None:
    """Writes a checkpoint again as Orbax does by default, which was the first format."""
    custom = ocp.metadata(folder).custom_metadata
    assert custom is not None
    metadata = {"format": 1, "about": custom["about"], "leaves": custom["leaves"]}
    tree = jax.tree.map(np.asarray, ocp.load(folder))
    shutil.rmtree(folder)
    ocp.save(folder, tree, custom_metadata={**metadata, "sha256": json_sha256(metadata)})


def as_before_blake3(folder: Path) -> None:
    """Gives a checkpoint the metadata that earlier versions wrote, which held one hash of each leaf, its SHA-256."""
    path = folder / "_CHECKPOINT_METADATA"
    content = json.loads(path.read_text())
    metadata = content["custom_metadata"]
    del metadata["blake3"], metadata["sha256"]
    assert metadata.keys() == {"format", "about", "leaves"}
    metadata["sha256"] = json_sha256(metadata)
    path.write_text(json.dumps(content))


def same_bits(found: Any, expected: Any) -> bool:
    if jax.tree.structure(found) != jax.tree.structure(expected):
        return False
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    return all(
        isinstance(a, np.ndarray) and a.dtype == np.float32 and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in pairs
    )


@pytest.fixture
def base() -> dict[str, Any]:
    return random_params(0)


@pytest.fixture
def store(tmp_path: Path, base: dict[str, Any]) -> Store:
    return make_store(tmp_path / "store", base)


def test_what_is_saved_comes_back_bit_for_bit(store: Store, base: dict[str, Any]) -> None:
    params, head = near(base, 1), random_head(1)
    saved = store.save(record_of("m"), jax.tree.map(jnp.asarray, params), head)
    again = Store.open(store.path)
    assert same_bits(again.base(), base)
    found_params, found_head = again.load("m")
    assert same_bits(found_params, params)
    assert same_bits(found_head, head)
    assert same_bits(again.load("m", verify=False)[0], params)
    assert again.names() == ["m"]
    assert "m" in again
    assert "n" not in again
    assert repr(again.record("m")) == repr(saved)  # repr: a metric is NaN
    assert again.verify() == []


def test_record_says_what_made_the_member(store: Store, base: dict[str, Any]) -> None:
    given = record_of("m")
    saved = store.save(given, base, {})
    assert (saved.base_sha256, saved.config_sha256) == (store.base_sha256, store.config_sha256)
    assert saved.architecture == "tiny"
    assert len(saved.content_sha256) == 64
    assert saved.hyperparameters == {"learning_rate": 1e-4, "betas": [0.9, 0.999]}
    assert saved.metrics["accuracy"] == 0.81
    assert np.isnan(saved.metrics["matthews"])
    # Read past Orbax for speed; this is Orbax's own view of it.
    custom = ocp.metadata(store.path / "members" / "m").custom_metadata
    assert custom["about"]["record"]["content_sha256"] == saved.content_sha256


def test_bfloat16_task_vector_is_bfloat16_on_disk_and_close(store: Store, base: dict[str, Any]) -> None:
    params = near(base, 1)
    store.save(record_of("m"), params, random_head(1), dtype="bfloat16_task_vector")
    on_disk = ocp.load(store.path / "members" / "m")
    assert {leaf.dtype for leaf in jax.tree.leaves(on_disk["task_vector"])} == {np.dtype(ml_dtypes.bfloat16)}
    found, head = store.load("m")
    assert same_bits(head, random_head(1))
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))
    flat = [np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)]) for tree in (found, params, base)]
    error = np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1] - flat[2])
    assert 0 < error < 0.004


@pytest.mark.parametrize("dtype", ["float32", "bfloat16_task_vector"])
def test_a_store_of_the_first_format_reads_the_same(store: Store, base: dict[str, Any], dtype: Any) -> None:
    store.save(record_of("m"), near(base, 1), random_head(1), dtype=dtype)
    expected, pieces = store.load("m"), task_vector(store, "m")
    for folder in (store.path / "base", store.path / "members" / "m"):
        as_format_1(folder)
        assert list(folder.rglob("manifest.ocdbt"))
    old = Store.open(store.path)
    assert same_bits(old.base(), base)
    assert same_bits(old.load("m"), expected)
    assert same_bits(task_vector(old, "m"), pieces)
    assert old.verify() == []
    old.save(record_of("n"), near(base, 2), random_head(2))
    assert same_bits(Store.open(store.path).load("n")[0], near(base, 2))


def test_both_hashes_are_those_of_the_files(store: Store, base: dict[str, Any]) -> None:
    assert HASHES["blake3"]().hexdigest() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262", (
        "the published hash of no bytes"
    )
    store.save(record_of("m"), near(base, 1), random_head(1), dtype="bfloat16_task_vector")
    folder = store.path / "members" / "m"
    custom = ocp.metadata(folder).custom_metadata
    assert custom is not None
    assert custom["blake3"].keys() == custom["leaves"].keys() > {"head/bias", "task_vector/layers/0/scale"}
    for path, form in custom["leaves"].items():
        (file,) = (folder / "state" / path.replace("/", ".")).glob("0*")
        assert form["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
        assert custom["blake3"][path] == blake3(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16_task_vector"])
def test_a_store_from_before_blake3_is_the_same_population(store: Store, base: dict[str, Any], dtype: Any) -> None:
    """Results of points are kept under keys that contain these hashes: they must stay valid."""
    now = store.save(record_of("m"), near(base, 1), random_head(1), dtype=dtype)
    expected, pieces, key = store.load("m"), task_vector(store, "m"), key_of_middle(store)
    for folder in (store.path / "base", store.path / "members" / "m"):
        as_before_blake3(folder)
    old = Store.open(store.path)
    assert (old.base_sha256, old.record("m").content_sha256) == (store.base_sha256, now.content_sha256)
    assert key_of_middle(old) == key
    assert same_bits(old.base(), base)
    assert same_bits(old.load("m"), expected)
    assert same_bits(task_vector(old, "m"), pieces)
    assert old.verify() == []
    assert repr(old.save(record_of("m"), near(base, 1), random_head(1), dtype=dtype)) == repr(now), "the same member"
    assert make_store(store.path, base).base_sha256 == store.base_sha256, "the same base"
    (file,) = (store.path / "members" / "m" / "state").glob("*.layers.1.bias/0")
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    for read in (lambda: old.load("m"), lambda: task_vector(old, "m")):
        with pytest.raises(WsrError, match=r"members/m was changed on disk: leaf \w+/layers/1/bias: sha256 expected"):
            read()


def key_of_middle(store: Store) -> str:
    region = Region.from_store(store, Model("none", {}, 1, 1, init=lambda key: {}, encode=lambda params, batch: None))
    return key_of(region, np.full(len(region), 0.5), {"dataset": "d"}, "float32")


def test_keys_of_points_are_those_of_the_first_versions(tmp_path: Path) -> None:
    """Computed from the definition, without wsr's code: a change of any part would orphan all kept results."""

    def digest(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def content_of(leaves: dict[str, np.ndarray]) -> str:
        return digest(
            {
                path: {"sha256": hashlib.sha256(leaf.tobytes()).hexdigest(), "dtype": "float32", "shape": [*leaf.shape]}
                for path, leaf in leaves.items()
            }
        )

    ramp = np.arange(6, dtype=np.float32).reshape(2, 3)
    store = make_store(tmp_path / "store", {"a": {"b": ramp}})
    store.save(record_of("m"), {"a": {"b": ramp + 1}}, {"bias": ramp[0]})
    member = content_of({"params/a/b": ramp + 1, "head/bias": ramp[0]})
    assert key_of_middle(store) == digest(
        {
            "model": ["none", {}],
            "base": content_of({"a/b": ramp}),
            "point": [[member, (0.5).hex()]],
            "dataset": "d",
        }
    )


def test_orbax_reads_what_is_stored(store: Store, base: dict[str, Any]) -> None:
    store.save(record_of("m"), near(base, 1), random_head(1))
    assert same_bits(ocp.load(store.path / "members" / "m"), {"params": near(base, 1), "head": random_head(1)})


def test_a_format_of_the_future_is_refused(store: Store, base: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsr.store.checkpoint.FORMAT", 4)
    with pytest.raises(
        WsrError, match=r"members/m: has format 4 of another version of wsr; this version reads formats 1 to 3"
    ):
        store.save(record_of("m"), base, {})


def task_vector(store: Store, name: str) -> dict[str, np.ndarray]:
    """Read in pieces of 7 entries."""
    opened, found = store.open_task_vector(name), {}
    for path, leaf in flatten(store.base()).items():
        read, found[path] = opened(path), np.empty(leaf.size, np.float32)
        for start in range(0, leaf.size, 7):
            read(start, found[path][start : start + 7])
    return found


def test_pieces_of_a_task_vector_are_the_difference_from_the_base(store: Store, base: dict[str, Any]) -> None:
    store.save(record_of("m"), near(base, 1), random_head(1))
    expected = flatten(jax.tree.map(np.subtract, near(base, 1), base))
    assert same_bits(task_vector(store, "m"), {path: leaf.reshape(-1) for path, leaf in expected.items()})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16_task_vector"])
def test_one_leaf_equals_the_leaf_of_the_whole(store: Store, base: dict[str, Any], dtype: Any) -> None:
    store.save(record_of("m"), near(base, 1), random_head(1), dtype=dtype)
    whole, _ = store.load("m")
    assert same_bits(store.load_leaf("m", "layers/0/query/kernel"), whole["layers"]["0"]["query"]["kernel"])
    two = store.load_leaves("m", ["layers/1/bias", "layers/0/scale"])
    assert same_bits(
        two, {"layers/1/bias": whole["layers"]["1"]["bias"], "layers/0/scale": whole["layers"]["0"]["scale"]}
    )
    with pytest.raises(WsrError, match="no such leaf: layers/9"):
        store.load_leaf("m", "layers/9")


def test_base_cannot_be_changed_by_a_reader(store: Store) -> None:
    with pytest.raises(ValueError, match="read-only"):
        store.base()["layers"]["0"]["query"]["bias"][0] = 1  # type: ignore[index]


def test_saving_the_same_member_again_does_nothing(store: Store, base: dict[str, Any]) -> None:
    first = store.save(record_of("m"), near(base, 1), random_head(1))
    written = {path: path.stat().st_mtime_ns for path in store.path.rglob("*") if path.is_file()}
    second = store.save(record_of("m"), near(base, 1), random_head(1))
    assert repr(first) == repr(second)
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*") if path.is_file()} == written


def test_another_member_of_the_same_name_is_refused(store: Store, base: dict[str, Any]) -> None:
    store.save(record_of("m"), near(base, 1), random_head(1))
    with pytest.raises(WsrError, match=r"'m'.*seed is 3 in the store, 4 here.*content_sha256"):
        store.save(record_of("m", seed=4), near(base, 2), random_head(1))
    assert same_bits(store.load("m")[0], near(base, 1))


def test_another_base_is_refused_with_every_difference(store: Store, base: dict[str, Any]) -> None:
    other = {
        **base,
        "extra": np.ones(2, np.float32),
        "embeddings": {"tokens": base["embeddings"]["tokens"][:40]},
    }
    other["layers"] = {"0": {**base["layers"]["0"], "scale": np.asarray(np.float32(9))}}
    with pytest.raises(WsrError) as error:
        make_store(store.path, other, model_name="bert", model_config={**CONFIG, "hidden": 32, "new": 1})
    for part in (
        "architecture 'tiny' in the store, 'bert' here",
        "config hidden: 16 in the store, 32 here",
        "config new: None in the store, 1 here",
        "leaf extra is unexpected",
        "leaf layers/1/bias is missing",
        "leaf embeddings/tokens: shape expected [50, 16], found [40, 16]",
        "leaf layers/0/scale: sha256 expected",
    ):
        assert part in str(error.value)
    assert "pooling" not in str(error.value)
    assert "\n" not in str(error.value)
    assert same_bits(make_store(store.path, base).base(), base)


def test_params_that_cannot_be_stored_are_refused_by_leaf(store: Store, base: dict[str, Any]) -> None:
    bad = near(base, 1)
    bad["layers"]["0"]["query"] = {"kernel": np.zeros((16, 16)), "bias": np.full(16, np.nan, np.float32)}
    bad["layers"]["1"]["bias"] = [1.0]
    with pytest.raises(WsrError) as error:
        store.save(record_of("m"), bad, {})
    for part in (
        "layers/0/query/kernel is float64 and not float32",
        "layers/0/query/bias holds NaN",
        "layers/1/bias is a list",
    ):
        assert part in str(error.value)
    with pytest.raises(WsrError, match=r"leaf layers/1/bias is missing"):
        store.save(record_of("m"), {**base, "layers": {"0": base["layers"]["0"]}}, {})
    with pytest.raises(WsrError, match=r"kernel is bfloat16"):
        store.save(record_of("m"), base, {"kernel": jnp.ones((2, 2), jnp.bfloat16)})
    assert store.names() == []


def test_leaves_whose_names_orbax_would_confuse_are_refused(tmp_path: Path) -> None:
    one, two = np.ones(3, np.float32), np.zeros(3, np.float32)
    with pytest.raises(WsrError, match=r"a\.b names two leaves"):
        make_store(tmp_path / "store", {"a.b": one, "a": {"b": two}})
    with pytest.raises(WsrError, match="without '/'"):
        make_store(tmp_path / "store", {"a/b": one})
    with pytest.raises(WsrError, match="a is an empty dict"):
        make_store(tmp_path / "store", {"a": {}, "b": one})


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\\b", "..", "a..b", ".hidden", "-o", "a\n", "x" * 201, "m.orbax-checkpoint-tmp"]
)
def test_unsafe_names_are_refused(store: Store, base: dict[str, Any], name: str) -> None:
    with pytest.raises(WsrError, match="not a safe file name"):
        store.save(record_of(name), base, {})
    with pytest.raises(WsrError, match="not a safe file name"):
        store.quarantine(record_of(name), 1, "loss is NaN")
    assert name not in store


def test_record_of_another_base_is_refused(store: Store, base: dict[str, Any]) -> None:
    with pytest.raises(WsrError, match="base_sha256 expected"):
        store.save(record_of("m", base_sha256="0" * 64), base, {})


def test_record_that_is_not_json_is_refused(store: Store, base: dict[str, Any]) -> None:
    with pytest.raises(WsrError, match=r"member 'm' cannot be written as JSON.*ndarray"):
        store.save(record_of("m", hyperparameters={"schedule": np.ones(2)}), base, {})


def test_quarantine_lists_what_became_non_finite(store: Store) -> None:
    assert store.quarantined() == []
    record = record_of("m", metrics={}, hyperparameters={})
    store.quarantine(record, 17, "loss is NaN")
    [found] = Store.open(store.path).quarantined()
    completed = replace(record, base_sha256=store.base_sha256, architecture="tiny", config_sha256=store.config_sha256)
    assert found == Quarantined(completed, 17, "loss is NaN")
    assert store.names() == []
    (store.path / "quarantine" / "m.json").write_text("{")
    with pytest.raises(WsrError, match=r"m\.json cannot be read"):
        store.quarantined()


@pytest.mark.parametrize("content", [None, "{", '{"format": 1}'])
def test_store_json_is_rebuilt(store: Store, base: dict[str, Any], content: str | None) -> None:
    store.save(record_of("m"), base, {})
    path = store.path / "store.json"
    before = json.loads(path.read_text())
    path.unlink() if content is None else path.write_text(content)
    again = Store.open(store.path)
    assert json.loads(path.read_text()) == before
    assert before["model_config"] == {**CONFIG, "kinds": ["a", "b"]}
    assert same_bits(again.load("m")[0], base)


def test_lost_base_can_be_brought_back_and_no_other(store: Store, base: dict[str, Any]) -> None:
    store.save(record_of("m"), near(base, 1), {})
    shutil.rmtree(store.path / "base")
    with pytest.raises(WsrError, match="no folder base/"):
        Store.open(store.path)
    with pytest.raises(WsrError, match="not the base of these members"):
        make_store(store.path, random_params(5))
    make_store(store.path, base)
    assert Store.open(store.path).verify() == []


def test_a_folder_of_something_else_is_refused(tmp_path: Path, base: dict[str, Any]) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(WsrError, match=r"neither empty nor a store: it holds thesis\.tex"):
        make_store(tmp_path, base)
    with pytest.raises(WsrError, match="is a file"):
        make_store(tmp_path / "thesis.tex", base)
    with pytest.raises(WsrError, match="is not a store"):
        Store.open(tmp_path / "nothing")


def test_missing_member_is_named(store: Store) -> None:
    with pytest.raises(WsrError, match="no member 'm'"):
        store.load("m")


def test_records_of_earlier_versions_lack_what_was_added_later() -> None:
    later = {"pieces": 4, "rematerialised": True, "shared_by": 2}
    content = record_to_json(record_of("m", data={"max_length": 48, "label_names": ("a", "b")}, **later))
    found = record_from_json(content, "here")
    assert found.data == {"max_length": 48, "label_names": ["a", "b"]}
    assert (found.pieces, found.rematerialised, found.shared_by) == (4, True, 2)
    for name in ("data", *later):
        del content[name]
    found = record_from_json(content, "here")
    assert (found.data, found.pieces, found.rematerialised, found.shared_by) == ({}, 1, False, 1)
    del content["seed"]
    with pytest.raises(WsrError, match="not the record of a member"):
        record_from_json(content, "here")
