"""Stores in a bucket: what one machine puts another reads whole or not at all. A cache folder stands for a machine."""

import itertools
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fault_trials import Trials
from fsspec.implementations.memory import MemoryFileSystem
from test_store import make_store, near, random_head, random_params, record_of, same_bits

from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.scores import keep_scores, scores_of
from wsr.models import export, load
from wsr.runtime import buckets
from wsr.store import Store
from wsr.store.results import Results

BASE = random_params(0)
MARK = "_CHECKPOINT_METADATA"
Machine = Callable[[str], None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """``machine("a")``: from here on we are on machine a, which has a cache of its own."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    yield lambda name: monkeypatch.setenv("WSR_CACHE", str(tmp_path / "caches" / name))
    buckets.settle()


def in_bucket(path: str) -> dict[str, bytes]:
    """The objects below a path of the bucket in memory."""
    files = fsspec.filesystem("memory")
    return {name.removeprefix("/bucket/"): files.cat_file(name) for name in files.find(f"/bucket/{path}")}


@pytest.fixture(params=["memory://bucket/s", "file://{}/bucket/s"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.param.format(tmp_path)


def test_what_one_machine_saves_another_reads_bit_for_bit(machine: Machine, url: str, tmp_path: Path) -> None:
    machine("a")
    first = make_store(url, BASE)
    for seed, name in enumerate(["m", "n"]):
        first.save(record_of(name), near(BASE, seed), random_head(seed))
    local = make_store(tmp_path / "local", BASE)
    expected = local.save(record_of("m"), near(BASE, 0), random_head(0))
    machine("b")
    second = Store.open(url)
    assert second.path != first.path
    assert second.where == first.where == url
    assert second.names() == ["m", "n"]
    assert second.record("m").content_sha256 == expected.content_sha256
    assert same_bits(second.load("m"), local.load("m"))
    assert same_bits(second.base(), BASE)
    assert second.verify() == []
    second.save(record_of("o"), near(BASE, 2), {})
    assert first.names() == ["m", "n", "o"]  # which was opened before
    assert same_bits(first.load("o")[0], near(BASE, 2))


def test_weights_come_when_they_are_read_and_no_others(machine: Machine) -> None:
    machine("a")
    first = make_store("memory://bucket/s", BASE)
    for name in ("m", "n"):
        first.save(record_of(name), near(BASE, 1), {})
    machine("b")
    second = Store.open("memory://bucket/s")
    assert [record.name for record in second.records()] == ["m", "n"]
    assert second.kept_as("m")[0] == "float32"

    def weights(name: str) -> list[Path]:
        return list((second.path / "members" / name).rglob("0*"))

    assert not weights("m")
    expected = near(BASE, 1)["layers"]["0"]["query"]["bias"]
    assert second.load_leaf("m", "layers/0/query/bias").tobytes() == expected.tobytes()
    assert weights("m")
    assert not weights("n")
    opened, out = second.open_task_vector("n")("layers/1/bias"), np.empty(16, np.float32)
    opened(0, out)
    assert out.tobytes() == (near(BASE, 1)["layers"]["1"]["bias"] - BASE["layers"]["1"]["bias"]).tobytes()


def test_the_files_beside_the_weights_come_along(machine: Machine, tiny: Any, tmp_path: Path) -> None:
    machine("a")
    export(tiny, tmp_path / "base")
    base = load(tmp_path / "base")
    template = tmp_path / "chat_template.jinja"
    template.write_text("own")
    first = Store.create_for("memory://bucket/s", base)
    first.save(record_of("m"), base.params, {}, companions={"chat_template.jinja": template})
    shutil.rmtree(tmp_path / "base")
    machine("b")
    second = Store.open("memory://bucket/s")
    checkpoint = second.checkpoint()
    assert checkpoint.processor.get_vocab() == tiny.processor.get_vocab()
    assert checkpoint.folder is not None
    files = second.companions(["m"])
    assert files["chat_template.jinja"].read_text() == "own"
    assert {"config.json", "tokenizer.json"} <= files.keys()
    assert all(path.is_relative_to(second.path) for path in files.values())


def test_the_same_member_again_does_nothing_and_another_is_refused(machine: Machine) -> None:
    machine("a")
    make_store("memory://bucket/s", BASE).save(record_of("m"), near(BASE, 1), {})
    before = in_bucket("s/members")
    machine("b")
    second = make_store("memory://bucket/s", BASE)
    second.save(record_of("m"), near(BASE, 1), {})
    with pytest.raises(WsrError, match="another member 'm', members never change: content_sha256"):
        second.save(record_of("m"), near(BASE, 2), {})
    assert in_bucket("s/members") == before
    with pytest.raises(WsrError, match="population of another base"):
        make_store("memory://bucket/s", random_params(5))


def test_what_was_found_of_members_comes_along(machine: Machine) -> None:
    machine("a")
    first = make_store("memory://bucket/s", BASE)
    hash_of_m = first.save(record_of("m"), near(BASE, 1), {}).content_sha256
    first.gram_file.add([hash_of_m], np.array([[4.0]]))
    first.quarantine(record_of("bad", metrics={}), 17, "loss is NaN")
    Results.on_disk(first.path / "points").put("key", loss=np.ones(1))
    row = {"members": ["m"], "coefficients": [1.0], "dataset": "d", "metric": "loss", "n": 3, "value": 0.5}
    keep_scores(first, [row])
    buckets.settle()
    machine("b")
    second = Store.open("memory://bucket/s")
    assert second.gram_file.read([hash_of_m]) == [[4.0]]
    assert [entry.record.name for entry in second.quarantined()] == ["bad"]
    assert Results.on_disk(second.path / "points").get("key")["loss"] == [1.0]
    assert scores_of(second, {"m": 1.0}) == [row]


def test_a_shelf_in_a_bucket_holds_stores_and_points(machine: Machine) -> None:
    for name in ("a", "b"):
        machine(name)
        shelf = buckets.folder_of("memory://bucket/shelf/")
        store, points = make_store(shelf / "stores" / "full", BASE), Results.on_disk(shelf / "points")
        assert store.where == "memory://bucket/shelf/stores/full"
        if name == "a":
            store.save(record_of("m"), near(BASE, 1), {})
            points.put("key", loss=np.ones(1))
            buckets.settle()
        assert store.names() == ["m"]
        assert "key" in points


def test_a_member_removed_from_the_bucket_is_gone_everywhere(machine: Machine) -> None:
    machine("a")
    first = make_store("memory://bucket/s", BASE)
    first.save(record_of("m"), near(BASE, 1), {})
    fsspec.filesystem("memory").rm("/bucket/s/members/m", recursive=True)
    assert first.names() == []
    first.save(record_of("m"), near(BASE, 2), {})
    assert same_bits(Store.open("memory://bucket/s").load("m")[0], near(BASE, 2))


# Faults.


class Cut:
    """The file system in memory, of whose calls (``put_file`` or ``get_file``) one does not come back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, call: str):
        self.calls, self.fails = 0, 0
        self.meanwhile: Callable[[], object] = self._fail
        original = getattr(MemoryFileSystem, call)

        def cut(files: MemoryFileSystem, *words: Any, **more: Any) -> Any:
            self.calls += 1
            if self.calls == self.fails:
                self.meanwhile()
            return original(files, *words, **more)

        monkeypatch.setattr(MemoryFileSystem, call, cut)

    def at(self, call: int, meanwhile: Callable[[], object] | None = None) -> None:
        self.calls, self.fails = 0, call
        self.meanwhile = meanwhile or self._fail

    @staticmethod
    def _fail() -> None:
        raise OSError("connection reset")


