"""Which members make the populations that are merged: random draws; no member is in two populations of a recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wsr.errors import WsrError
from wsr.runtime.seeds import generator

ONE_DATASET, ONE_FAMILY, FAMILIES = "one dataset", "one family", "several families"
SHORT, LONG, LORA = "short training", "long training", "LoRA"
KINDS = (ONE_DATASET, ONE_FAMILY, FAMILIES, SHORT, LONG, LORA)
AGAIN = (SHORT, LONG, LORA)
"""Kinds that repeat the draws of several families with members of another recipe."""


@dataclass(frozen=True)
class Draw:
    """The members of one population, by dataset and seed."""

    kind: str
    name: str
    members: tuple[tuple[str, int], ...]


def drawn_populations(
    families: Mapping[str, str], sizes: Sequence[int], each: int, seed: int, *, one_dataset: Sequence[str] = ()
) -> list[Draw]:
    """Returns the populations of all kinds.

    - one dataset: members of one dataset with the first seeds, once for each dataset.
    - one family: one member each of datasets drawn from a family; the families take turns.
    - several families: one member each of datasets that are not all of one family.
    - short training, long training, LoRA: the same datasets and seeds as in several families.

    Args:
      families: the family of each dataset.
      sizes: numbers of members, which take turns.
      each: number of populations of each kind but the first.
      seed: of the draws.
      one_dataset: datasets with a population of their own; none for all.

    Raises:
      WsrError: if there are too few datasets for a kind.
    """
    if not sizes or min(sizes) < 2:
        raise WsrError(f"sizes = {tuple(sizes)}: a population to merge has at least 2 members")
    names, most = list(families), max(sizes)
    own = list(one_dataset or names)
    draws = [
        Draw(ONE_DATASET, f"{ONE_DATASET}: {name}", tuple((name, at) for at in range(sizes[number % len(sizes)])))
        for number, name in enumerate(own)
    ]
    by_family = {family: [name for name in names if families[name] == family] for family in families.values()}
    large = [family for family, members in by_family.items() if len(members) >= 2]
    if not large or len(by_family) < 2 or len(names) < most:
        raise WsrError(
            f"{len(names)} datasets of {len(by_family)} families: expected at least {most} datasets, two families, and "
            "one family of two datasets"
        )
    for number in range(each):
        family = large[number % len(large)]
        size = min(sizes[number % len(sizes)], len(by_family[family]))
        order = generator(seed, "populations", ONE_FAMILY, number).permutation(by_family[family])[:size]
        members = tuple((str(name), most + number) for name in sorted(order))
        draws.append(Draw(ONE_FAMILY, f"{ONE_FAMILY} {number + 1}: {family}", members))
    across = []
    for number in range(each):
        random, size = generator(seed, "populations", FAMILIES, number), sizes[number % len(sizes)]
        while True:
            chosen = sorted(str(name) for name in random.permutation(names)[:size])
            if len({families[name] for name in chosen}) > 1:
                break
        across.append(tuple((name, most + each + number) for name in chosen))
    draws += [
        Draw(kind, f"{kind} {number + 1}", members)
        for kind in (FAMILIES, *AGAIN)
        for number, members in enumerate(across)
    ]
    return draws
