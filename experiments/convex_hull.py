"""Are points in the hull of fine-tuned models better than those models, and both better than models outside? (claim 6)

Command:  python -m experiments.convex_hull --preset=packaged
Cost:     70 members and 1,474 points; see README.md beside this file
Expect:   P_B(In' > Ex) 100 % at all levels; P_B(In' > In) 88 % (dataset), 96.7 % (task), 90 % (general);
          P_B(In > Ex) 100 % (dataset), 75.3 % (task), 89.8 % (general)
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.convex_hull import Sizes, groups, interior_points
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    interior: int
    """Number of In' points per level; 0 for the number of members, as in the paper."""
    random_directions: int
    """Number of random directions from the centroid."""


SETTINGS = {"smoke": Settings(2, 2, 1), "packaged": Settings(5, 10, 5), "paper": Settings(5, 0, 10)}


def main(lab: Lab, settings: Settings) -> Found:
    """Draws In, In' and Ex at three levels and compares them on every target."""
    context = lab.context(lab.population(lab.jobs(seeds=settings.seeds)))
    return [groups(context, Sizes(settings.interior, settings.random_directions))]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: each member once on each target, what is drawn, and the pretrained model."""
    members = settings.seeds * len(preset.datasets)
    points = sum(
        members + interior_points(target, preset.datasets, settings.seeds, settings.interior)
        for target in preset.targets
    )
    return Work(members=members, points=points + len(preset.targets) * (1 + settings.random_directions))


if __name__ == "__main__":
    launch(main, SETTINGS, work)
