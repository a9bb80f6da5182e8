"""Does the loss rise past the members, as it would if they sat on the rim of a basin? (claim 7)

Command:  python -m experiments.extrapolation --preset=packaged
Cost:     70 members and at most 1,134 points; see README.md beside this file
Expect:   beyond the members the loss rises fast, in 10 logarithmic steps to alpha 32 and -31
"""

from dataclasses import dataclass

from experiments.launcher import Found, launch
from wsr.geometry.sampling import extrapolation_alphas
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.lines import extrapolation
from wsr.studies.pairs import GENERAL, KINDS


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    pairs_a_kind: int
    """Number of pairs of members per kind: same dataset, same family, different families, none of the target."""
    steps: int
    """Number of logarithmic steps on each side of a line; the first step is the member."""
    furthest: float
    """Largest alpha; the smallest alpha is 1 minus this number."""


SETTINGS = {"smoke": Settings(2, 2, 3, 8.0), "packaged": Settings(5, 14, 10, 32.0), "paper": Settings(5, 10, 10, 32.0)}


def main(lab: Lab, settings: Settings) -> Found:
    """Draws pairs of each kind and walks past their ends."""
    context = lab.context(lab.population(lab.jobs(seeds=settings.seeds)))
    alphas = extrapolation_alphas(settings.steps, settings.furthest)
    return [extrapolation(context, alphas=alphas, pairs_a_kind=settings.pairs_a_kind, kinds=(*KINDS, GENERAL))]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate, at most: lines share some of their ends."""
    pairs = settings.pairs_a_kind
    # Of the first three kinds one end is a member of the target; of the general level neither is.
    ends = len(preset.targets) * settings.seeds + (len(KINDS) + 1) * pairs
    points = (len(KINDS) + 1) * pairs * 2 * (settings.steps - 1) + ends
    return Work(members=settings.seeds * len(preset.datasets), points=points)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
