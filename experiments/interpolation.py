"""Is the loss on the line between two members as low as at its ends? (claim 5)

Command:  python -m experiments.interpolation --preset=packaged
Cost:     70 members and at most 784 points; see README.md beside this file
Expect:   no barrier between MNLI and MNLI, ESNLI or SST2, and the lowest loss often strictly between
"""

from dataclasses import dataclass

import numpy as np

from experiments.launcher import Found, launch
from wsr.studies.harness.lab import Lab
from wsr.studies.harness.preset import Preset
from wsr.studies.harness.work import Work
from wsr.studies.lines import lines
from wsr.studies.pairs import KINDS


@dataclass(frozen=True)
class Settings:
    """Values of this experiment."""

    seeds: int
    """Number of members per dataset."""
    pairs_a_kind: int
    """Largest number of pairs of members per kind."""
    alphas: int
    """Number of points on a line, both ends included; 11 points are steps of 0.1."""
    between: tuple[str, ...] = ()
    """Kinds of pairs as FIRST:SECOND, two datasets; none for same dataset, same family and different families."""


PAPER = ("mnli:mnli", "mnli:esnli", "mnli:sst2")
"""The paper's kinds of pairs: 10 of one dataset's five members, 25 of two datasets'."""
SETTINGS = {"smoke": Settings(2, 2, 3), "packaged": Settings(5, 14, 11), "paper": Settings(5, 25, 11, PAPER)}


def main(lab: Lab, settings: Settings) -> Found:
    """Draws pairs of each kind and scores the lines between them on the datasets of both ends."""
    region = lab.population(lab.jobs(seeds=settings.seeds, datasets=datasets(settings) or None))
    alphas = np.round(np.linspace(0, 1, settings.alphas), 10)
    context = lab.context(region, datasets(settings) or None)
    return [lines(context, alphas=alphas, pairs_a_kind=settings.pairs_a_kind, between=settings.between)]


def work(preset: Preset, settings: Settings) -> Work:
    """What it would train and evaluate, at most: lines share some of their ends."""
    names, seeds, most, inner = datasets(settings), settings.seeds, settings.pairs_a_kind, settings.alphas - 2
    if not names:
        pairs = len(KINDS) * most
        # Of pairs of two datasets both ends are scored on both; of the others, on their own.
        ends = len(preset.targets) * seeds + (len(KINDS) - 1) * 3 * most
        lines_scored = pairs + (len(KINDS) - 1) * most
        return Work(members=seeds * len(preset.datasets), points=lines_scored * inner + ends)
    points = 0
    for kind in settings.between:
        first, _, second = kind.partition(":")
        one = first == second
        points += min(most, seeds * (seeds - 1) // 2 if one else seeds**2) * inner * (1 if one else 2)
    scored_on = {frozenset((*kind.split(":"),)) for kind in settings.between}
    # Each member of a pair is scored on the datasets of both.
    ends = seeds * len({(name, on) for pair in scored_on for name in pair for on in pair})
    return Work(members=seeds * len(names), points=points + ends, datasets=names, targets=names)


def datasets(settings: Settings) -> tuple[str, ...]:
    """The datasets of the named kinds of pairs."""
    return tuple(dict.fromkeys(name for kind in settings.between for name in kind.split(":")))


if __name__ == "__main__":
    launch(main, SETTINGS, work)
