"""Does any way to merge members of several datasets beat their plain average on the members' own tasks?

Command:  python -m experiments.merging --preset=packaged
Cost:     4 members of the shared population, 164 points and the merges themselves (packaged); see README.md beside this
Expect:   not in the paper, whose merged model is the centroid
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.merging.method import METHODS
from wsr.region.region import Region
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.merged_models import Effort
from wsr.studies.merging import LEFT_OUT, merging, points_of
from wsr.training.members import member_name

NAMES = tuple(name for name in METHODS if name not in LEFT_OUT)


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of populations to merge, each with one member per dataset."""
    merged: tuple[str, ...]
    """Datasets whose members are merged, and on which the results are scored; none for the preset's targets."""
    densities: tuple[float, ...]
    """Fractions of the entries that sparse methods keep."""
    scales: tuple[float, ...]
    """Scales of the merged task vector, as multiples of an average."""
    steps: int
    """Number of gradient steps of AdaMerging."""
    learned_points: int
    """Number of points that learned coefficients evaluate besides the members."""
    learned_steps: int
    """Number of gradient steps of free learned coefficients."""
    texts: int
    """Number of texts that Fisher, RegMean and AdaMerging read from each dataset."""

    @property
    def effort(self) -> Effort:
        """How much is tried."""
        return Effort(self.densities, self.scales, self.steps, self.learned_points, self.learned_steps, self.texts)


SETTINGS = {
    "smoke": Settings(1, (), (0.5,), (1.0, 2.0), 2, 3, 1, 8),
    "packaged": Settings(
        1,
        ("vader_movie", "vader_tweets", "newsgroups_rec_sci", "reuters_r8"),
        (0.2, 0.5),
        (1.0, 2.0),
        10,
        60,
        4,
        64,
    ),
    "paper": Settings(5, (), (0.1, 0.2, 0.5), (1.0, 1.5, 2.0, 3.0), 100, 100, 10, 256),
}


def main(lab: Lab, settings: Settings) -> Found:
    """Merges a member of each target by each method and scores the results on all targets."""
    merged = settings.merged or lab.preset.targets
    jobs = lab.jobs(seeds=settings.seeds, datasets=merged)
    region = lab.population(jobs)
    names = [[member_name(job) for job in jobs if job.seed == seed] for seed in range(settings.seeds)]
    populations = [_named(region, own) for own in names]
    return [merging(lab.context(region, merged), populations, lab.heads(jobs), NAMES, settings.effort)]


def _named(region: Region, names: list[str]) -> Region:
    return region.where(lambda member: member.name in names)


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate with a probe; merges and validation come on top."""
    merged = settings.merged or preset.targets
    members = len(merged)
    return Work(settings.seeds * members, points_of(NAMES, settings.seeds, members), datasets=merged)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
