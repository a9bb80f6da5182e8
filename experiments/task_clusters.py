"""Do members of different datasets of one task lie together? (claim 2)

Command:  python -m experiments.task_clusters --preset=packaged
Cost:     70 members, those of same_dataset_clusters; see README.md beside this file
Expect:   the paper's tasks cluster with 90 % accuracy: F1 NLI 100, Topic 87, Sentiment 83
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.data.table import find
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.task_clusters import task_clusters


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    families: tuple[str, ...]
    """Tasks: the families of datasets that take part."""


SETTINGS = {
    "smoke": Settings(2, ("made_up_a", "made_up_b")),
    "packaged": Settings(5, ("sentiment", "topic", "author")),
    "paper": Settings(5, ("nli", "sentiment", "topic")),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the members of these tasks and clusters them."""
    jobs = lab.jobs(seeds=settings.seeds, datasets=datasets(lab.preset, settings))
    region, everyone = lab.with_and_without_chance(jobs)
    return [task_clusters(region, everyone, seed=lab.preset.seed, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    names = tuple(datasets(preset, settings))
    return Work(members=settings.seeds * len(names), points=0, datasets=names)


def datasets(preset: Preset, settings: Settings) -> list[str]:
    """The preset's datasets of these tasks."""
    return [name for name in preset.datasets if find(name).family in settings.families]


if __name__ == "__main__":
    launch(main, SETTINGS, work)
