"""Does a random step from the centroid, as long as the members are away from it, make the model worse? (claim 8)

Command:  python -m experiments.random_directions --preset=packaged
Cost:     70 members and 1,192 points; see README.md beside this file
Expect:   a random direction from the centroid of MNLI's models degrades past their radius; towards the origin none does
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.random_directions import HOMEWARD_STEPS, random_directions


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    directions: int
    """Number of random directions per target."""
    radii: tuple[float, ...]
    """Lengths of the steps, in units of the members' mean distance from their centroid."""
    scored_on: int
    """Number of targets to score on; the first ones are taken."""


RADII = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SETTINGS = {
    "smoke": Settings(2, 2, (1.0, 8.0), 2),
    "packaged": Settings(5, 4, RADII, 8),
    "paper": Settings(5, 10, RADII, 4),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Walks away from the centroids of a target's members and of all members, once for each target."""
    region = lab.population(lab.jobs(seeds=settings.seeds))
    targets = lab.preset.targets[: settings.scored_on]
    return [
        random_directions(
            lab.context(region, [target]), radii=settings.radii, directions=settings.directions, targets=len(targets)
        )
        for target in targets
    ]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: for each target its members, the base, and what lies around two centroids."""
    members, radii = settings.seeds * len(preset.datasets), len(settings.radii)
    targets = preset.targets[: settings.scored_on]
    centroids = 2 if settings.seeds > 1 and len(preset.datasets) > 1 else 1
    around = 1 + radii * (settings.directions + 1) + HOMEWARD_STEPS - 1
    return Work(members=members, points=len(targets) * (members + 1 + centroids * around), targets=targets)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
