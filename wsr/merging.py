"""A population in, one model out."""

from collections.abc import Callable, Mapping

from wsr.region import Region
from wsr.types import Params


def uniform_soup(region: Region) -> Params:
    """The uniform average of all members, which is the region's centroid.

    ``theta = (1 / n) sum_k theta_k``. Source: Wortsman et al., Model soups, 2022. To leave members out, merge a part of
    the region: ``uniform_soup(region.without_dataset("sst2"))``.
    """
    return region.params(region.centroid())


METHODS: Mapping[str, Callable[[Region], Params]] = {"uniform": uniform_soup}
"""Merges by name."""
