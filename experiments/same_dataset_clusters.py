"""Do models fine-tuned on one dataset lie together, wherever their data and seeds led them? (claim 1)

Command:  python -m experiments.same_dataset_clusters --preset=packaged
Cost:     280 members; see README.md beside this file
Expect:   the paper's 280 models cluster by dataset with 98 % accuracy
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.same_dataset_clusters import clusters


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""


SETTINGS = {"smoke": Settings(2), "packaged": Settings(20), "paper": Settings(20)}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the population and clusters it."""
    region = lab.population(lab.jobs(seeds=settings.seeds))
    return [clusters(region, seed=lab.preset.seed, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    return Work(members=settings.seeds * len(preset.datasets), points=0)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
