"""How does the gain of the centroid grow with the number of members and of datasets? (15, beyond the paper)

Command:  python -m experiments.region_scaling --preset=packaged
Cost:     70 members, 966 points (packaged); see README.md beside this file
Expect:   not in the paper, whose centroid is that of all members but the target's
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.region_scaling import Grid, count_points, region_scaling


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    subset_datasets: tuple[int, ...]
    """Numbers of datasets in a subset of the population."""
    subset_members: tuple[int, ...]
    """Numbers of members per dataset in a subset."""
    subsets: int
    """Number of subsets drawn for each size and target."""

    @property
    def grid(self) -> Grid:
        """Sizes of the subsets."""
        return Grid(self.subset_datasets, self.subset_members, self.subsets)


SETTINGS = {
    "smoke": Settings(2, (1, 3), (1, 2), 2),
    "packaged": Settings(5, (1, 3, 7, 13), (1, 2, 5), 3),
    "paper": Settings(5, (1, 3, 10, 35), (1, 2, 5), 10),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Scores the centroids of random subsets of the population."""
    region = lab.population(lab.jobs(seeds=settings.seeds))
    return [region_scaling(lab.context(region), settings.grid)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate."""
    points = count_points(settings.seeds, preset.datasets, preset.targets, settings.grid)
    return Work(members=settings.seeds * len(preset.datasets), points=points)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
