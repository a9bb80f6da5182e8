"""Is a model inside a region, on its rim, or outside? Told from the Gram matrix of the task vectors alone.

A candidate is held to what the region's own members do when each is left out in turn. Two things are compared. The
distance to the hull of the members says how far out a point lies, but in many dimensions everything short is near a
hull: the base itself is nearer to a region's hull than most members are to that of the others. So the angle to the
centroid is compared as well. The limits are Student's prediction intervals; ``docs/check.md`` has the measured rates of
errors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

from wsr.geometry.gram import distance, hull_distance
from wsr.geometry.sampling import centroid
from wsr.region.region import Region

UNKNOWN = ("", "unknown")
"""Labels that say nothing: members that came from outside may have no dataset."""
ERROR = 0.05
"""How often a member of a region may be called outside, at most, by either comparison; see ``docs/check.md``."""
FEWEST_UNITS = 3
"""Members (of a family: datasets) from which a region shows how much its own vary."""

Level = Literal["dataset", "family"]
Verdict = Literal["inside", "on the rim", "outside", "too few to say"]
Gram = Float64[np.ndarray, "members members"]


@dataclass(frozen=True, eq=False)
class Population:
    """Members as far as their Gram matrix knows them."""

    names: tuple[str, ...]
    datasets: tuple[str, ...]
    families: tuple[str, ...]
    gram: Gram
    entries: int
    """Of an encoder: the dimension of the weight space; 0 where nobody knows."""

    @classmethod
    def of(cls, region: Region, gram: Float64[np.ndarray, "members members"] | None = None) -> "Population":
        """The members of a region; a dataset that is called as its member (an import without one) is not known.

        ``gram`` takes the place of their exact inner products, which are then not worked out.
        """
        datasets = tuple("" if member.dataset == member.name else member.dataset for member in region.members)
        products = region.gram if gram is None else gram
        return cls(region.names, datasets, region.families, products, sum(region.leaf_sizes.values()))

    def part(self, members: Sequence[int]) -> "Population":
        """Some of the members, in the order given."""
        names, datasets, families = (
            tuple(own[k] for k in members) for own in (self.names, self.datasets, self.families)
        )
        return Population(names, datasets, families, self.gram[np.ix_(members, members)], self.entries)

    def joined(self, name: str, products: Float64[np.ndarray, " members_and_one"]) -> "Population":
        """The same with a model of unknown origin at the end; ``products`` are its row of the Gram matrix."""
        gram = np.zeros((len(products), len(products)))
        gram[:-1, :-1] = self.gram
        gram[-1] = gram[:, -1] = products
        return Population((*self.names, name), (*self.datasets, ""), (*self.families, ""), gram, self.entries)

    def __len__(self) -> int:
        return len(self.names)

    def regions(self, level: Level) -> dict[str, tuple[int, ...]]:
        """The members of each dataset, or of each family that has more than one dataset."""
        found: dict[str, list[int]] = {}
        labels = self.datasets if level == "dataset" else self.families
        for member, label in enumerate(labels):
            if label not in UNKNOWN and self.datasets[member] not in UNKNOWN:
                found.setdefault(label, []).append(member)
        if level == "family":
            found = {name: own for name, own in found.items() if len({self.datasets[k] for k in own}) > 1}
        return {name: tuple(own) for name, own in found.items()}


@dataclass(frozen=True)
class Standing:
    """Where a candidate lies with respect to one region; lengths are in the units of the weights."""

    level: Level
    region: str
    members: int
    cosine: float
    """Of the candidate and the region's centroid."""
    distance: float
    """To the convex hull of the region's members."""
    radius: float
    """Mean distance of the members from their centroid."""
    usual_distance: float | None
    """Mean distance of a member to the hull of the others; of a family, of the other datasets."""
    furthest: float | None
    """From which distance on a candidate is outside."""
    usual_cosine: float | None
    least: float | None
    """Below which cosine a candidate is outside."""
    verdict: Verdict
    leans_on: Mapping[str, float]
    """Weights of the members at the nearest point of the hull, those above 1 %, the largest first."""

    @property
    def relative_distance(self) -> float:
        """The distance to the hull in radii of the region; infinite for a region of a single point."""
        return self.distance / self.radius if self.radius > 0 else float("inf")


def standings(population: Population, candidate: int, *, only: Sequence[str] | None = None) -> list[Standing]:
    """Returns where a member of the population lies with respect to each region of the others, the nearest first.

    A member is never its own judge: it is taken out of its dataset, and its whole dataset out of its family.

    Args:
      population: with the candidate.
      candidate: its place in the population.
      only: names of regions to look at; None: all.
    """
    found = []
    for level in ("dataset", "family"):
        regions = {name: _without(population, level, own, candidate) for name, own in population.regions(level).items()}
        regions = {name: own for name, own in regions.items() if own}
        spread = _Spread.of([_left_out(population, level, own) for own in regions.values()])
        for name, own in regions.items():
            if only is None or name in only:
                found.append(_standing(population, level, name, own, candidate, spread))
    return sorted(found, key=lambda one: -one.cosine)