def boundaries(calls: int, often: int) -> list[int]:
    """At most ``often`` of the calls 1 to ``calls``, with both ends."""
    return sorted({round(1 + part * (calls - 1) / (often - 1)) for part in range(often)})


@pytest.mark.fault
def test_an_upload_cut_anywhere_is_not_seen_and_tried_again(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, trials: Trials
) -> None:
    machine("writer")
    writer, cut = make_store("memory://bucket/s", BASE), Cut(monkeypatch, "put_file")
    buckets.settle()
    cut.at(0)
    expected = writer.save(record_of("undisturbed"), near(BASE, 1), random_head(1)).content_sha256
    tried = boundaries(cut.calls, trials(6, torture=300))
    for number in tried:
        name = f"m{number}"
        machine("writer")
        cut.at(number)
        with pytest.raises(
            WsrError, match=r"memory://bucket/s.* cannot be written: OSError: connection reset"
        ) as error:
            writer.save(record_of(name), near(BASE, 1), random_head(1))
        assert "\n" not in str(error.value)
        machine(f"reader-{number}")
        reader = Store.open("memory://bucket/s")
        assert name not in reader
        assert reader.verify() == []
        machine("writer")
        assert writer.save(record_of(name), near(BASE, 1), random_head(1)).content_sha256 == expected
        assert same_bits(reader.load(name) if name in reader else None, (near(BASE, 1), random_head(1)))
    assert not list((writer.path / "writing").iterdir())
    trials.note("upload to a bucket cut at a file boundary", uploads=len(tried), lost=0, seen_by_half=0)


