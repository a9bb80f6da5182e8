"""Does a domain, such as Twitter, cluster as a task does? (claim 3)

Command:  python -m experiments.domain_clusters --preset=packaged
Cost:     70 members, those of same_dataset_clusters; see README.md beside this file
Expect:   no: in the paper, with a Twitter group added, F1 is NLI 100, Topic 61, Sentiment 71, Twitter 30
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.data.table import find
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import FOURTEEN, Preset
from wsr.studies.harness.work import Work
from wsr.studies.task_clusters import domain_clusters


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    families: tuple[str, ...]
    """Families whose datasets take part, among them that of the domain."""
    domain: str
    """Name of the domain."""
    domain_datasets: tuple[str, ...]
    """Datasets of the domain."""
    domain_tasks: tuple[str, ...]
    """Task of each dataset of the domain, in the same order; the task of any other dataset is its family."""


TWEETS = ("emoji", "emotion", "hate", "irony", "offensive", "sentiment")
SETTINGS = {
    # Made-up texts have no domain: whether the study runs.
    "smoke": Settings(2, ("made_up_a", "made_up_b"), "odd", ("made_up_a2", "made_up_b2"), ("made_up_a", "made_up_b")),
    "packaged": Settings(
        5,
        ("sentiment", "topic", "author"),
        "twitter",
        (*(name for name in FOURTEEN if "tweets" in name and name != "election_tweets"), "election_tweets"),
        (*("sentiment",) * 5, "author"),
    ),
    "paper": Settings(
        5, ("nli", "sentiment", "topic", "twitter"), "twitter", tuple(f"tweet_{task}" for task in TWEETS), TWEETS
    ),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the members and clusters them with the domain as a group of its own."""
    jobs = lab.jobs(seeds=settings.seeds, datasets=datasets(lab.preset, settings))
    region, everyone = lab.with_and_without_chance(jobs)
    tasks = dict(zip(settings.domain_datasets, settings.domain_tasks, strict=True))
    return [domain_clusters(region, settings.domain, tasks, everyone, seed=lab.preset.seed, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    names = tuple(datasets(preset, settings))
    return Work(members=settings.seeds * len(names), points=0, datasets=names)


def datasets(preset: Preset, settings: Settings) -> list[str]:
    """The preset's datasets of these families."""
    return [name for name in preset.datasets if find(name).family in settings.families]


if __name__ == "__main__":
    launch(main, SETTINGS, work)
