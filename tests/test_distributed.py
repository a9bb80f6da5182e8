"""Several processes against one: the same rows, each point written once, and the end of all where one dies."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from wsr.runtime.devices import mesh_for
from wsr.runtime.hosts import deal
from wsr.runtime.preemption import STATUS, TOLD
from wsr.store import MemberRecord, Store

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).with_name("evaluation_of_several.py")
EVALUATE = [sys.executable, "-m", "wsr.cli", "evaluate"]
HEARTBEAT_SECONDS = 5
INTERIOR = 40


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(command: list, devices: int) -> subprocess.Popen:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        list(map(str, command)),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def several(folder: Path, processes: int, devices: int) -> list[dict]:
    """What each of some coupled processes found."""
    folder.mkdir()
    where = [f"localhost:{free_port()}", processes]
    running = [start([sys.executable, SCRIPT, folder, *where, number], devices) for number in range(processes)]
    told = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [0] * processes, told
    return [json.loads(printed.splitlines()[-1]) for printed, _ in told]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What a process alone finds, on one device."""
    done = start([sys.executable, SCRIPT, tmp_path_factory.mktemp("one")], devices=1)
    printed, complaints = done.communicate(timeout=300)
    assert done.returncode == 0, complaints
    found = json.loads(printed.splitlines()[-1])
    assert found["all"]["encoded"] == [[1, 1]] * 7
    return found


@pytest.mark.parametrize(
    ("processes", "devices"), [(1, 8), *(pytest.param(2, devices, marks=pytest.mark.long) for devices in (1, 2))]
)
def test_several_devices_and_processes_give_the_rows_of_one(one, tmp_path, processes, devices):
    found = several(tmp_path / "shared", processes, devices)
    for own in found:
        for request in ("all", "again", "one", "none", "half"):
            np.testing.assert_allclose(own[request]["losses"], one[request]["losses"], atol=1e-6)

    # Each point was written once, and by all processes together.
    wrote = [own["all"]["wrote"] for own in found]
    assert all(wrote)
    assert sorted(key for keys in wrote for key in keys) == sorted(one["all"]["wrote"])
    assert {file.stem for file in (tmp_path / "shared" / "points").iterdir()} == set(one["all"]["wrote"])
    # Nobody waited for anybody: points lay on all devices of one process.
    assert all(step == [devices, 1] for own in found for step in own["all"]["encoded"])

    # What is there is not evaluated again, however many processes know of it; one point is shared by its texts.
    for own in found:
        assert own["again"]["encoded"] == own["again"]["wrote"] == own["none"]["encoded"] == []
        assert own["one"]["encoded"] == [[processes * devices, processes]]
    assert sum(len(own["one"]["wrote"]) for own in found) == 1
    assert sum(len(own["half"]["wrote"]) for own in found) == (0 if processes == 1 else 7)

    if processes > 1:
        assert {own["others"] for own in found} == {
            "process 1 of 2 was asked for other points than process 0; give all processes the same command, "
            "store and data"
        }
        assert all(
            "process 1 on " in own["unshared"] and "a file system that they share" in own["unshared"] for own in found
        )
        assert {own["shared"] for own in found} == {""}
        assert not list((tmp_path / "shared").glob(".seen*"))