@pytest.mark.fault
def test_a_download_cut_anywhere_is_gone_on_with(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, trials: Trials
) -> None:
    machine("writer")
    make_store("memory://bucket/s", BASE).save(record_of("m"), near(BASE, 1), random_head(1))
    cut = Cut(monkeypatch, "get_file")
    machine("counted")
    Store.open("memory://bucket/s").load("m")
    tried = boundaries(cut.calls, trials(6, torture=300))
    for number in tried:
        machine(f"reader-{number}")
        cut.at(number)
        with pytest.raises(WsrError, match="cannot be read: OSError: connection reset"):
            Store.open("memory://bucket/s").load("m")
        reader = Store.open("memory://bucket/s")
        assert same_bits(reader.load("m"), (near(BASE, 1), random_head(1)))
        assert not list(reader.path.rglob("*.tmp"))
    trials.note("download from a bucket cut at a file boundary", downloads=len(tried), lost=0)


def two_writers(machine: Machine) -> dict[str, Store]:
    """Machines a and b with one store."""
    stores = {}
    for name in ("a", "b"):
        machine(name)
        stores[name] = make_store("memory://bucket/s", BASE)
    buckets.settle()
    return stores


@pytest.mark.fault
@pytest.mark.parametrize("same", [True, False])
def test_two_writers_of_a_member_leave_one_whole(machine: Machine, monkeypatch: pytest.MonkeyPatch, same: bool) -> None:
    stores = two_writers(machine)
    cut = Cut(monkeypatch, "put_file")
    theirs = near(BASE, 1 if same else 2)
    # In the midst of a's upload b puts the whole member.
    cut.at(5, lambda: stores["b"].save(record_of("m"), theirs, {}))
    if same:
        stores["a"].save(record_of("m"), near(BASE, 1), {})
    else:
        with pytest.raises(WsrError, match="members never change: content_sha256"):
            stores["a"].save(record_of("m"), near(BASE, 1), {})
    machine("reader")
    for store in (Store.open("memory://bucket/s"), stores["a"], stores["b"]):
        assert same_bits(store.load("m")[0], theirs)
        assert store.verify() == []


