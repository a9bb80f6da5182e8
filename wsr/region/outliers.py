"""Members that should not enter an average, and why: told from the Gram matrix, before anything is merged."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.geometry.gram import cosine, norms
from wsr.region.standing import UNKNOWN, Population

FURTHEST_Z = 3.5
"""Robust z-score from which a length is out of the ordinary; Iglewicz and Hoaglin, How to detect outliers, 1993."""
LEAST_SPREAD = np.log(1.25)
"""Lengths of one recipe hardly differ: a member counts as out of the ordinary from 2.2 times the median on."""
FEWEST_OTHERS = 3
UNMOVED = 1e-3
"""Of the median length: a shorter member is the base."""
APART = 0.25
"""Of the usual cosine of two members of one dataset: a member that is less like its own belongs elsewhere."""
TWIN = 1e-3
"""Of their length: members nearer to one another are one model twice."""


@dataclass(frozen=True)
class Flag:
    """Why a member should be left out."""

    kind: str
    """long, short, unmoved, apart, alone or twin."""
    told: str


def flags(population: Population) -> list[tuple[Flag, ...]]:
    """Returns what speaks against each member, nothing for most.

    long, short  the length of its task vector is far from the others' (a learning rate too high, a broken run; too low)
    unmoved      it is the base
    apart        it has nothing in common with the other members of its own dataset
    alone        it has no others of its dataset, and is as orthogonal to everyone as a random direction would be
    twin         it is the same model as one before it, which an average would count twice
    """
    return [
        tuple(flag for look in (_length, _apart, _twin) if (flag := look(population, member)))
        for member in range(len(population))
    ]


def length_z(lengths: Float[np.ndarray, " members"], member: int) -> float:
    """Returns how far a member's length is from the others', in robust standard deviations of its logarithm."""
    others = np.log(np.delete(lengths, member))
    middle = np.median(others)
    spread = 1.4826 * np.median(np.abs(others - middle))  # of a normal law the standard deviation
    return float((np.log(lengths[member]) - middle) / max(spread, LEAST_SPREAD))


def _length(population: Population, member: int) -> Flag | None:
    lengths = norms(population.gram)
    others = np.delete(lengths, member)
    usual = float(np.median(others)) if len(others) else 0.0
    if lengths[member] <= UNMOVED * usual or lengths[member] == 0:
        return Flag("unmoved", "it is the base: its task vector has next to no length")
    moved = lengths > UNMOVED * usual
    if moved.sum() <= FEWEST_OTHERS:
        return None
    z = length_z(lengths[moved], int(moved[:member].sum()))
    if abs(z) <= FURTHEST_Z:
        return None
    ratio = lengths[member] / np.median(lengths[moved])
    if z > 0:
        return Flag("long", f"its task vector is {ratio:.3g} times as long as is usual here: a learning rate too high?")
    return Flag("short", f"its task vector is {ratio:.2g} of the usual length: a learning rate too low, or few steps?")


def _apart(population: Population, member: int) -> Flag | None:
    if population.gram[member, member] == 0 or len(population) == 1:
        return None
    similarity, labels = cosine(population.gram), np.array(population.datasets)
    others = np.arange(len(population)) != member
    known = others & ~np.isin(labels, UNKNOWN)
    own = known & (labels == labels[member])
    if own.any():
        pairs = similarity[np.triu((labels[:, None] == labels) & known[:, None] & known, 1)]
        nearest = float(similarity[member, own].max())
        if not len(pairs) or nearest >= APART * np.median(pairs):
            return None
        told = f"its cosine with the nearest of the {own.sum()} others of {labels[member]} is {nearest:.3f}"
        doubt = "; or the other is the odd one" if own.sum() == 1 else ""
        return Flag("apart", f"{told}, where {float(np.median(pairs)):.3f} is usual in one dataset{doubt}")
    nearest = float(np.abs(similarity[member, others]).max())
    # Of two random directions the cosine has a standard deviation of one over the root of the dimension.
    if not population.entries or nearest > 5 / np.sqrt(population.entries):
        return None
    return Flag("alone", f"its cosine with any other member is at most {nearest:.1e}, like that of a random direction")


def _twin(population: Population, member: int) -> Flag | None:
    gram = population.gram
    for other in range(member):
        apart = np.sqrt(max(gram[member, member] + gram[other, other] - 2 * gram[member, other], 0.0))
        if gram[member, member] > 0 and apart <= TWIN * np.sqrt(gram[member, member]):
            return Flag("twin", f"it is the same model as {population.names[other]}")
    return None
