"""A map of a population: cosines, clusters, outliers and a position in the plane for each member."""

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
    """The cosines, clusters, outliers and positions of a region's members."""

    names: tuple[str, ...]
    """Name of each member."""
    datasets: tuple[str, ...]
    """Dataset of each member."""
    families: tuple[str, ...]
    """Family of each member's dataset."""
    similarity: Float64[np.ndarray, "members members"]
    """Cosines of the task vectors."""
    positions: Float[np.ndarray, "members 2"]
    """t-SNE of 1 - cosine: neighbourhoods are meaningful, distances and axes are not."""
    clusters: Int[np.ndarray, " members"]
    """Cluster number of each member, by average linkage of 1 - cosine."""
    flags: tuple[tuple[Flag, ...], ...]
    """Reasons to leave each member out of an average; empty for most members."""

    def to_frame(self) -> "pandas.DataFrame":
        """Returns a table with one row per member: name, dataset, family, cluster, x, y, and the kinds of its flags."""
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
        """Draws the members in the plane, one colour per dataset.

        Args:
          ax: matplotlib ``Axes`` to draw on; None: new ones.

        Returns:
          The ``Axes``.
        """
        from wsr.region.plots import draw_map

        return draw_map(self.positions, self.datasets, ax)

    def __repr__(self) -> str:
        flagged = sum(map(bool, self.flags))
        return (
            f"PopulationMap of {len(self.names)} members in {len(set(self.clusters.tolist()))} clusters\n"
            f"  {len(set(self.datasets))} datasets, {flagged} members flagged"
        )


def map_region(region: Region, *, clusters: int | None = None, seed: int = 0) -> PopulationMap:
    """Returns the map of a region's members: cosines, clusters, outliers and positions in the plane.

    Args:
      region: the population.
      clusters: number of clusters; None: the number with the best silhouette, see ``wsr.statistics.cluster_count``.
      seed: seed of t-SNE and of the test for the presence of clusters.

    Raises:
      WsrError: if the region has no members, or fewer members than ``clusters``.

    Example:
      >>> import wsr
      >>> population = wsr.map(wsr.made_up_region(3), clusters=1)
      >>> population.similarity.shape, population.clusters.tolist()
      ((3, 3), [0, 0, 0])
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
