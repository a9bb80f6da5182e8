"""Does the direction of a task vector come from the kind of data, or from its amount? (claim 4)

Command:  python -m experiments.data_size --preset=packaged
Cost:     72 members, on subsets of 1,024 examples; see README.md beside this file
Expect:   the paper's subsets of 200 to 3K examples of 9 datasets cluster by dataset, not by size
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.data_size import data_sizes
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    examples: tuple[int, ...]
    """Numbers of examples of the subsets."""
    drawn_from: int
    """Number of examples from which the subsets are drawn; 0 for --finetune_texts. The more, the fewer two subsets
    share."""
    subsets_of: tuple[str, ...]
    """Datasets of which subsets are drawn."""


SETTINGS = {
    "smoke": Settings(2, (40, 80), 160, ("made_up_a1", "made_up_b1")),
    "packaged": Settings(
        3,
        (64, 128, 256),
        1024,
        (
            "vader_movie",
            "vader_amazon",
            "vader_nyt",
            "vader_tweets",
            "newsgroups_comp",
            "newsgroups_rec_sci",
            "reuters_r8",
            "election_tweets",
        ),
    ),
    # Which 9 datasets the paper took is not known here; these hold 3,000 examples.
    "paper": Settings(
        5,
        (200, 400, 800, 1600, 3000),
        0,
        ("mnli", "qnli", "qqp", "sst2", "cola", "boolq", "ag_news", "imdb", "dbpedia"),
    ),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains members on subsets of several sizes and clusters them."""
    own = lab.with_preset(finetune_texts=settings.drawn_from or lab.preset.finetune_texts)
    jobs = [
        job
        for size in settings.examples
        for job in own.jobs(seeds=settings.seeds, datasets=settings.subsets_of, size=size)
    ]
    region, records = own.trained(jobs)
    sizes = {record.name: record.size for record in records}
    return [data_sizes(region, [sizes[name] for name in region.names], seed=lab.preset.seed, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    pool = settings.drawn_from or preset.finetune_texts
    own = [size for size in settings.examples if size != pool or pool != preset.finetune_texts]
    a_size = settings.seeds * len(settings.subsets_of)
    return Work(
        members=a_size * len(settings.examples),
        points=0,
        own_members=a_size * len(own),
        own_texts=sum(own) / len(own) if own else None,
        datasets=settings.subsets_of,
    )


if __name__ == "__main__":
    launch(main, SETTINGS, work)
