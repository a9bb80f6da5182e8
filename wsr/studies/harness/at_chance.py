"""Clusters populations with the members that are at chance, as the paper does, beside those without."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.studies.harness.clustered import Clustered, cluster, member_draws

AT_CHANCE = ", members at chance too"
"""Ends the name of a level of which all members are clustered, those at chance too."""


def cluster_everyone(
    region: Region, everyone: Region, labels: Callable[[Region], Mapping[str, Sequence[str]]], seed: int
) -> list[Clustered]:
    """Clusters all members, those at chance too, as the paper does; returns nothing if all members learned.

    Args:
      region: the members that learned.
      everyone: all members.
      labels: returns the label of each member of a region, by level.
      seed: seed of the bootstrap.
    """
    if len(everyone) == len(region):
        return []
    draws = member_draws(everyone.datasets, seeds.generator(seed, "members drawn again", "at chance too"))
    found = cluster(everyone.similarity(), labels(everyone), draws)
    return [dataclasses.replace(own, level=own.level + AT_CHANCE) for own in found]


def chance_told(region: Region, everyone: Region) -> list[str]:
    """Returns a paragraph on the members at chance; nothing if all members learned."""
    learned = set(region.names)
    left_out = [member for member in everyone.members if member.name not in learned]
    if not left_out:
        return []
    of = ", ".join(dict.fromkeys(member.dataset for member in left_out))
    return [
        f"{len(left_out)} of {len(everyone)} members are at chance ({of}). The paper keeps such members; here they "
        "belong to no region. Leaving them out makes clustering easier, so the scores are given both without and with "
        "them, and the verdict counts both."
    ]
