"""Sweeps: how units are formed, shares and what tells them, and that nothing is made twice otherwise."""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from sweep_worlds import begun, contents, fake_units, jobs_of, logged, store_of

from wsr.errors import WsrError
from wsr.runtime.preemption import Preempted, sigterm_raises
from wsr.runtime.progress import Counter
from wsr.store import Store
from wsr.training import Division, finetune, members, population
from wsr.training.members import train_members, training_units
from wsr.training.sweep.run import HERE, Unfinished
from wsr.training.sweep.share import Share, parse_share, share_of_environment


@pytest.fixture(scope="module")
def jobs(tiny):
    """Five members."""
    return jobs_of(tiny)


@pytest.fixture(scope="module")
def clean(tiny, jobs, tmp_path_factory):
    """An uninterrupted sweep, two members together."""
    store = store_of(tiny, tmp_path_factory.mktemp("clean") / "store")
    train_members(tiny.model, store, jobs, chunk=2)
    return store


def test_what_was_interrupted_changes_neither_groups_nor_bits(tiny, jobs, clean, tmp_path):
    store, log = store_of(tiny, tmp_path / "store"), tmp_path / "log"
    units = logged(training_units(jobs, 2), log)
    saved = []

    def killed_at_the_second(record, *args, **kwargs):
        if saved:
            raise KeyboardInterrupt
        saved.append(record.name)
        return Store.save(store, record, *args, **kwargs)

    store.save = killed_at_the_second
    with pytest.raises(KeyboardInterrupt):
        HERE.make(units, tiny.model, store)
    del store.save
    assert store.names() == ["made_up_a1-full-s0"]  # half of a unit
    HERE.make(units, tiny.model, store)
    assert contents(store) == contents(clean)
    assert [record.group_size for record in store.records()] == [2] * 5
    assert begun(log) == ["made_up_a1-full-s0", "made_up_a1-full-s0", "made_up_a1-full-s2", "made_up_b1-full-s1"]
    HERE.make(units, tiny.model, store)
    assert len(begun(log)) == 4, "what is there is passed over"


@pytest.mark.long
def test_a_double_write_is_harmless(tiny, jobs, clean):
    before = contents(clean)
    training_units(jobs, 2)[1].make(tiny.model, clean, None)
    assert contents(clean) == before
    assert clean.verify() == []


def test_of_a_member_made_in_two_places_the_first_stays(tiny, jobs, clean, capsys):
    before = contents(clean)
    training_units(jobs, 1)[0].make(tiny.model, clean, None)  # another group: other roundings, another record
    assert "kept the made_up_a1-full-s0 that is in the store, made elsewhere" in capsys.readouterr().out
    assert contents(clean) == before


def test_a_record_names_the_division_that_a_member_was_trained_with(tiny, jobs, tmp_path, monkeypatch, capsys):
    def as_if_shared(*args, division, **kwargs):
        for member in finetune(*args, **kwargs):
            yield dataclasses.replace(member, division=division)

    monkeypatch.setattr(members, "finetune", as_if_shared)
    store = store_of(tiny, tmp_path / "store")
    training_units(jobs, 1, division=Division(4, shared_by=2))[0].make(tiny.model, store, None)
    record = store.record("made_up_a1-full-s0")
    assert (record.pieces, record.rematerialised, record.shared_by) == (4, False, 2)
    training_units(jobs, 2)[0].make(tiny.model, store, None)  # on other devices: other roundings
    assert "1 members together, each batch in 4 pieces, 2 devices to a member)" in capsys.readouterr().out


def test_another_member_of_the_same_place_and_name_is_refused(tiny, jobs, clean, monkeypatch):
    def other_bits(*args, **kwargs):
        for member in finetune(*args, **kwargs):
            yield dataclasses.replace(member, head={**member.head, "bias": member.head["bias"] + 1})

    monkeypatch.setattr(members, "finetune", other_bits)
    with pytest.raises(WsrError, match="has another member 'made_up_a1-full-s0'"):
        training_units(jobs, 2)[0].make(tiny.model, clean, None)


