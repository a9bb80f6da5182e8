"""The independent draws behind the models of a group: datasets, or the members of one dataset.

Members of one dataset are alike, and points of a hull share its corners. Taken for independent models they make every
interval too narrow, so intervals here count sources: a group's models are only as many independent observations as it
has sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError

FEWEST = 3
"""Fewest sources for an interval; with fewer, the spread between sources is unknown."""


@dataclass(frozen=True, eq=False)
class Sources:
    """The sources of a group's models, and each model's share in each source.

    Example:
      Three members of two datasets, and a point halfway between the datasets.

      >>> import numpy as np
      >>> from wsr.statistics.sources import Sources
      >>> group = Sources(("cola", "sst2"), np.array([[1, 0], [1, 0], [0, 1], [0.5, 0.5]]))
      >>> group.weights.tolist(), group.too_few("group a")
      ([0.625, 0.375], 'group a comes from 2 sources; an interval needs 3')
    """

    names: tuple[str, ...]
    """Names; two groups share the sources whose names are equal."""
    shares: Float[np.ndarray, "models sources"]
    """One row per model; every row sums to 1."""
    kind: str = field(default="source")
    """What a source is: ``dataset``, ``member`` or ``model``."""

    def __post_init__(self) -> None:
        if self.shares.shape[1] != len(self.names) or not np.allclose(self.shares.sum(axis=1), 1):
            raise WsrError(
                f"sources: expected one column per name, and rows that sum to 1; found {len(self.names)} names and "
                f"shares of shape {self.shares.shape}"
            )

    @classmethod
    def independent(cls, models: int, group: str) -> "Sources":
        """Returns sources of models that are independent of one another and of other groups."""
        return cls(tuple(f"{group} {number}" for number in range(models)), np.eye(models), "model")

    @property
    def weights(self) -> Float[np.ndarray, " sources"]:
        """Share of each source in the mean over the models."""
        return self.shares.mean(axis=0)

    @property
    def count(self) -> float:
        """Number of equally weighted sources with the same variance of the mean (Kish 1965)."""
        return float(1 / (self.weights**2).sum())

    def first(self, models: int) -> "Sources":
        """Returns the sources of the first models alone."""
        shares = self.shares[:models]
        used = np.flatnonzero(shares.any(axis=0))
        return Sources(tuple(self.names[k] for k in used), shares[:, used], self.kind)

    def too_few(self, group: str) -> str:
        """Says why the group allows no interval; empty if it does."""
        found = len(self.names)
        if found >= FEWEST:
            return ""
        return f"{group} comes from {found} {self.kind}{'s' * (found != 1)}; an interval needs {FEWEST}"

    def influences(self, values: Float[np.ndarray, " models"]) -> Float[np.ndarray, " sources"] | None:
        """Returns how far each source moves the mean of the models' values.

        The values are fitted as sums of one number per source, weighted by the shares. If each model has one source,
        these numbers are the means of the models of a source; for points of a hull they are the values at its corners,
        extrapolated linearly.

        Args:
          values: one value per model.

        Returns:
          Weight of each source times its deviation from the mean; None if there are too few models to tell.
        """
        deviations, _, rank, _ = np.linalg.lstsq(self.shares, values - values.mean(), rcond=1e-8)
        return self.weights * deviations if rank == len(self.names) else None


def by_source(names: Sequence[str], shares: Float[np.ndarray, "models items"]) -> Float[np.ndarray, "models sources"]:
    """Returns the shares summed over the items of each name, in the order in which the names first appear."""
    order = list(dict.fromkeys(names))
    return shares @ np.array([[name == own for own in order] for name in names], np.float64)
