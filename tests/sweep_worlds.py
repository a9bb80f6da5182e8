"""Small sweeps that tests of scaling out share: real training, and units that only save made-up members.

Each unit tells a log when it is begun, and by which process.
"""

import dataclasses
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from worlds import made_up

from wsr.engine.evaluate import evaluate
from wsr.engine.settings import Settings
from wsr.geometry.sampling import convex_hull
from wsr.geometry.trees import flatten, nest
from wsr.models import Checkpoint, load
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.runtime.progress import Counter
from wsr.store import MemberRecord, Store
from wsr.store.results import Results
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import PRESETS
from wsr.training import Job, Recipe
from wsr.training.members import training_units
from wsr.training.sweep.run import Run
from wsr.training.sweep.units import Unit
from wsr.types import Params

RECIPE = Recipe(learning_rate=5e-3, batch_size=16, epochs=2, warmup=0.25, dropout=False)


def store_of(tiny: Checkpoint, path: Path) -> Store:
    """A store of members of the tiny checkpoint."""
    return Store.create(
        path,
        model_name=tiny.model.name,
        model_config=dict(tiny.model.config),
        base_name="tiny",
        base_params=tiny.params,
    )


def jobs_of(tiny: Checkpoint) -> list[Job]:
    """Five members on two datasets."""
    first, second = made_up(tiny, "made_up_a1"), made_up(tiny, "made_up_b1")
    return [Job(first, seed, RECIPE) for seed in range(3)] + [Job(second, seed, RECIPE) for seed in range(2)]


def training(path: Path, log: Path) -> tuple[Checkpoint, Store, list[Unit]]:
    """A real sweep: five members, two together."""
    tiny = load("tiny")
    return tiny, store_of(tiny, path), logged(training_units(jobs_of(tiny), 2), log)


def logged(units: Sequence[Unit], log: Path) -> list[Unit]:
    """The units, which tell ``log`` when they are begun."""
    return [dataclasses.replace(unit, make=partial(_told, unit.make, unit.names[0], log)) for unit in units]


def _told(make: Callable, name: str, log: Path, model: Model, store: Store, counter: Counter | None) -> None:
    tell(log, name)
    make(model, store, counter)


def tell(log: Path, name: str) -> None:
    """Adds a line; one write, so that lines of several processes do not mix."""
    with log.open("ab", buffering=0) as file:
        file.write(f"{name} {os.getpid()}\n".encode())


def begun(log: Path) -> list[str]:
    """The first member of each unit that was begun, in order, as often as it was."""
    return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []


def fake_units(count: int, log: Path, deadly: Path | None = None) -> list[Unit]:
    """Units of two made-up members; with ``deadly`` the third waits there, the first time, to be killed."""
    return [
        Unit(
            names := (f"m{2 * number}", f"m{2 * number + 1}"),
            partial(_save_made_up, names=names, log=log, deadly=deadly if number == 2 else None),
            2,
        )
        for number in range(count)
    ]


def _save_made_up(
    model: Model | None,
    store: Store,
    counter: Counter | None,
    *,
    names: Sequence[str],
    log: Path,
    deadly: Path | None,
) -> None:
    tell(log, names[0])
    for number, name in enumerate(names):
        if number == 1 and deadly and not deadly.exists():
            deadly.write_text(str(os.getpid()))
            time.sleep(600)
        params = made_up_params(store.base(), int(name[1:]))
        store.save(record_of(name), params, {"bias": np.full(3, int(name[1:]), np.float32)})


def made_up_params(base: Params, seed: int) -> Params:
    """The weights of a made-up member."""
    generator = np.random.default_rng(seed)
    return nest(
        {
            path: np.asarray(leaf) + 0.01 * generator.standard_normal(leaf.shape, dtype=np.float32)
            for path, leaf in flatten(base).items()
        }
    )


def whole(store: Store, count: int) -> bool:
    """Whether every member of ``count`` made-up units is there, with the right bits, and no other."""
    base = store.base()
    for number in range(2 * count):
        params, head = store.load(f"m{number}")
        expected = flatten(made_up_params(base, number))
        if head["bias"].tolist() != [number] * 3:
            return False
        if not all(np.array_equal(leaf, expected[path]) for path, leaf in flatten(params).items()):
            return False
    return store.verify() == [] and sorted(store.names()) == sorted(f"m{number}" for number in range(2 * count))


def record_of(name: str) -> MemberRecord:
    """What is said of a made-up member."""
    return MemberRecord(
        name=name,
        dataset="none",
        family="none",
        seed=int(name[1:]),
        mode="full",
        size=1,
        hyperparameters={},
        metrics={},
        jaxlib="",
        device_kind="cpu",
        threads=1,
        group_size=2,
    )


def evaluate_points(store: Path, points: Path, begins: Callable[[], None] = lambda: None) -> np.ndarray:
    """Losses of points between the members of a store, which are kept in ``points``."""
    tiny = load("tiny")
    data = made_up(tiny, "made_up_a2")
    region = Region.from_store(Store.open(store), tiny.model)
    coefficients = convex_hull(np.random.default_rng(0), 24, len(region))
    begins()
    return evaluate(region, coefficients, data, settings=Settings(results=Results.on_disk(points), chunk=1)).losses


def contents(store: Store) -> dict[str, str]:
    """What the members of a store are, by name: a hash of all bits."""
    return {record.name: record.content_sha256 for record in store.records()}


EXPERIMENT = "same_dataset_clusters"


def rows_of_an_experiment(folder: Path, run: Run) -> list[dict]:
    """The rows of the smallest form of an experiment, whose members are trained by ``run``; they stay in a shelf."""
    module = importlib.import_module(f"experiments.{EXPERIMENT}")
    lab = Lab(PRESETS["smoke"], folder / "out", folder / "shelf", command="", run=run)
    return [row for rows, _ in module.main(lab, module.SETTINGS["smoke"]) for row in rows]


def on_shelf(shelf: Path) -> dict[str, str]:
    """Hashes of the bits of all members of a shelf, by store and name."""
    stores = map(Store.open, sorted((shelf / "stores").iterdir()))
    return {f"{store.path.name}/{name}": own for store in stores for name, own in contents(store).items()}


def stopped(words: Sequence[str], folder: Path, members: str) -> tuple[int, str]:
    """Starts a command and sends it SIGTERM when it has made a member; returns its status and what it complained of.

    ``members`` is the pattern of members in ``folder``, which looks into no folder that may go away.
    """
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(folder.glob(members)):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    _, complaint = process.communicate(timeout=180)
    return process.returncode, complaint
