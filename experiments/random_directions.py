"""Does a random step from the centroid, as long as the members are away from it, make the model worse? (claim 8)

Command:  python -m experiments.random_directions --preset=packaged
Cost:     70 members and 824 points; see README.md beside this file
Expect:   a random direction degrades past the radius of the members, the one towards the origin does not
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
    """Lengths of the steps, in units of the members' mean distance from the centroid."""
    scored_on: int
    """Number of targets to score on; the first ones are taken."""


RADII = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SETTINGS = {
    "smoke": Settings(2, 2, (1.0, 8.0), 2),
    "packaged": Settings(5, 4, RADII, 8),
    "paper": Settings(5, 10, RADII, 4),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Walks away from the centroid, once for each target."""
    region = lab.population(lab.jobs(seeds=settings.seeds))
    targets = lab.preset.targets[: settings.scored_on]
    return [
        random_directions(
            lab.context(region, [target]), radii=settings.radii, directions=settings.directions, targets=len(targets)
        )
        for target in targets
    ]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: a target has its members, the centroid, the way home and the walks."""
    members = settings.seeds * len(preset.datasets)
    points = members + 1 + HOMEWARD_STEPS + settings.directions * len(settings.radii)
    return Work(members=members, points=len(preset.targets[: settings.scored_on]) * points)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
