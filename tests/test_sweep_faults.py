"""Sweeps and evaluations on a bad day: killed at random moments, told to end, many processes on one store.

What must hold: nothing that was finished is lost or damaged, at most one group is done again, and in the end every bit
is that of a run that nobody disturbed.
"""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sweep_worlds import (
    begun,
    contents,
    evaluate_points,
    jobs_of,
    store_of,
    whole,
)

from wsr.runtime.preemption import STATUS, TOLD
from wsr.store import Store
from wsr.store.results import Results
from wsr.training.members import train_members

TESTS = Path(__file__).parent
SIGNALS_AN_ORDER = 3
SIGNALS = {"kill -9": signal.SIGKILL, "SIGTERM": signal.SIGTERM}


class Forks:
    """Processes that do the work of sweeps; each starts in a moment, since what they import is there."""

    def __init__(self):
        self.waiting = {"begins": [], "ended": []}
        environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "PYTHONWARNINGS": "ignore"}
        self.script = subprocess.Popen(
            [sys.executable, str(TESTS / "sweep_process.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *orders):
        """Has the orders carried out at the same time; returns the processes, whose work has begun."""
        self.script.stdin.write(json.dumps(orders) + "\n")
        self.script.stdin.flush()
        return [int(self.told("begins")[0]) for _ in orders]

    def ended(self):
        """The status of the next process that ends; negative: the signal that killed it."""
        return int(self.told("ended")[1])

    def told(self, what):
        """The next line of a kind; those of the other kind wait, and what work prints is passed over."""
        while not self.waiting[what]:
            line = self.script.stdout.readline()
            assert line, "the script ended"
            kind, *words = line.split() or [""]
            if kind in self.waiting:
                self.waiting[kind].append(words)
        return self.waiting[what].pop(0)


@pytest.fixture(scope="module")
def forks():
    """The script that forks."""
    forks = Forks()
    yield forks
    forks.script.stdin.close()
    forks.script.wait(timeout=60)


@pytest.fixture(scope="module")
def clean(tiny, tmp_path_factory):
    """A sweep that nobody disturbed."""
    store = store_of(tiny, tmp_path_factory.mktemp("clean") / "store")
    train_members(tiny.model, store, jobs_of(tiny), chunk=2)
    return store


@dataclass
class Kind:
    """A kind of work that is disturbed: fresh orders of it, and how far one has come."""

    orders: Iterator[dict]
    done: Callable[[dict], int]
    """Units begun, or rows kept."""
    total: int
    """Of them in the end."""
    first: float
    """Seconds until the first is there, about."""
    each: float
    """Seconds that each of the others takes."""


def timed(forks, orders, done, total):
    """The kind of work of ``orders``, of which one is carried out undisturbed to see how long it takes."""
    order = next(orders)
    (process,) = forks.start(order)
    started = time.monotonic()
    while not done(order) and alive(process):
        time.sleep(0.001)
    first = time.monotonic() - started
    assert forks.ended() == 0
    assert done(order) == total
    return Kind(orders, done, total, first, (time.monotonic() - started - first) / (total - 1))


def disturbed(forks, kind, number, count, draw, *, check):
    """Sends signal ``number`` to one run after another, at random moments of its work; returns where that was.

    A moment is drawn in two steps, so that moments fall into all of the work whatever a process takes to come to it:
    how much of what is left must be done, and a part of the time of one more. An order that three signals have ended
    is then let come to its end, and the next is taken.

    Returns:
      For each signal that ended a run, how much was done then.
    """
    ends, order, times = [], None, 0
    while len(ends) < count or order:
        if times == SIGNALS_AN_ORDER or len(ends) == count:
            forks.start(order)
            assert forks.ended() == 0
            check(order)
            order, times = None, 0
            continue
        order = order or next(kind.orders)
        before = kind.done(order)
        enough = before + draw.randrange(max(1, kind.total - before))
        (process,) = forks.start(order)
        while kind.done(order) < enough and alive(process):
            time.sleep(0.001)
        time.sleep(draw.random() * (kind.first if enough == before else kind.each))
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
        status = forks.ended()
        check(order)
        if status == 0:  # the signal came too late
            order, times = None, 0
            continue
        assert status == (-number if number == signal.SIGKILL else STATUS)
        ends.append(kind.done(order))
        times += 1
    return ends


def alive(process):
    """Whether a process is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def training_orders(folder):
    """Orders of sweeps, each on a store of its own."""
    for number in itertools.count():
        yield {"what": "train", "store": str(folder / f"store-{number}"), "log": str(folder / f"log-{number}")}


def members_there(order):
    """How many members a sweep has made."""
    return len(list((Path(order["store"]) / "members").glob("*")))


@pytest.mark.long
@pytest.mark.fault
@pytest.mark.parametrize("how", list(SIGNALS))
def test_a_sweep_that_is_ended_loses_nothing_and_does_one_group_again(tiny, clean, forks, tmp_path, trials, how):
    expected, units = contents(clean), 3
    kind = timed(forks, training_orders(tmp_path), members_there, len(expected))
    assert contents(Store.open(tmp_path / "store-0")) == expected, "one seed, two processes: the same bits"
    trials.note("one seed in two processes of a machine", runs=2, members=len(expected), members_with_other_bits=0)
    present: dict[str, set] = {}
    ends: Counter = Counter()

    def check(order):
        store = Store.open(order["store"])
        found = contents(store)
        assert present.get(order["store"], set()) <= set(found), "a finished member is gone"
        assert found.items() <= expected.items()
        assert store.verify() == []
        present[order["store"]] = set(found)
        ends[order["store"]] += 1
        assert len(begun(Path(order["log"]))) <= units + ends[order["store"]] - 1, "more than a group was done again"

    count = trials(3, torture=100) if how == "kill -9" else trials(1, torture=30)
    found = disturbed(forks, kind, SIGNALS[how], count, random.Random(how), check=check)
    again = 0
    for path in present:
        store = store_of(tiny, Path(path))  # sweeps
        assert contents(store) == expected
        assert list((store.path / "writing").iterdir()) == []
        again += len(begun(Path(path.replace("store-", "log-")))) - units
    assert again <= count
    trials.note(
        f"{how} during a sweep",
        signals=count,
        after_a_finished_member=sum(map(bool, found)),
        stores=len(present),
        members_lost=0,
        members_damaged=0,
        groups_begun_again=again,
    )


def evaluation_orders(store, folder):
    """Orders of evaluations, each with points of its own."""
    for number in itertools.count():
        yield {"what": "evaluate", "store": str(store), "points": str(folder / f"points-{number}")}


def rows_there(order):
    """How many rows an evaluation has kept."""
    return len(list(Path(order["points"]).glob("*.npz")))


@pytest.mark.fault
@pytest.mark.parametrize("how", SIGNALS)
@pytest.mark.long
def test_an_evaluation_that_is_ended_loses_no_row(clean, forks, tmp_path, trials, how):
    losses = evaluate_points(clean.path, tmp_path / "whole")
    expected = rows_in(tmp_path / "whole")
    kind = timed(forks, evaluation_orders(clean.path, tmp_path), rows_there, len(expected))
    present: dict[str, set] = {}

    def check(order):
        found = rows_in(Path(order["points"]))
        assert present.get(order["points"], set()) <= set(found), "a finished row is gone"
        assert all(np.array_equal(found[name], expected[name]) for name in found)
        present[order["points"]] = set(found)

    count = trials(3, torture=100) if how == "kill -9" else trials(1, torture=30)
    found = disturbed(forks, kind, SIGNALS[how], count, random.Random(how), check=check)
    for folder in present:
        np.testing.assert_array_equal(evaluate_points(clean.path, Path(folder)), losses)
        assert set(rows_in(Path(folder))) == set(expected)
    trials.note(
        f"{how} during an evaluation",
        signals=count,
        after_a_finished_row=sum(map(bool, found)),
        evaluations=len(present),
        rows_lost=0,
        rows_damaged=0,
    )


def rows_in(folder):
    """The losses that are kept in a folder, by their names."""
    return {file.stem: np.load(file)["losses"] for file in sorted(folder.glob("*.npz"))}


@pytest.mark.long
@pytest.mark.fault
def test_processes_with_static_shares_make_every_unit_and_one_that_is_killed_goes_on(tiny, forks, tmp_path, trials):
    count, shares = trials(12, torture=200), trials(4, torture=8)
    store, log = store_of(tiny, tmp_path / "store"), tmp_path / "log"
    order = {"what": "fake", "store": str(store.path), "log": str(log), "units": count}
    orders = [{**order, "share": [index, shares]} for index in range(shares)]
    victim, *_ = forks.start(*orders)
    while not members_there(order):
        time.sleep(0.001)
    os.kill(victim, signal.SIGKILL)
    ended = [forks.ended() for _ in orders]
    assert sorted(ended) == [-signal.SIGKILL] + [0] * (shares - 1)
    assert store.verify() == []
    missing = count - len(store.names()) // 2
    assert 0 < missing <= -(-count // shares), "only what the killed one had left"
    forks.start(*orders)
    assert [forks.ended() for _ in orders] == [0] * shares
    assert whole(store, count)
    again = len(begun(log)) - count
    assert set(begun(log)) == {f"m{2 * number}" for number in range(count)}
    assert again in (0, 1), "the unit that it was at"
    before = contents(store)
    for name in ("m0", "m1"):
        os.rename(store.path / "members" / name, tmp_path / name)
    forks.start(*[{**order, "share": [0, 1]} for _ in range(2)])  # two processes, one unit to make
    assert [forks.ended() for _ in range(2)] == [0, 0]
    assert contents(store) == before
    assert whole(store, count)
    trials.note(
        "kill -9 of one of several static shares of a sweep",
        shares=shares,
        units=count,
        left_by_the_killed=missing,
        units_begun_again=again,
        units_missing=0,
        members_damaged=0,
    )


@pytest.mark.long
def test_the_command_line_ends_on_sigterm_and_goes_on(tmp_path):
    words = [sys.executable, "-m", "wsr.cli", "train", f"--store={tmp_path / 'store'}", "--base=tiny", "--seeds=40"]
    words += ["--datasets=made_up_a1", "--size=64", "--max_length=48", "--batch_size=16", "--epochs=1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not len(list((tmp_path / "store" / "members").glob("*"))):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == STATUS == 143
    assert complaint == f"wsr: error: {TOLD}\n"
    store = Store.open(tmp_path / "store")
    assert 1 <= len(store.names()) < 40
    assert store.verify() == []


def test_what_a_killed_writer_of_points_left_is_swept_when_it_is_surely_dead(tmp_path):
    old, young = tmp_path / ".a.npz.0011.tmp", tmp_path / ".b.npz.0022.tmp"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    points = Results.on_disk(tmp_path)
    points.put("c", losses=np.ones(2))
    assert sorted(file.name for file in tmp_path.iterdir()) == [young.name, "c.npz"]
