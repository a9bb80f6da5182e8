"""Is the loss on the line between two members as low as at its ends? (claim 5)

Command:  python -m experiments.interpolation --preset=packaged
Cost:     70 members and at most 476 points; see README.md beside this file
Expect:   no barrier between MNLI and MNLI, ESNLI or SST2, and the lowest loss often strictly between
"""

from dataclasses import dataclass

import numpy as np

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.lines import KINDS, lines


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    pairs_a_kind: int
    """Number of pairs of members per kind: same dataset, same family, different families."""
    alphas: int
    """Number of points on a line, both ends included; 11 points are steps of 0.1."""


SETTINGS = {"smoke": Settings(2, 2, 3), "packaged": Settings(5, 14, 11), "paper": Settings(5, 25, 11)}


def main(lab: Lab, settings: Settings) -> Found:
    """Draws pairs of the three kinds and scores the lines between them."""
    context = lab.context(lab.population(lab.jobs(seeds=settings.seeds)))
    alphas = np.round(np.linspace(0, 1, settings.alphas), 10)
    return [lines(context, alphas=alphas, pairs_a_kind=settings.pairs_a_kind)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate, at most: lines share some of their ends."""
    pairs = settings.pairs_a_kind
    ends = len(preset.targets) * settings.seeds + (len(KINDS) - 1) * pairs
    return Work(members=settings.seeds * len(preset.datasets), points=len(KINDS) * pairs * (settings.alphas - 2) + ends)


if __name__ == "__main__":
    launch(main, SETTINGS, work)
