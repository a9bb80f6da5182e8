"""Does a probe on texts that the members were fine-tuned on turn the comparison with the pretrained model around? (17)

Command:  python -m experiments.probe_split --preset=packaged
Cost:     70 members and 308 points; see README.md beside this file
Expect:   not in the paper; with such a probe the members of a dataset may look worse than the pretrained model
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.probe_split import PROBES, probe_texts


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    interior: int
    """Number of points in the hull of the members of each target."""


SETTINGS = {"smoke": Settings(2, 2), "packaged": Settings(5, 5), "paper": Settings(5, 5)}


def main(lab: Lab, settings: Settings) -> Found:
    """Trains members on the targets and scores them with either probe."""
    region = lab.population(lab.jobs(seeds=settings.seeds, datasets=lab.preset.targets))
    return [probe_texts(lab.context(region), interior=settings.interior)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: members, points between them and the base, with two probes."""
    points = len(PROBES) * len(preset.targets) * (settings.seeds + settings.interior + 1)
    return Work(members=settings.seeds * len(preset.targets), points=points, datasets=preset.targets)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
