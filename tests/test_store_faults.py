"""The store on a bad day: damaged files, killed and competing processes, a full disk."""

import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp
from test_store import as_before_blake3, as_format_1, make_store, near, random_head, random_params, record_of, same_bits

from wsr.errors import WsrError
from wsr.store import Store, checkpoint

BASE = random_params(0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = make_store(tmp_path / "store", BASE)
    for seed, name in enumerate(["a", "b"]):
        store.save(record_of(name), near(BASE, seed), random_head(seed))
    return store


@pytest.fixture(params=["format 1", "before BLAKE3", "today"])
def of_any_format(store: Store, request: pytest.FixtureRequest) -> Store:
    if request.param == "format 1":
        as_format_1(store.path / "members" / "a")
    if request.param == "before BLAKE3":
        as_before_blake3(store.path / "members" / "a")
    return store


def payload(store: Store, name: str) -> list[Path]:
    return sorted(path for path in (store.path / "members" / name).rglob("*") if path.stat().st_size and path.is_file())


def test_no_flipped_bit_is_silent(of_any_format: Store) -> None:
    store, bits = of_any_format, random.Random(0)
    expected = store.load("a")
    caught: dict[Path, list[str]] = {}
    for path in payload(store, "a"):
        content = path.read_bytes()
        caught[path] = []
        for position in positions_in(len(content)):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bits.randrange(8)
            path.write_bytes(flipped)
            try:
                # Some bytes say nothing about the member (a time, a file that Orbax no longer reads).
                assert same_bits(store.load("a"), expected), f"{path} at {position}: loaded wrong and silently"
            except WsrError as error:
                caught[path].append(str(error))
        path.write_bytes(content)
    assert same_bits(store.load("a"), expected)
    assert same_bits(store.load("b")[0], near(BASE, 1))
    messages = [message for found in caught.values() for message in found]
    assert all(str(store.path / "members" / "a") in message and "\n" not in message for message in messages)
    leaves = [path for path in caught if is_leaf(path)]
    if leaves:
        assert all(len(caught[path]) == len(positions_in(path.stat().st_size)) for path in leaves)
    else:
        data = max(caught, key=lambda path: path.stat().st_size if path.parent.name == "d" else 0)
        # Not each: Orbax leaves tree nodes that it has replaced in the file, and names files at random.
        assert caught[data], "flips in the file of the weights must be caught"
    assert caught[store.path / "members" / "a" / "_CHECKPOINT_METADATA"]


def positions_in(size: int) -> set[int]:
    return {0, *(part * size // 8 for part in range(1, 8)), size - 1}


def is_leaf(path: Path) -> bool:
    return path.parent.name != "d" and path.name[0] == "0"  # "0.0": the only chunk of an array


def test_changed_leaf_is_named_with_both_hashes(store: Store) -> None:
    data = max(payload(store, "a"), key=lambda path: path.stat().st_size)
    content = bytearray(data.read_bytes())
    clean, found = ocp.load(store.path / "members" / "a"), None
    for position in range(len(content) // 4, len(content)):
        content[position] ^= 1
        data.write_bytes(content)
        try:
            found = ocp.load(store.path / "members" / "a")
            break
        except ValueError:
            content[position] ^= 1
    assert found is not None
    assert not same_bits(found, clean), "Orbax alone loads the damaged leaf without a word"
    with pytest.raises(WsrError, match=r"members/a was changed.*leaf (params|head)/\S+: blake3 expected \w{64}, found"):
        store.load("a")
    [problem] = store.verify()
    assert "members/a" in problem
    assert same_bits(store.load("b")[0], near(BASE, 1))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_truncated_file_is_never_silent(of_any_format: Store, keep: float) -> None:
    store = of_any_format
    expected, caught = store.load("a"), set()
    for path in payload(store, "a"):
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        try:
            assert same_bits(store.load("a"), expected), f"{path} cut: loaded wrong and silently"
        except WsrError:
            caught.add(path)
        path.write_bytes(content)
    assert same_bits(store.load("a"), expected)
    assert store.path / "members" / "a" / "_CHECKPOINT_METADATA" in caught
    leaves = {path for path in payload(store, "a") if is_leaf(path)}
    assert leaves <= caught if leaves else any(path.parent.name == "d" for path in caught)


def test_changed_record_is_caught(store: Store) -> None:
    path = store.path / "members" / "a" / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text().replace('"accuracy": 0.81', '"accuracy": 0.99'))
    with pytest.raises(WsrError, match="members/a: metadata was changed on disk"):
        store.record("a")
    assert store.record("b").metrics["accuracy"] == 0.81


def test_missing_metadata_is_named_and_others_load(store: Store) -> None:
    (store.path / "members" / "a" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(WsrError, match="members/a: metadata cannot be read"):
        store.records()
    assert "a" in store
    store.load("b")


def test_renamed_member_is_caught(store: Store) -> None:
    (store.path / "members" / "a").rename(store.path / "members" / "c")
    with pytest.raises(WsrError, match="members/c: expected the name"):
        store.load("c")


def test_damaged_base_is_caught(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "copy")
    (tmp_path / "copy" / "base" / "_CHECKPOINT_METADATA").write_text("{")
    with pytest.raises(WsrError, match="base: metadata cannot be read"):
        Store.open(tmp_path / "copy")
    data = max((store.path / "base").rglob("0*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    again = Store.open(store.path)
    with pytest.raises(WsrError, match="base"):
        again.base()
    assert same_bits(again.load("a")[0], near(BASE, 0)), "whole members need no base"


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_store import make_store, near, random_head, random_params, record_of
base = random_params(0)
store = make_store(sys.argv[2], base)
print("ready", flush=True)
sys.stdin.readline()
for seed in range(int(sys.argv[3]), int(sys.argv[4])):
    saved = store.save(record_of(f"m{seed}"), near(base, seed), random_head(seed))
print(saved.content_sha256, flush=True)
"""


def start_writer(path: Path, first: int, last: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(path), str(first), str(last)]
    root = Path(__file__).parent.parent
    return subprocess.Popen(
        command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def begin(writer: subprocess.Popen[str]) -> None:
    assert writer.stdout is not None
    assert writer.stdin is not None
    assert writer.stdout.readline() == "ready\n"
    writer.stdin.write("\n")
    writer.stdin.flush()


@pytest.mark.long
def test_killed_writer_leaves_only_whole_members(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", BASE)
    writing, unfinished = store.path / "writing", 0
    for attempt in range(3):
        writer = start_writer(store.path, 0, 1000)
        begin(writer)
        members = len(store.names())
        while len(store.names()) < members + 1 or not any(writing.iterdir()):
            assert writer.poll() is None
        time.sleep(0.005 * attempt)
        writer.kill()
        writer.communicate()
        unfinished += any(writing.iterdir())
        again = Store.open(store.path)
        assert again.names()
        assert again.verify() == []
        for name in again.names():
            assert same_bits(again.load(name)[0], near(BASE, int(name[1:])))
    assert unfinished, "no kill fell into a write: the test showed nothing"
    make_store(tmp_path / "store", BASE)
    assert list(writing.iterdir()) == []


def test_only_leftovers_of_the_dead_are_swept(store: Store) -> None:
    host, own = socket.gethostname(), os.getpid()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    names = [f"{host}~{child.pid}~x.orbax-checkpoint-tmp", f"{host}~{own}~x", "elsewhere~1~x"]
    for name in names:
        (store.path / "writing" / name / "state").mkdir(parents=True)
    make_store(store.path, BASE)
    assert sorted(path.name for path in (store.path / "writing").iterdir()) == sorted(names[1:])


@pytest.mark.long
def test_two_writers_of_one_member_make_one_whole_member(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path / "store", 0, 6) for _ in range(2)]
    for writer in writers:
        begin(writer)
    results = [writer.communicate(timeout=60) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], results
    assert results[0][0] == results[1][0] != ""
    store = Store.open(tmp_path / "store")
    assert store.names() == [f"m{seed}" for seed in range(6)]
    assert store.verify() == []
    assert same_bits(store.load("m5")[0], near(BASE, 5))
    assert list((store.path / "writing").iterdir()) == []


FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, sys.argv[1])
from test_store import make_store, near, random_head, random_params, record_of
from wsr.errors import WsrError
base = random_params(0)
store = make_store(sys.argv[2], base)
store.base()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.save(record_of("m"), near(base, 1), random_head(1))
except WsrError as error:
    print(error)
"""


def test_full_disk_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(Path(__file__).parent), str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent, timeout=60)
    assert "members/m could not be written" in done.stdout, done
    assert len(done.stdout.splitlines()) == 1
    store = Store.open(tmp_path / "store")
    assert store.names() == []
    assert list((store.path / "writing").iterdir()) == []


def test_writes_that_end_after_the_error_leave_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    late: list[Path] = []

    def fails(folder: Path, *_: Any) -> None:
        late.extend(Path(f"{folder}.orbax-checkpoint-tmp") / leaf for leaf in ("first", "second"))
        late.pop(0).mkdir(parents=True)
        raise OSError("disk full")

    def ends_a_late_write(_: float) -> None:
        if late:
            late.pop().mkdir(parents=True)

    monkeypatch.setattr(checkpoint, "_save", fails)
    monkeypatch.setattr(checkpoint.time, "sleep", ends_a_late_write)
    with pytest.raises(WsrError, match="could not be written"):
        store.save(record_of("m"), near(BASE, 1), random_head(1))
    assert late == []
    assert list((store.path / "writing").iterdir()) == []


def test_saving_and_loading_print_nothing(tmp_path: Path) -> None:
    writer = start_writer(tmp_path / "store", 0, 2)
    begin(writer)
    printed, complaints = writer.communicate(timeout=60)
    assert writer.returncode == 0
    assert complaints == ""
    assert len(printed.splitlines()) == 1


def test_memory_of_loaded_members_is_their_own(store: Store) -> None:
    first: dict[str, Any] = store.load("a")[0]  # type: ignore[assignment]
    first["layers"]["1"]["bias"][:] = np.inf
    assert same_bits(store.load("a")[0], near(BASE, 0))