def test_sigterm_ends_training_before_the_next_call(tiny, jobs):
    class Terminated(Counter):
        calls = 0

        def advance(self, units=1, note=""):
            self.calls += 1
            os.kill(os.getpid(), signal.SIGTERM)

    counter = Terminated("", 1, "steps", None)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted), sigterm_raises():
        list(finetune(tiny.model, tiny.params, jobs[:1], chunk=1, counter=counter))
    assert counter.calls == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_in_a_callback_that_nothing_leaves_is_raised_after_it():
    done = []

    class Collected:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("raised here, and ignored by Python")

    def work():
        Collected()
        done.append("gone on")
        time.sleep(10)

    hook = sys.unraisablehook
    with pytest.raises(Preempted), sigterm_raises():
        work()
    assert done == ["gone on"]
    assert sys.unraisablehook is hook


def test_a_call_makes_one_step_where_steps_are_slow_and_many_where_they_are_quick():
    assert population._steps_that_fit(0.3, 8) == 1
    assert population._steps_that_fit(0.1, 8) == 2
    assert population._steps_that_fit(0.001, 8) == 16


@pytest.mark.parametrize(("units", "count"), [(7, 3), (2, 5), (1, 1), (200, 8)])
def test_shares_are_all_units_once(units, count):
    taken = [unit for index in range(count) for unit in Share(index, count).own(range(units))]
    assert sorted(taken) == list(range(units))


def test_a_share_does_its_own_and_says_what_is_left(tiny, tmp_path, capsys):
    store, log = store_of(tiny, tmp_path / "store"), tmp_path / "log"
    units = fake_units(5, log)
    with pytest.raises(Unfinished) as told:
        Share(2, 3).make(units, tiny.model, store)
    assert begun(log) == ["m4"]
    assert str(told.value) == (
        "share 2/3 is done; 2 of 10 members are in the store; unfinished shares: 0/3, 1/3; run each of them with "
        "--share, for example --share=0/3, and then rerun this command"
    )
    with pytest.raises(Unfinished):
        Share(1, 3).make(units, tiny.model, store)
    Share(0, 3).make(units, tiny.model, store)
    assert "share 0/3 is done; 10 of 10 members are in the store" in capsys.readouterr().out
    assert sorted(begun(log)) == sorted(["m0", "m2", "m4", "m6", "m8"])


SLURM = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "3"}


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({"WSR_SHARE": "2/8", **SLURM}, Share(2, 8)),
        ({**SLURM, "SLURM_ARRAY_TASK_STEP": "2"}, Share(2, 3)),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "1", "JOB_COMPLETION_INDEX": "7"}, Share(0, 3)),
        ({"JOB_COMPLETION_INDEX": "3", "WSR_SHARES": "4"}, Share(3, 4)),
        ({"SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "2"}, Share(0, 2)),
    ],
)
def test_schedulers_tell_shares(environment, share):
    assert share_of_environment(environment) == share


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "give --share=I/N or WSR_SHARE=I/N"),
        ({"WSR_SHARE": "8/8"}, "count from 0, for example from 0/8 to 7/8"),
        ({"JOB_COMPLETION_INDEX": "3"}, "lacks WSR_SHARES"),
        ({"SKYPILOT_NODE_RANK": "x", "SKYPILOT_NUM_NODES": "2"}, "SKYPILOT_NODE_RANK='x' in the environment is not"),
        (SLURM, "Slurm task 5 is not one of 3 tasks from 1"),
        ({**SLURM, "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_STEP": "2"}, "submit a range"),
    ],
)
def test_half_a_share_is_refused(environment, told):
    with pytest.raises(WsrError, match=told):
        share_of_environment(environment)


@pytest.mark.parametrize("text", ["", "1", "1/", "-1/2", "1/2/3", "a/b", "٣/٤", "3/3", "0/0"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(WsrError, match="share"):
        parse_share(text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--share=0/2"], "--share goes with --run=share, found --run=here"),
        (["--run=share", "--unit_takes=GPU=1"], "--unit_takes goes with --run=ray"),
        (["--run=ray", "--unit_takes=GPU"], "expected NAME=COUNT, for example GPU=1"),
        (["--run=share", "--share=2/2"], "does not exist"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(words, told, tmp_path, capsys):
    from wsr.cli import main

    assert main(["train", f"--store={tmp_path / 's'}", "--datasets=made_up_a1", "--base=tiny", *words]) == 1
    assert told in capsys.readouterr().err
    assert not Path(tmp_path / "s").exists()
