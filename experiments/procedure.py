"""What do the paper's text, share of texts and head change in the weights? (19, beyond the paper)

Command:  python -m experiments.procedure --preset=packaged
Cost:     112 members: 28 of the shared population, 28 for each of three changes; see README.md beside this file
Expect:   not in the paper, which has one procedure; its tag trains tokens of its own and may raise cosines
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.region.region import Region
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.procedure import changes, procedure


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset and procedure, at least 2."""
    compared: tuple[str, ...] = ()
    """Datasets of the members; none for the preset's."""


SETTINGS = {
    "smoke": Settings(2),
    "packaged": Settings(2),
    "paper": Settings(2, ("mnli", "esnli", "rte", "cola", "sst2", "ag_news")),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains the population as the preset says and with each change, and compares them."""
    unchanged = _population(lab, settings)
    changed = {name: _population(lab.with_preset(**fields), settings) for name, fields in changes(lab.preset).items()}
    return [procedure(unchanged, changed, most_texts=lab.preset.finetune_texts, command=lab.command)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    names = settings.compared or preset.datasets
    each = settings.seeds * len(names)
    own = len(changes(preset)) * each
    return Work(members=each + own, points=0, own_members=own, datasets=names)


def _population(lab: Lab, settings: Settings) -> Region:
    return lab.population(lab.jobs(seeds=settings.seeds, datasets=settings.compared or None), unlearned=True)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
