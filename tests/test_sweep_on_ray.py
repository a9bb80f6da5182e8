"""Sweeps on Ray: the same bits as elsewhere, workers that are killed, a driver that is told to end, no Ray at all."""

import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sweep_worlds import (
    begun,
    contents,
    fake_units,
    jobs_of,
    on_shelf,
    rows_of_an_experiment,
    stopped,
    store_of,
    training,
    whole,
)

from wsr.cli import main
from wsr.errors import WsrError
from wsr.runtime.preemption import STATUS, TOLD
from wsr.store import Store
from wsr.training.members import train_members
from wsr.training.sweep.ray_engine import OnRay
from wsr.training.sweep.run import HERE
from wsr.training.sweep.units import Unit

TESTS = Path(__file__).parent
TRAIN = ["--base=tiny", "--datasets=made_up_a1", "--size=64", "--max_length=48", "--batch_size=16", "--epochs=1"]


@pytest.fixture(scope="module")
def ray(trials):
    """Ray on this machine, started once: it is slow to start."""
    ray = pytest.importorskip("ray")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = f"{TESTS.parent}:{TESTS}"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address="local", num_cpus=trials(2, torture=4), include_dashboard=False, logging_level="error")
    yield ray
    ray.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.mark.fault
@pytest.mark.long
def test_a_run_on_ray_with_a_killed_worker_makes_every_unit(tiny, ray, tmp_path, trials, capfd):
    count = trials(6, torture=200)
    store, log, deadly = store_of(tiny, tmp_path / "store"), tmp_path / "log", tmp_path / "deadly"

    def kill():
        while not (deadly.exists() and deadly.read_text()):
            time.sleep(0.02)
        os.kill(int(deadly.read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    OnRay().make(fake_units(count, log, deadly), tiny.model, store)
    killer.join()
    assert f"{2 * count} of {2 * count} members are in the store" in capfd.readouterr().out
    assert whole(store, count)
    times = Counter(begun(log))
    assert times.pop("m4") == 2, "the unit of the killed worker"
    assert set(times.values()) == {1}
    OnRay().make(fake_units(count, log), tiny.model, store)
    assert len(begun(log)) == count + 1, "what is there is passed over"
    trials.note(
        "kill -9 of a worker of Ray",
        workers=trials(2, torture=4),
        units=count,
        units_begun_again=1,
        units_missing=0,
        members_damaged=0,
    )


@pytest.mark.long
def test_ray_trains_the_same_bits_and_names_what_failed(tiny, ray, tmp_path):
    clean = store_of(tiny, tmp_path / "clean")
    train_members(tiny.model, clean, jobs_of(tiny)[:2], chunk=2)
    _, store, units = training(tmp_path / "store", tmp_path / "log")
    OnRay().make(units[:1], tiny.model, store)
    assert contents(store) == contents(clean)
    broken = [Unit(("missing",), _broken, 1), *units[1:]]
    with pytest.raises(WsrError) as told:
        OnRay().make(broken, tiny.model, store)
    assert str(told.value) == (
        "3 of 4 members are in the store; 1 of 3 units failed, the first: missing: no such thing, on any worker"
    )
    assert len(store.names()) == 5, "the others were made"
    assert OnRay({"CPU": 2}).ask(_how_many, tiny.model, store) == ("tiny", 5)


def _broken(model, store, counter):
    raise WsrError("no such thing, on any worker")


def _how_many(model, store):
    return model.name, len(store.names())


@pytest.mark.long
def test_an_experiment_on_ray_finds_what_one_process_finds(ray, few_resamples, tmp_path):
    rows = rows_of_an_experiment(tmp_path / "here", HERE)
    assert rows_of_an_experiment(tmp_path / "ray", OnRay()) == rows
    assert on_shelf(tmp_path / "ray" / "shelf") == on_shelf(tmp_path / "here" / "shelf")


@pytest.mark.fault
@pytest.mark.long
def test_a_driver_of_ray_that_is_told_to_end_loses_nothing(tmp_path, trials, ray):
    """Its workers end with it; what they were at is made again."""
    store = tmp_path / "store"
    words = ["train", f"--store={store}", *TRAIN, "--seeds=30", "--chunk=1"]
    status, complaint = stopped(["-m", "wsr.cli", *words, "--run=ray"], store, "members/*")
    assert status == STATUS
    assert complaint.splitlines()[-1] == f"wsr: error: {TOLD}"
    time.sleep(1)  # its workers end
    made = Store.open(store)
    before = contents(made)
    assert 1 <= len(before) < 30
    assert made.verify() == []
    assert main(words) == 0
    assert before.items() < contents(made).items()
    assert len(made.names()) == 30
    assert made.verify() == []
    trials.note("SIGTERM to the driver of Ray", signals=1, members_lost=0, damaged=0)


def test_ray_that_is_not_installed_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["train", f"--store={tmp_path / 'store'}", *TRAIN, "--seeds=1", "--run=ray"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "wsr: error: --run=ray needs Ray, which is not installed: pip install 'wsr[ray]'"


def test_a_cluster_that_is_not_there_is_one_line(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:1")
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", lambda **_: (_ for _ in ()).throw(ConnectionError("no such\nhost")))
    assert main(["train", f"--store={tmp_path / 'store'}", *TRAIN, "--seeds=1", "--run=ray"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "wsr: error: no Ray cluster at RAY_ADDRESS='nowhere.invalid:1': no such host"
