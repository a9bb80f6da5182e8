"""Is the loss low all over the triangle of three members, and higher all around it? (12, beyond the paper)

Command:  python -m experiments.landscape --preset=packaged
Cost:     70 members and 302 points; see README.md beside this file
Expect:   no surface is known from the paper; by readers' notes, a basin with a flat base and steep walls
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.engine.lattice import count
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.landscape import landscape
from wsr.studies.pairs import KINDS


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    degree: int
    """Number of steps along an edge of the triangle."""
    grid: int
    """Number of points along an edge of the square around the triangle."""
    reach: float
    """Distance from the members to the edge of the square, in units of the longest edge of their triangle."""


SETTINGS = {
    "smoke": Settings(3, 3, 4, 1.0),
    "packaged": Settings(5, 7, 8, 2.0),
    "paper": Settings(5, 12, 25, 2.0),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Draws three members of one dataset, of one family and of several, and scores what lies between and around."""
    context = lab.context(lab.population(lab.jobs(seeds=settings.seeds)))
    return [landscape(context, degree=settings.degree, grid=settings.grid, reach=settings.reach)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate: triangles, squares, the base and the centroids."""
    # A lattice that a third is a step of holds the centroid.
    each = count(3, settings.degree) + settings.grid**2 + (settings.degree % 3 > 0)
    # One member of the target and the base are points of all of them.
    points = len(KINDS) * each - (len(KINDS) - 1) + 1
    return Work(members=settings.seeds * len(preset.datasets), points=points)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
