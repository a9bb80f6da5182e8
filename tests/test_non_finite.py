"""A member that turns non-finite is set aside with its step, and its siblings are those of a clean run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from wsr.store import Store
from wsr.training import Job, Recipe
from wsr.training.members import member_name, train_members

RECIPE = Recipe(learning_rate=0.01, batch_size=16, epochs=1.0, warmup=0.006)


def trained(tiny: Any, path: Path, jobs: list[Job]) -> Store:
    config = dict(tiny.model.config)
    store = Store.create(
        path, model_name=tiny.model.name, model_config=config, base_name="tiny", base_params=tiny.params
    )
    train_members(tiny.model, store, jobs, chunk=3)
    return store


@pytest.mark.long
@pytest.mark.fault
def test_siblings_have_the_bits_of_a_clean_run(tiny: Any, dataset: Any, tmp_path: Path, trials: Any) -> None:
    count = trials(1, torture=3)
    clean = trained(tiny, tmp_path / "clean", [Job(dataset, seed, RECIPE) for seed in range(3)])
    expected = {name: clean.record(name).content_sha256 for name in clean.names()}
    poison = dataclasses.replace(RECIPE, learning_rate=1e30)
    for broken in range(count):
        jobs = [Job(dataset, seed, poison if seed == broken else RECIPE) for seed in range(3)]
        store, gone = trained(tiny, tmp_path / f"store-{broken}", jobs), member_name(jobs[broken])
        (found,) = store.quarantined()
        assert (found.record.name, found.reason) == (gone, "the loss or a gradient became infinite or not a number")
        assert 1 <= found.step <= 4
        assert json.loads((store.path / "quarantine" / f"{gone}.json").read_text())["step"] == found.step
        siblings = {name: store.record(name).content_sha256 for name in store.names()}
        assert siblings == {name: own for name, own in expected.items() if name != gone}
        assert store.verify() == []
        again = trained(tiny, store.path, jobs)
        assert (again.names(), len(again.quarantined())) == (sorted(siblings), 1)
    trials.note("a member turns non-finite", tried=count, quarantined=count, siblings_changed=0)