@pytest.mark.fault
def test_two_writers_at_the_last_file_still_leave_one_whole(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = two_writers(machine)
    cut = Cut(monkeypatch, "put_file")
    cut.at(0)
    stores["b"].save(record_of("counted"), near(BASE, 1), {})
    cut.at(cut.calls, lambda: stores["b"].save(record_of("m"), near(BASE, 2), {}))  # both marks are put
    stores["a"].save(record_of("m"), near(BASE, 1), {})
    machine("reader")
    reader = Store.open("memory://bucket/s")
    assert same_bits(reader.load("m")[0], near(BASE, 1))
    assert reader.verify() == []


@pytest.mark.fault
def test_what_changed_in_the_bucket_is_never_silent(machine: Machine, trials: Trials) -> None:
    machine("writer")
    make_store("memory://bucket/s", BASE).save(record_of("m"), near(BASE, 1), random_head(1))
    leaves = [path for path in in_bucket("s/members/m") if path.rpartition("/")[2][0] == "0"]
    files, caught = fsspec.filesystem("memory"), 0
    draw = np.random.default_rng(0)
    for number, how in itertools.product(range(trials(4, torture=100)), ("flipped", "truncated", "gone")):
        path = "/bucket/" + leaves[draw.integers(len(leaves))]
        content = bytearray(files.cat_file(path))
        damaged = bytearray(content)
        damaged[draw.integers(len(content))] ^= 1 << draw.integers(8)
        if how == "gone":
            files.rm(path)
        else:
            files.pipe_file(path, bytes(damaged if how == "flipped" else content[:-1]))
        machine(f"reader-{number}-{how}")
        with pytest.raises(WsrError, match=r"members/m.*" + ("blake3 expected" if how == "flipped" else "")):
            Store.open("memory://bucket/s").load("m")
        caught += 1
        files.pipe_file(path, bytes(content))
    machine("at the end")
    assert Store.open("memory://bucket/s").verify() == []
    trials.note("an object of the bucket changed, cut or removed", faults=caught, silent=0)


@pytest.mark.fault
def test_a_bucket_that_may_only_be_read_is_a_good_store(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine("writer")
    make_store("memory://bucket/s", BASE).save(record_of("m"), near(BASE, 1), {})
    buckets.settle()
    cut = Cut(monkeypatch, "put_file")
    monkeypatch.setattr(MemoryFileSystem, "put_file", lambda *_, **__: cut._fail())
    machine("reader")
    reader = Store.open("memory://bucket/s")
    points = Results.on_disk(reader.path / "points")
    for key in ("one", "two"):
        points.put(key, loss=np.ones(1))
    buckets.settle()
    assert "one" in Results.on_disk(reader.path / "points")
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "files that can be computed again stay on this machine only: memory://bucket/s" in told


def test_names_that_lead_out_of_the_folder_are_refused(machine: Machine, tmp_path: Path) -> None:
    machine("writer")
    make_store("memory://bucket/s", BASE).save(record_of("m"), near(BASE, 1), {})
    [payload] = {path.split("/")[3] for path in in_bucket("s/members/m") if "payload-" in path}
    evil = MemoryFileSystem.store["/bucket/s/store.json"]
    MemoryFileSystem.store[f"/bucket/s/members/m/{payload}/../../../../evil"] = evil
    machine("reader")
    with pytest.raises(WsrError, match=r"holds the unsafe name '\.\./\.\./\.\./\.\./evil'; remove it"):
        Store.open("memory://bucket/s").load("m")
    assert not list(tmp_path.rglob("evil"))


# What a person can get wrong.


def test_what_is_no_store_is_said_in_one_line(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("a")
    with pytest.raises(WsrError, match=r"^memory://bucket/none is not a store: it has no folder base/$"):
        Store.open("memory://bucket/none")
    assert not Store.is_at("memory://bucket/none")
    with pytest.raises(
        WsrError, match=r"^xyz://b/s: Protocol not known: xyz; expected a folder or a URL such as gs://"
    ):
        Store.open("xyz://b/s")
    monkeypatch.setitem(sys.modules, "gcsfs", None)  # as if it were not installed
    with pytest.raises(WsrError, match=r"^gs://b/s: support for gs:// is not installed: pip install 'wsr\[gcs\]'$"):
        Store.open("gs://b/s")


def test_a_bucket_that_does_not_answer_is_not_waited_for(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("a")
    end = threading.Event()
    monkeypatch.setattr(MemoryFileSystem, "cat", lambda *_, **__: end.wait(30))
    monkeypatch.setattr(buckets, "ANSWER_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(WsrError, match=r"memory://bucket/s: no answer in 0\.1 s; is the network up, are you logged in"):
        Store.open("memory://bucket/s")
    assert time.monotonic() - start < 15
    end.set()


def test_a_bucket_that_refuses_is_said_in_one_line(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("a")

    def forbidden(*words: Any, **more: Any) -> None:
        raise OSError("Forbidden: bucket/s\nAnonymous caller does not have storage.objects.list access")

    monkeypatch.setattr(MemoryFileSystem, "ls", forbidden)
    with pytest.raises(WsrError) as error:
        Store.open("memory://bucket/s")
    assert "cannot be read: OSError: Forbidden: bucket/s Anonymous caller" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.long
def test_verbs_take_a_url(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"file://{tmp_path}/bucket/mine"
    recipe = ["--size=160", "--epochs=4", "--learning_rate=0.01", "--max_length=48"]
    machine("a")
    assert main(["train", f"--store={url}", "--base=tiny", "--datasets=made_up_a1", "--seeds=2", *recipe]) == 0
    rows = {}
    for name in ("b", "c"):
        machine(name)
        capsys.readouterr()
        assert main(["ls", url]) == 0
        assert capsys.readouterr().out.startswith(f"{url}: tiny")
        on = ["--on=made_up_a2", "--max_length=48", "--probe_size=40", "--test_size=40", "--interior=2"]
        assert main(["evaluate", f"--store={url}", *on, f"--out={tmp_path / name}"]) == 0
        buckets.settle()
        rows[name] = (tmp_path / name).read_text()
        points = {path: path.stat().st_mtime_ns for path in (tmp_path / "bucket/mine/points").iterdir()}
        assert rows.setdefault("points", str(points)) == str(points)  # c has evaluated none
    assert rows["b"] == rows["c"]
    assert len(rows["b"].splitlines()) > 3
    assert main(["verify", url]) == 0
    assert "2 of 2 members are whole" in capsys.readouterr().out
    for leaf in (tmp_path / "bucket/mine/members").glob("made_up_a1-full-n160-s1/payload-*/state/*/0*"):
        leaf.write_bytes(leaf.read_bytes()[:-1])
    machine("d")
    assert main(["verify", url]) == 1
    told = capsys.readouterr()
    assert "damaged: member made_up_a1-full-n160-s1: " in told.out
    assert "1 of 2 members are whole" in told.err
    assert main(["verify", url, "--repair"]) == 1
    assert "delete the damaged parts there" in capsys.readouterr().err
