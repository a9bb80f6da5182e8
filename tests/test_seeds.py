"""Streams: the same in every process, different for every name."""

import subprocess
import sys

import jax
import pytest

from wsr.errors import WsrError
from wsr.runtime import seeds


def test_streams_differ_by_dataset_seed_and_purpose():
    draws = {
        float(jax.random.uniform(seeds.stream(seed, dataset, purpose)))
        for seed in (0, 1)
        for dataset in ("a", "b")
        for purpose in ("head", "order")
    }
    assert len(draws) == 8


def test_names_do_not_run_together():
    assert seeds.generator(0, "ab", "c").integers(2**60) != seeds.generator(0, "a", "bc").integers(2**60)


def test_another_process_with_another_hash_seed_draws_the_same():
    code = "from wsr.runtime import seeds; print(seeds.generator(3, 'x', 'head').integers(2**60))"
    drawn = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": salt, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert drawn == {f"{seeds.generator(3, 'x', 'head').integers(2**60)}\n"}


@pytest.mark.parametrize("seed", [-1, 2**63, 99999999999999999999])
def test_a_seed_that_no_generator_takes_is_one_line(seed):
    for make in (seeds.stream, seeds.generator):
        with pytest.raises(WsrError, match=f"seed {seed}: expected a whole number from 0 to 2"):
            make(seed, "name")
    assert seeds.generator(2**63 - 1, "name").random() != seeds.generator(0, "name").random()
