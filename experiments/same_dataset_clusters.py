"""Do models fine-tuned on one dataset lie together, wherever their data and seeds led them? (claim 1)

Command:  python -m experiments.same_dataset_clusters --preset=packaged
Cost:     280 members; see README.md beside this file
Expect:   the paper's 280 models, 20 of each of 14 datasets, cluster by dataset with 98 % accuracy; Euclidean distances
          show no clear clusters
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.euclidean import euclidean
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import GENERAL, Preset
from wsr.studies.harness.work import Work
from wsr.studies.same_dataset_clusters import clusters


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    clustered: tuple[str, ...] = ()
    """Datasets whose members are clustered; none for the preset's."""


SETTINGS = {"smoke": Settings(2), "packaged": Settings(20), "paper": Settings(20, GENERAL)}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the population and clusters it, by cosines and by distances."""
    jobs = lab.jobs(seeds=settings.seeds, datasets=settings.clustered or None)
    region, everyone = lab.with_and_without_chance(jobs)
    seed, command = lab.preset.seed, lab.command
    return [clusters(region, everyone, seed=seed, command=command), euclidean(region, seed=seed, command=command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    names = settings.clustered or preset.datasets
    return Work(members=settings.seeds * len(names), points=0, datasets=names)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