@pytest.mark.parametrize("points", range(10))
@pytest.mark.parametrize("processes", range(1, 9))
def test_every_point_has_one_keeper_and_every_process_a_part(monkeypatch, processes, points):
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    devices = [SimpleNamespace(process_index=number) for number in range(processes)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    shares, chosen = [], []
    mesh = mesh_for(1)
    monkeypatch.setattr("wsr.runtime.hosts.mesh_for", lambda points, *, devices: chosen.append(devices) or mesh)
    for number in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda number=number: number)
        shares.append(deal(points))
    kept = [number for share in shares if share.keeps for number in share.points]
    assert sorted(kept) == list(range(points))
    if points:
        assert all(share.points for share in shares)
    sizes = [len(share.points) for share in shares]
    assert max(sizes) - min(sizes) <= 1
    for number, share in enumerate(shares):
        together = [other for other in range(processes) if shares[other].points == share.points]
        if share.points:
            assert chosen[number] == (None if together == [number] else [devices[other] for other in together])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--coordinator=localhost:1"], "--coordinator is for --distributed"),
        (["--distributed", "--processes=2"], "--coordinator, --process is missing"),
        (
            ["--distributed", "--coordinator=localhost:1", "--processes=2", "--process=2"],
            "expected 0 to 1",
        ),
        (["--distributed", "--surrogate_tolerance=0.1"], "leave out --distributed"),
        (["--distributed"], "give --coordinator=HOST:PORT --processes=N --process=I"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(given, told, capsys, monkeypatch):
    from wsr.cli import main

    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: (_ for _ in ()).throw(ValueError("no address")))
    assert main(["evaluate", "--store=nowhere", "--on=made_up_a2", *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.fixture(scope="module")
def store(tiny, tmp_path_factory):
    """Three members near the tiny checkpoint."""
    made = Store.create(
        tmp_path_factory.mktemp("several") / "store",
        model_name="tiny",
        model_config=dict(tiny.model.config),
        base_name="tiny",
        base_params=tiny.params,
    )
    what = {"family": "made_up_a", "mode": "full", "size": 1, "hyperparameters": {}}
    where = {"jaxlib": "", "device_kind": "", "threads": 1, "group_size": 1}
    for seed in range(3):
        generator = np.random.default_rng(seed)
        params = jax.tree.map(
            lambda leaf, own=generator: (leaf + 0.05 * own.normal(size=leaf.shape)).astype(np.float32), tiny.params
        )
        metrics = {"test_score": 0.9, "chance": 0.5, "test_texts": 100.0}
        about = MemberRecord(name=f"m{seed}", dataset="made_up_a1", seed=seed, metrics=metrics, **what, **where)
        made.save(about, params, {})
    return made.path


def command(store: Path, out: Path, *more: object) -> list:
    what = ["--on=made_up_a2", "--max_length=48", "--probe_size=40", "--test_size=40", f"--interior={INTERIOR}"]
    return [*EVALUATE, f"--store={store}", f"--out={out}", *what, *more]


def coupled(store: Path, out: Path) -> list[subprocess.Popen]:
    port = free_port()
    where = [
        "--distributed",
        f"--coordinator=localhost:{port}",
        "--processes=2",
        f"--heartbeat_seconds={HEARTBEAT_SECONDS}",
    ]
    return [start(command(store, out, *where, f"--process={number}"), devices=1) for number in range(2)]


@pytest.fixture(scope="module")
def undisturbed(store, tmp_path_factory):
    """Rows of a run of one process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    shutil.copytree(store, folder / "store")
    done = start(command(folder / "store", folder / "rows.jsonl"), devices=1)
    _, complaints = done.communicate(timeout=300)
    assert done.returncode == 0, complaints
    return rows_of(folder / "rows.jsonl")


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("how", "victim"),
    [("kill -9", 1), ("kill -9", 0), ("SIGTERM", 1)],
)
@pytest.mark.long
def test_where_one_of_two_is_killed_the_other_ends_and_running_again_completes(
    how, victim, store, undisturbed, tmp_path, trials
):
    """Process 0 is the one that the others listen to."""
    often, slowest, points_kept = trials(1, torture=10), 0.0, 0
    moments = random.Random(victim)
    for attempt in range(often):
        place = tmp_path / str(attempt)
        shutil.copytree(store, place / "store")
        points, out = place / "store" / "points", place / "rows.jsonl"
        processes = coupled(place / "store", out)
        enough = moments.randrange(1, INTERIOR // 2)
        while len(list(points.glob("*.npz"))) < enough:
            assert [process.poll() for process in processes] == [None, None], [p.communicate() for p in processes]
            time.sleep(0.002)
        processes[victim].send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGTERM)
        killed = time.monotonic()
        _, complaints = processes[1 - victim].communicate(timeout=120)
        took = time.monotonic() - killed
        slowest = max(slowest, took)
        _, last_words = processes[victim].communicate()
        assert processes[1 - victim].returncode != 0, (complaints, processes[victim].returncode, last_words)
        assert took < HEARTBEAT_SECONDS + 5, complaints
        if how == "kill -9":
            assert processes[victim].returncode == -signal.SIGKILL
        else:  # JAX's runtime may abort it then, for the other does not leave with it
            assert processes[victim].returncode in (STATUS, -signal.SIGABRT)
            assert f"wsr: error: {TOLD}\n" in last_words
        assert not out.exists()

        kept = {file: file.stat().st_mtime_ns for file in points.glob("*.npz")}
        assert len(kept) >= enough
        points_kept += len(kept)
        again = coupled(place / "store", out)
        told = [process.communicate(timeout=300) for process in again]
        assert [process.returncode for process in again] == [0, 0], told
        assert told[1][0].replace("[Gloo]", "").count("\n") <= 2, "only process 0 reports"
        assert {file: file.stat().st_mtime_ns for file in kept} == kept
        found = rows_of(out)
        for row, expected in zip(found, undisturbed, strict=True):
            assert row["value"] == pytest.approx(expected["value"], abs=1e-6)
            assert row | {"value": 0} == expected | {"value": 0}
    trials.note(
        f"{how} of process {victim} of two that evaluate together",
        signals=often,
        heartbeat_seconds=HEARTBEAT_SECONDS,
        slowest_end_of_the_other_seconds=round(slowest, 1),
        points_kept=points_kept,
        points_lost=0,
        rows_that_differ=0,
    )
