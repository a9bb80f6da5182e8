"""How much of the similarity between datasets does a shared seed make?

Command:  python -m experiments.shared_seed --preset=packaged
Cost:     84 members: 42 of the shared population, 42 with shared seeds; see README.md beside this file
Expect:   not in the paper; with shared seeds, members of different datasets look alike where their seeds agree
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.shared_seed import shared_seed


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""


SETTINGS = {"smoke": Settings(2), "packaged": Settings(3), "paper": Settings(5)}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the population twice, with independent and with shared seeds, and compares its similarities."""
    independent, records = lab.trained(lab.jobs(seeds=settings.seeds))
    shared, more = lab.trained(lab.jobs(seeds=settings.seeds, shared_streams=True))
    seed_of = {record.name: record.seed for record in (*records, *more)}
    classes = {name: lab.dataset(name).classes for name in lab.preset.datasets}
    return [shared_seed(independent, shared, seed_of, classes, seed=lab.preset.seed, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    each = settings.seeds * len(preset.datasets)
    return Work(members=2 * each, points=0, own_members=each)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