@dataclass(frozen=True, eq=False)
class _LeftOut:
    """Logarithm of the distance to the hull, and angle to the centroid, of each unit when it is left out."""

    distances: Float[np.ndarray, " units"]
    angles: Float[np.ndarray, " units"]


@dataclass(frozen=True)
class _Spread:
    """How much units of one region vary, pooled over the regions of a level."""

    distances: float
    angles: float
    freedom: int

    @classmethod
    def of(cls, regions: Sequence[_LeftOut]) -> "_Spread":
        # Of two, each is as far from the other: they show no spread.
        known = [own for own in regions if len(own.distances) >= FEWEST_UNITS]
        freedom = sum(len(own.distances) - 1 for own in known)

        def pooled(values: list[np.ndarray]) -> float:
            return float(np.sqrt(sum(np.square(own - own.mean()).sum() for own in values) / max(freedom, 1)))

        return cls(pooled([own.distances for own in known]), pooled([own.angles for own in known]), freedom)

    def margin(self, units: int) -> float:
        """How many deviations a new unit may be from the mean of so many, on one side (Student's prediction)."""
        from scipy.stats import t

        return float(t.ppf(1 - ERROR / 2, self.freedom)) * np.sqrt(1 + 1 / units)


def _standing(
    population: Population, level: Level, name: str, own: tuple[int, ...], candidate: int, spread: _Spread
) -> Standing:
    far, angle, weights = _place(population.gram, candidate, own)
    left = _left_out(population, level, own)
    usual_distance = usual_cosine = furthest = least = None
    verdict: Verdict = "too few to say"
    if len(left.distances) > 1:
        usual_distance, usual_cosine = float(np.exp(left.distances.mean())), float(np.cos(left.angles.mean()))
        if spread.freedom:
            margin = spread.margin(len(left.distances))
            furthest = float(np.exp(left.distances.mean() + margin * spread.distances))
            widest = left.angles.mean() + margin * spread.angles
            least = float(np.cos(min(widest, np.pi)))
            if far <= np.exp(left.distances.max()) and angle <= left.angles.max():
                verdict = "inside"
            else:
                verdict = "on the rim" if far <= furthest and angle <= widest else "outside"
    centre = centroid(len(population), own)[0]
    corners = np.eye(len(population))[list(own)]
    return Standing(
        level,
        name,
        len(own),
        float(np.cos(angle)),
        far,
        float(np.mean([distance(population.gram, corner, centre) for corner in corners])),
        usual_distance,
        furthest,
        usual_cosine,
        least,
        verdict,
        {population.names[own[k]]: float(weights[k]) for k in np.argsort(-weights) if weights[k] > 0.01},
    )


def _left_out(population: Population, level: Level, own: tuple[int, ...]) -> _LeftOut:
    """Leaves each member out of its dataset, or each dataset out of its family."""
    units = [str(k) if level == "dataset" else population.datasets[k] for k in own]
    found: dict[str, list[tuple[float, float]]] = {}
    for unit, member in zip(units, own, strict=True):
        others = tuple(k for k, other in zip(own, units, strict=True) if other != unit)
        if others:
            far, angle, _ = _place(population.gram, member, others)
            found.setdefault(unit, []).append((np.log(max(far, 1e-12)), angle))
    means = np.array([np.mean(values, axis=0) for values in found.values()]).reshape(-1, 2)
    return _LeftOut(means[:, 0], means[:, 1])


def _place(gram: Gram, point: int, own: tuple[int, ...]) -> tuple[float, float, Float64[np.ndarray, " own"]]:
    """Distance of a member to the hull of others, its angle to their centroid, weights of the nearest point."""
    far, weights = hull_distance(gram, np.eye(len(gram))[point], own)
    centre = centroid(len(gram), own)[0]
    lengths = np.sqrt(gram[point, point] * (centre @ gram @ centre))
    cosine = (gram[point] @ centre) / lengths if lengths > 0 else 0.0
    return far, float(np.arccos(np.clip(cosine, -1, 1))), weights


def _without(population: Population, level: Level, own: tuple[int, ...], candidate: int) -> tuple[int, ...]:
    mine = population.datasets[candidate]
    if level == "family" and mine not in UNKNOWN:
        return tuple(k for k in own if population.datasets[k] != mine)
    return tuple(k for k in own if k != candidate)
