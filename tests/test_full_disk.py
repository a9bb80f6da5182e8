"""A full disk: the command fails, earlier members stay intact, and the command resumes once there is room."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wsr.store.checkpoint import sweep

TRAIN = ["--base=tiny", "--size=80", "--epochs=1", "--learning_rate=0.01", "--max_length=48", "--chunk=1"]
TRAIN += ["--datasets=made_up_a1", "--batch_size=16"]
EVALUATE = ["--on=made_up_a2", "--max_length=48", "--probe_size=40", "--test_size=40", "--interior=1"]

# Room is taken away from the process itself: no file may grow beyond so many bytes.
LIMITED = """
import contextlib, io, json, resource, sys
from wsr.cli import main
for words, most in json.loads(sys.argv[1]):
    own = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most or own[1], own[1]))
    told, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(printed):
        status = main(words)
    resource.setrlimit(resource.RLIMIT_FSIZE, own)
    print(json.dumps([status, told.getvalue(), printed.getvalue()]), flush=True)
"""


def run(steps: list[tuple[list[str], int | None]]) -> list[tuple[int, str, str]]:
    """Runs commands in one process, each with the largest file it may write; returns status, stderr, stdout of each."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, json.dumps(steps)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines() if line.startswith("[")]


def hashes(path: Path) -> dict[str, str]:
    from wsr.store import Store

    store = Store.open(path)
    assert store.verify() == []
    return {record.name: record.content_sha256 for record in store.records()}


@pytest.mark.long
@pytest.mark.fault
def test_no_room_is_an_error_and_work_goes_on_when_there_is(tmp_path: Path, trials: Any) -> None:
    store, clean = tmp_path / "store", tmp_path / "clean"

    def commands(path: Path) -> list[list[str]]:
        rows, page = path.with_suffix(".jsonl"), path.with_suffix(".map")
        return [
            ["train", f"--store={path}", *TRAIN, "--seeds=2"],
            ["evaluate", f"--store={path}", *EVALUATE, f"--out={rows}"],
            ["map", f"--store={path}", f"--out={page}"],
        ]

    # The undisturbed run first: it also leaves nothing to compile, which would be kept on the disk.
    steps: list[tuple[list[str], int | None]] = [(words, None) for words in commands(clean)]
    steps.append((["train", f"--store={store}", *TRAIN, "--seeds=1"], None))
    for words in commands(store):
        steps += [(words, most) for most in [400, 64, 200, 300][: trials(1, torture=4)]] + [(words, None)]
    done = run(steps)
    for (words, most), (status, told, printed) in zip(steps, done, strict=True):
        if most is None:
            assert status == 0, (words, told)
        else:
            assert status == 1, (words, most, printed)
            assert told.startswith("wsr: error: "), told
            assert told.count("\n") == 1, told
            assert "could not be written" in told or "cannot write" in told, told
    assert hashes(store) == hashes(clean)
    for name in ("clean.jsonl", "clean.map/map.csv", "clean.map/similarity.csv"):
        assert (tmp_path / name.replace("clean", "store")).read_bytes() == (tmp_path / name).read_bytes()
    sweep(store / "writing")  # as the next writer does: Orbax's threads may end after the save that failed
    left = [str(file) for file in tmp_path.rglob("*") if ".tmp" in file.name or "~" in file.name]
    assert left == []
    full = sum(most is not None for _, most in steps)
    trials.note("disk full", refused=full, lost=0, resumed=full)


@pytest.mark.long
@pytest.mark.fault
def test_a_small_disk_fills_up_and_is_emptied(tmp_path: Path, trials: Any) -> None:
    disk, ballast = tmp_path / "disk", tmp_path / "disk" / "ballast"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not allowed here: {mounted.stderr.decode().strip()}")
    try:
        fill = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import make_store, near, random_head, random_params, record_of
from wsr.errors import WsrError
base = random_params(0)
store = make_store({str(disk / "store")!r}, base)
open({str(ballast)!r}, "wb").write(bytes(3_600_000))
try:
    for seed in range(100):
        store.save(record_of(f"m{{seed:02}}"), near(base, seed), random_head(seed))
except WsrError as error:
    sys.exit(str(error))
"""
        full = subprocess.run([sys.executable, "-c", fill], capture_output=True, text=True, timeout=900)
        assert full.returncode == 1, full.stderr
        assert "could not be written" in full.stderr
        before = hashes(disk / "store")
        assert before
        ballast.unlink()
        room = fill.replace("bytes(3_600_000)", "b''").replace("range(100)", f"range({len(before) + 3})")
        subprocess.run([sys.executable, "-c", room], check=True, timeout=900)
        after = hashes(disk / "store")
        assert len(after) == len(before) + 3
        assert {name: after[name] for name in before} == before
        assert list((disk / "store" / "writing").iterdir()) == []
        trials.note("disk full", refused=1, lost=0, resumed=1)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
