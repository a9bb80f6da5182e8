"""The result of checking one model against a population: flags, the regions it lies in, its nearest members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wsr.geometry.gram import cosine, norms
from wsr.region.outliers import Flag, flags
from wsr.region.standing import Population, Standing, standings

NEAREST = 5
"""Number of nearest members that a check reports."""


@dataclass(frozen=True)
class Checked:
    """The result of checking one model against a population. Lengths and distances are in the units of the weights."""

    name: str
    """Name of the model."""
    dataset: str
    """Dataset the model was fine-tuned on; empty if unknown."""
    length: float
    """Length of its task vector."""
    usual_length: float
    """Median length of the other members' task vectors; NaN if there are no others."""
    flags: tuple[Flag, ...]
    """Reasons to leave the model out of an average; empty for most models."""
    standings: tuple[Standing, ...]
    """Where the model lies with respect to each region, by falling cosine with the region's centroid."""
    nearest: Mapping[str, float]
    """Cosine with each of the ``NEAREST`` most similar members, by name."""

    def own(self, level: str = "dataset") -> Standing | None:
        """Returns the model's standing in the region of its own dataset, or None if no other member has that dataset.

        Args:
          level: ``"dataset"`` or ``"family"``.
        """
        found = [one for one in self.standings if one.level == level and one.region == self.dataset]
        return found[0] if found else None

    @property
    def of_a_region(self) -> list[Standing]:
        """The standings in which the model is inside the region or on its rim."""
        return [one for one in self.standings if one.verdict in ("inside", "on the rim")]

    def to_json(self) -> dict:
        """Returns the result as JSON values; unknown or non-finite numbers are null."""
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
    """Checks one member of a population against the others.

    Flagged members and those in ``doubtful`` do not count as part of any region.

    Args:
      population: the members, the candidate among them.
      candidate: the candidate's index in the population.
      doubtful: indices of further members to leave out of the regions.

    Returns:
      The candidate's flags, standings and nearest members.
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
