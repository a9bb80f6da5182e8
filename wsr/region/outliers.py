"""Members to leave out of an average, and why; computed from the Gram matrix of the task vectors before any merge."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.geometry.gram import cosine, distance, norms
from wsr.region.standing import UNKNOWN, Gram, Population

FURTHEST_Z = 3.5
"""Lengths with a larger robust z-score are outliers (Iglewicz and Hoaglin, How to detect outliers, 1993)."""
LEAST_SPREAD = np.log(1.25)
"""Least standard deviation of log-lengths. Models of one recipe have nearly equal lengths; with this floor a member is
an outlier only beyond 2.2 times the median length."""
FEWEST_OTHERS = 3
"""Members besides the candidate needed to judge its length."""
UNMOVED = 1e-3
"""A task vector shorter than this share of the median length counts as zero: the member is the base."""
APART = 0.25
"""A member is apart if its largest cosine with its own dataset's members is below this share of the usual cosine."""
TWIN = 1e-3
"""Two members closer than this share of their length are the same model."""
ORTHOGONAL = 0.05
"""Cosine below which two vectors are orthogonal."""
ROUNDED = 2**-9
"""Rounding weights to bfloat16 moves a model by less than this share of the length of its weights: by 0.0015 of it, if
their logarithms are spread evenly, and by 0.0002 in float16."""


@dataclass(frozen=True)
class Flag:
    """A reason to leave a member out of an average."""

    kind: str
    """``long``, ``short``, ``unmoved``, ``apart``, ``alone`` or ``twin``; see ``flags``."""
    told: str
    """The reason in one sentence, with the numbers behind it."""


def flags(population: Population) -> list[tuple[Flag, ...]]:
    """Returns the reasons to leave each member out of an average, at most one each of length, similarity and identity.

    - ``long``, ``short``: the length of its task vector is far from the others' (learning rate too high or too low,
      broken run).
    - ``unmoved``: its weights equal the base.
    - ``apart``: it is not similar to the other members of its own dataset.
    - ``alone``: no other member has its dataset, and it is as orthogonal to every member as a random direction.
    - ``twin``: it is the same model as an earlier member, perhaps rounded to bfloat16 or float16, so an average would
      count that model twice.

    Args:
      population: the members and their Gram matrix.

    Returns:
      One tuple per member, empty for most.

    Example:
      >>> import wsr
      >>> from wsr.region.outliers import flags
      >>> from wsr.region.standing import Population
      >>> base, other = wsr.load("tiny"), wsr.made_up_region(1).members[0].load()
      >>> region = wsr.from_params(base.model, base.params, {"mine": other, "copy": other})
      >>> [[flag.kind for flag in reasons] for reasons in flags(Population.of(region))]
      [[], ['twin']]
    """
    return [
        tuple(flag for look in (_length, _apart, _twin) if (flag := look(population, member)))
        for member in range(len(population))
    ]


def length_z(lengths: Float[np.ndarray, " members"], member: int) -> float:
    """Returns the robust z-score of a member's log-length among the others.

    Args:
      lengths: length of each task vector, in the units of the weights.
      member: index of the member.
    """
    others = np.log(np.delete(lengths, member))
    middle = np.median(others)
    spread = 1.4826 * np.median(np.abs(others - middle))  # the standard deviation, for a normal distribution
    return float((np.log(lengths[member]) - middle) / max(spread, LEAST_SPREAD))


def _length(population: Population, member: int) -> Flag | None:
    lengths = norms(population.gram)
    others = np.delete(lengths, member)
    usual = float(np.median(others)) if len(others) else 0.0
    if lengths[member] <= UNMOVED * usual or lengths[member] == 0:
        return Flag("unmoved", "its weights equal the base: the length of its task vector is nearly zero")
    moved = lengths > UNMOVED * usual
    if moved.sum() <= FEWEST_OTHERS:
        return None
    z = length_z(lengths[moved], int(moved[:member].sum()))
    if abs(z) <= FURTHEST_Z:
        return None
    ratio = lengths[member] / np.median(lengths[moved])
    if z > 0:
        return Flag(
            "long", f"its task vector is {ratio:.3g} times as long as usual here: was the learning rate too high?"
        )
    return Flag("short", f"its task vector is {ratio:.2g} of the usual length: learning rate too low, or few steps?")


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
    # The cosine of two random directions has a standard deviation of one over the root of the dimension.
    if not population.entries or nearest > 5 / np.sqrt(population.entries):
        return None
    return Flag("alone", f"its cosine with any other member is at most {nearest:.1e}, like that of a random direction")


def _twin(population: Population, member: int) -> Flag | None:
    lengths = norms(population.gram)
    for other in range(member):
        apart = distance(population.gram, *np.eye(len(population))[[member, other]])
        if lengths[member] > 0 and apart <= TWIN * lengths[member]:
            return Flag("twin", f"it is the same model as {population.names[other]}")
        if apart <= ROUNDED * population.base_length and _only_rounded(population.gram, member, other):
            return Flag("twin", f"it is the same model as {population.names[other]}, up to rounding to 16 bits")
    return None


def _only_rounded(gram: Gram, first: int, second: int) -> bool:
    """Returns whether the difference of two members looks like rounding: noise that is orthogonal to one of them and
    shorter than both."""
    apart = gram[first, first] + gram[second, second] - 2 * gram[first, second]
    along = [abs(gram[first, second] - gram[one, one]) for one in (first, second)]
    shorter = min(gram[first, first], gram[second, second])
    return bool(apart < shorter and min(along) < ORTHOGONAL * np.sqrt(apart * shorter))
