"""Pairs of members whose connecting lines studies look at."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from wsr.errors import WsrError, nearest_names
from wsr.region.region import Region
from wsr.studies.harness.context import Context

KINDS = ("same dataset", "same family", "across families")
GENERAL = "other datasets"
"""The kind of pair of the general level: two members of different datasets, neither of which is the target."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two members whose connecting line is looked at."""

    kind: str
    region: Region
    target: str
    """Dataset of the first member; of a pair of the general level, another one."""

    @property
    def name(self) -> str:
        """The two ends."""
        return " – ".join(self.region.names)

    @property
    def datasets(self) -> list[str]:
        """Datasets of both ends, each once."""
        return list(dict.fromkeys(self.region.datasets))


def draw_pairs(context: Context, pairs_a_kind: int) -> list[Pair]:
    """Draws pairs of each kind, each scored on the dataset of its first member, which is a target."""
    region = context.region
    pairs = []
    for kind in KINDS:
        found = [
            Pair(kind, region.with_members((a, b)), target)
            for target in context.targets
            for a, b in itertools.permutations(region.members, 2)
            if a.dataset == target
            and kind == _kind(a.dataset == b.dataset, a.family == b.family)
            and (a.name < b.name or a.dataset != b.dataset)
        ]
        # A stride over the targets: the first pairs of a kind are of different targets.
        order = context.generator("pairs", kind).permutation(len(found))
        chosen: list[Pair] = []
        for wanted in itertools.islice(itertools.cycle(context.targets), pairs_a_kind):
            options = [found[k] for k in order if found[k].target == wanted and found[k] not in chosen]
            chosen += options[:1]
        pairs += chosen
    return pairs


def named_pairs(context: Context, between: Sequence[str], most: int) -> list[Pair]:
    """Draws pairs of members of named datasets, scored on both.

    Args:
      context: the population.
      between: names of two datasets, as ``FIRST:SECOND``.
      most: largest number of pairs of each kind.

    Raises:
      WsrError: a kind is not two names of datasets of the population.
    """
    region, pairs = context.region, []
    for kind in between:
        first, _, second = kind.partition(":")
        for name in (first, second):
            if name not in region.datasets:
                raise WsrError(
                    f"--between={kind}: expected FIRST:SECOND, two datasets with members that learned; "
                    f"nearest: {nearest_names(name, sorted(set(region.datasets)))}"
                )
        a, b = ([member for member in region.members if member.dataset == name] for name in (first, second))
        found = list(itertools.combinations(a, 2)) if first == second else list(itertools.product(a, b))
        order = context.generator("pairs", kind).permutation(len(found))[:most]
        pairs += [Pair(f"{first} – {second}", region.with_members(found[k]), first) for k in order]
    return pairs


def general_pairs(context: Context, most: int) -> list[Pair]:
    """Draws pairs of members of two datasets, scored on a target that neither was trained on; targets take turns."""
    pairs = []
    for number, target in enumerate(itertools.islice(itertools.cycle(context.targets), most)):
        region = context.region.without_dataset(target)
        if len(set(region.datasets)) < 2:
            continue
        draw = context.generator("pairs", GENERAL, target, number)
        first = region.members[draw.integers(len(region))]
        others = [member for member in region.members if member.dataset != first.dataset]
        pairs.append(Pair(GENERAL, region.with_members((first, others[draw.integers(len(others))])), target))
    return pairs


def _kind(same_dataset: bool, same_family: bool) -> str:
    return KINDS[0] if same_dataset else KINDS[1] if same_family else KINDS[2]
