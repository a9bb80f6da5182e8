"""Whether a model lies inside a region, on its rim or outside; computed from the Gram matrix of the task vectors alone.

A candidate is compared with the region's own members, each left out in turn. Two quantities are compared: the distance
to the convex hull of the members, and the angle to their centroid. The distance alone is not enough, because in many
dimensions every short vector is near a hull: the base itself is nearer to a region's hull than most members are to the
hull of the others. The limits are Student's prediction intervals; ``docs/check.md`` has the measured error rates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64

from wsr.geometry.gram import distance, hull_distance
from wsr.geometry.sampling import centroid
from wsr.geometry.trees import flatten
from wsr.region.region import Region

UNKNOWN = ("", "unknown")
"""Labels of members without a known dataset or family."""
ERROR = 0.05
"""Rate at which each comparison may call a true member of a region outside, at most; see ``docs/check.md``."""
FEWEST_UNITS = 3
"""Units (members of a dataset, or datasets of a family) needed to estimate how much a region's members vary."""

Level = Literal["dataset", "family"]
Verdict = Literal["inside", "on the rim", "outside", "too few to say"]
Gram = Float64[np.ndarray, "members members"]


@dataclass(frozen=True, eq=False)
class Population:
    """Names, labels and Gram matrix of a population's members."""

    names: tuple[str, ...]
    """Name of each member."""
    datasets: tuple[str, ...]
    """Dataset of each member; empty if unknown."""
    families: tuple[str, ...]
    """Family of each member's dataset."""
    gram: Gram
    """Inner products of the task vectors."""
    entries: int
    """Number of parameters of the encoder, the dimension of the weight space; 0 if unknown."""
    base_length: float = 0.0
    """Length of the base's weights; 0 if unknown."""

    @classmethod
    def of(cls, region: Region, gram: Float64[np.ndarray, "members members"] | None = None) -> "Population":
        """Returns the population of a region.

        The dataset of a member that is named like its dataset (an import without a dataset) counts as unknown.

        Args:
          region: the members.
          gram: inner products to use in place of ``region.gram``, for example those of sketches.
        """
        datasets = tuple("" if member.dataset == member.name else member.dataset for member in region.members)
        products = region.gram if gram is None else gram
        base_length = np.sqrt(sum(np.vdot(leaf, leaf).astype(np.float64) for leaf in flatten(region.base).values()))
        entries = sum(region.leaf_sizes.values())
        return cls(region.names, datasets, region.families, products, entries, float(base_length))

    def part(self, members: Sequence[int]) -> "Population":
        """Returns the population of some members, given by index, in that order."""
        names, datasets, families = (
            tuple(own[k] for k in members) for own in (self.names, self.datasets, self.families)
        )
        return replace(
            self, names=names, datasets=datasets, families=families, gram=self.gram[np.ix_(members, members)]
        )

    def joined(self, name: str, products: Float64[np.ndarray, " members_and_one"]) -> "Population":
        """Returns the population with one more model, of unknown dataset, at the end.

        Args:
          name: name of the model.
          products: inner products of its task vector with those of the members and with itself.
        """
        gram = np.zeros((len(products), len(products)))
        gram[:-1, :-1] = self.gram
        gram[-1] = gram[:, -1] = products
        return replace(
            self, names=(*self.names, name), datasets=(*self.datasets, ""), families=(*self.families, ""), gram=gram
        )

    def __len__(self) -> int:
        return len(self.names)

    def regions(self, level: Level) -> dict[str, tuple[int, ...]]:
        """Returns the indices of the members of each region, by name.

        Args:
          level: ``"dataset"``: one region per dataset; ``"family"``: one per family that has more than one dataset.
        """
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
    """Where a candidate lies with respect to one region. Distances are in the units of the weights."""

    level: Level
    """Whether the region is that of a dataset or of a family."""
    region: str
    """Name of the dataset or family."""
    members: int
    """Number of members of the region."""
    cosine: float
    """Cosine of the candidate's task vector with the region's centroid."""
    distance: float
    """Distance to the convex hull of the region's members."""
    radius: float
    """Mean distance of the members from their centroid."""
    usual_distance: float | None
    """Geometric mean distance of a member to the hull of the others (in a family: of the other datasets)."""
    furthest: float | None
    """Distance to the hull beyond which a candidate is outside."""
    usual_cosine: float | None
    """Cosine of a member's mean angle to the centroid of the others (in a family: of the other datasets)."""
    least: float | None
    """Cosine below which a candidate is outside."""
    verdict: Verdict
    """Whether the candidate lies inside the region, on its rim or outside, or too few members to say."""
    leans_on: Mapping[str, float]
    """Weights of the members at the nearest point of the hull, largest first, those above 1 %."""

    @property
    def relative_distance(self) -> float:
        """Distance to the hull divided by the region's radius; infinite if the radius is 0."""
        return self.distance / self.radius if self.radius > 0 else float("inf")


def standings(population: Population, candidate: int, *, only: Sequence[str] | None = None) -> list[Standing]:
    """Returns where one member lies with respect to each region of the others, by falling cosine.

    A member does not vouch for itself: it is removed from its dataset's region, and its dataset is removed from its
    family's region.

    Args:
      population: the members, the candidate among them.
      candidate: the candidate's index in the population.
      only: names of the regions to look at; None: all.
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
    """Log-distance to the hull and angle to the centroid of each unit when it is left out."""

    distances: Float[np.ndarray, " units"]
    angles: Float[np.ndarray, " units"]


@dataclass(frozen=True)
class _Spread:
    """Standard deviation of units within a region, pooled over the regions of a level."""

    distances: float
    angles: float
    freedom: int

    @classmethod
    def of(cls, regions: Sequence[_LeftOut]) -> "_Spread":
        # Two units are equally far from each other: they show no spread.
        known = [own for own in regions if len(own.distances) >= FEWEST_UNITS]
        freedom = sum(len(own.distances) - 1 for own in known)

        def pooled(values: list[np.ndarray]) -> float:
            return float(np.sqrt(sum(np.square(own - own.mean()).sum() for own in values) / max(freedom, 1)))

        return cls(pooled([own.distances for own in known]), pooled([own.angles for own in known]), freedom)

    def margin(self, units: int) -> float:
        """Returns how many standard deviations a new unit may lie beyond the mean (one-sided Student prediction
        interval)."""
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
    """Leaves each member out of its dataset, or each dataset out of its family, in turn."""
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
    """Returns a member's distance to the hull of others, its angle to their centroid, and the weights of the nearest
    point."""
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
