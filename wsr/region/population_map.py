"""A population in the plane: cosines, clusters, outliers and a place for each member."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float64, Int

from wsr.region.outliers import Flag, flags
from wsr.region.region import Region
from wsr.region.standing import Population
from wsr.statistics.cluster_count import count_clusters
from wsr.statistics.clustering import average_linkage, tsne

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class PopulationMap:
    """Where the members of a region lie with respect to one another."""

    names: tuple[str, ...]
    datasets: tuple[str, ...]
    families: tuple[str, ...]
    similarity: Float64[np.ndarray, "members members"]
    """Cosines of the task vectors."""
    positions: Float[np.ndarray, "members 2"]
    """t-SNE of 1 - cosine: neighbours are meaningful, distances and axes are not."""
    clusters: Int[np.ndarray, " members"]
    """Average linkage of 1 - cosine."""
    flags: tuple[tuple[Flag, ...], ...]
    """Why a member should be left out; nothing for most."""

    def to_frame(self) -> "pandas.DataFrame":
        """One row a member: name, dataset, family, cluster, x, y, and what it is flagged for."""
        import pandas

        return pandas.DataFrame(
            {
                "member": self.names,
                "dataset": self.datasets,
                "family": self.families,
                "cluster": self.clusters,
                "x": self.positions[:, 0],
                "y": self.positions[:, 1],
                "flags": [", ".join(flag.kind for flag in found) for found in self.flags],
            }
        )

    def plot(self, ax: Any = None) -> Any:
        """Draws the members, a colour for each dataset, on matplotlib ``Axes`` and returns them."""
        from wsr.region.plots import draw_map

        return draw_map(self.positions, self.datasets, ax)

    def __repr__(self) -> str:
        flagged = sum(map(bool, self.flags))
        return (
            f"PopulationMap of {len(self.names)} members in {len(set(self.clusters.tolist()))} clusters\n"
            f"  {len(set(self.datasets))} datasets, {flagged} members flagged"
        )


def map_region(region: Region, *, clusters: int | None = None, seed: int = 0) -> PopulationMap:
    """Returns the map of a region's members.

    Args:
      region: the population.
      clusters: how many to form; None: as many as the silhouette says, see ``wsr.statistics.cluster_count``.
      seed: of t-SNE and of the test that there are clusters at all.

    Raises:
      WsrError: fewer members than clusters, or no members.

    Example:
      >>> import wsr
      >>> wsr.map(wsr.made_up_region(3), clusters=1).similarity.shape
      (3, 3)
    """
    similarity = region.similarity()
    wanted = count_clusters(similarity, seed=seed).used if clusters is None else clusters
    return PopulationMap(
        region.names,
        region.datasets,
        region.families,
        similarity,
        tsne(similarity, seed=seed),
        average_linkage(similarity, wanted),
        tuple(flags(Population.of(region))),
    )
