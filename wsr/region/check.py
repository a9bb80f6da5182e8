"""What is found about one model of a population: flags, the regions it lies in, its nearest members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsr.geometry.gram import cosine, norms
from wsr.region.outliers import Flag, flags
from wsr.region.standing import Population, Standing, standings

NEAREST = 5


@dataclass(frozen=True)
class Checked:
    """What was found about one model."""

    name: str
    dataset: str
    length: float
    """Of its task vector."""
    usual_length: float
    """The median of the others'; NaN where there are none."""
    flags: tuple[Flag, ...]
    standings: tuple[Standing, ...]
    nearest: Mapping[str, float]
    """The members with the largest cosines."""

    def own(self, level: str = "dataset") -> Standing | None:
        """Where it lies with respect to the region of its own dataset, if there are others of it."""
        found = [one for one in self.standings if one.level == level and one.region == self.dataset]
        return found[0] if found else None

    @property
    def of_a_region(self) -> list[Standing]:
        """The regions that it is inside or on the rim of."""
        return [one for one in self.standings if one.verdict in ("inside", "on the rim")]

    def to_json(self) -> dict:
        """Everything, as JSON: what is not known or not finite is null."""
        return {
            "name": self.name,
            "dataset": self.dataset or None,
            "length": self.length,
            "usual_length": _finite(self.usual_length),
            "flags": [{"kind": flag.kind, "told": flag.told} for flag in self.flags],
            "regions": [
                {
                    "level": one.level,
                    "region": one.region,
                    "members": one.members,
                    "verdict": one.verdict,
                    "cosine": one.cosine,
                    "usual_cosine": one.usual_cosine,
                    "least_cosine": one.least,
                    "distance": one.distance,
                    "usual_distance": one.usual_distance,
                    "furthest_distance": one.furthest,
                    "radius": one.radius,
                    "relative_distance": _finite(one.relative_distance),
                    "leans_on": dict(one.leans_on),
                }
                for one in self.standings
            ],
            "nearest_members": dict(self.nearest),
        }


def check_candidate(population: Population, candidate: int, doubtful: Sequence[int] = ()) -> Checked:
    """Holds one member of the population to the others.

    Members that are flagged themselves, and those in ``doubtful``, take no part in the regions.
    """
    flagged = flags(population)
    sound = [k for k in range(len(population)) if k != candidate and not flagged[k] and k not in doubtful]
    part = population.part([*sound, candidate])
    others = [k for k in range(len(population)) if k != candidate]
    similarity = cosine(population.gram)[candidate]
    nearest = sorted(others, key=lambda k: -similarity[k])[:NEAREST]
    lengths = norms(population.gram)
    return Checked(
        population.names[candidate],
        population.datasets[candidate],
        float(lengths[candidate]),
        float(np.median(lengths[sound])) if sound else float("nan"),
        flagged[candidate],
        tuple(standings(part, len(part) - 1)),
        {population.names[k]: float(similarity[k]) for k in nearest},
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
