"""Which datasets lie outside the region of their family, as WNLI lies outside NLI in the paper."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsr.region.region import Region
from wsr.report.document import Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.runtime import seeds
from wsr.statistics.interval import Interval
from wsr.studies.harness.clustered import cosine_difference, member_draws, same

NEARER = 0.01
"""Difference of mean cosines up to which a dataset counts as no nearer to its family than to others."""


@dataclass(frozen=True)
class Place:
    """Where the members of a dataset lie, seen from its family."""

    dataset: str
    family: str
    within: float
    """Mean cosine with the other datasets of the family."""
    across: float
    """Mean cosine with the datasets of other families."""
    gap: Interval
    """The first minus the second."""

    @property
    def outside(self) -> str:
        """Whether the members lie outside: ``yes``, ``no``, or ``open`` if the interval says neither."""
        return "yes" if self.gap.high < NEARER else "no" if self.gap.low > 0 else "open"


def family_places(everyone: Region, seed: int = 0) -> list[Place]:
    """Returns the place of each dataset whose family has others.

    Args:
      everyone: all members, those at chance too: they are the ones that may lie outside.
      seed: seed of the bootstrap.
    """
    names, of_family, similarity = np.array(everyone.datasets), same(everyone.families), everyone.similarity()
    draws = member_draws(everyone.datasets, seeds.generator(seed, "members drawn again", "places"))
    places = []
    for dataset, family in dict.fromkeys(zip(everyone.datasets, everyone.families, strict=True)):
        own = names == dataset
        touching = own[:, None] != own[None, :]  # one member of the dataset and one of another
        within, across = touching & of_family, touching & ~of_family
        if within.any() and across.any():
            gap = cosine_difference(similarity, within, across, draws)
            places.append(
                Place(dataset, family, float(similarity[within].mean()), float(similarity[across].mean()), gap)
            )
    return places


def places_table(places: Sequence[Place]) -> Table:
    """Returns a report table of the places."""
    return Table(
        "Each dataset and its family",
        ("dataset", "family", "cosine with its family", "with other families", "difference", INTERVAL, "outside"),
        tuple(
            (
                place.dataset,
                place.family,
                place.within,
                place.across,
                place.gap.value,
                interval_cell(place.gap.low, place.gap.high),
                place.outside,
            )
            for place in places
        ),
        "Mean cosine of the dataset's members, those at chance too, with members of other datasets. Outside: yes if "
        f"the interval of the difference lies below {NEARER}, no if it lies above 0, else open. Intervals: bootstrap "
        "over the members of each dataset. In the paper WNLI lies outside the region of NLI.",
    )


def outside_told(places: Sequence[Place]) -> list[str]:
    """Returns a sentence that names the datasets outside their family; nothing if no family has two datasets."""
    if not places:
        return []
    outside = [f"{place.dataset} ({place.family})" for place in places if place.outside == "yes"]
    if outside:
        return [f"Outside the region of their family lie the members of {', '.join(outside)}."]
    return ["No dataset's members were shown to lie outside the region of their family."]
