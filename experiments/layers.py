"""Which layers, and which kinds of parameters, carry the clusters?

Command:  python -m experiments.layers --preset=packaged
Cost:     70 members, those of same_dataset_clusters; see README.md beside this file
Expect:   not in the paper, which takes the flattened encoder
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.layers import layers


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""


SETTINGS = {"smoke": Settings(2), "packaged": Settings(5), "paper": Settings(5)}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the population and clusters it by each part of the encoder."""
    region = lab.population(lab.jobs(seeds=settings.seeds))
    return [layers(region, seed=lab.preset.seed, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    return Work(members=settings.seeds * len(preset.datasets), points=0)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
