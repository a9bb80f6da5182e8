"""What the evaluations of a dataset, of texts and of questions have in common: their tables and rows of results."""

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from wsr.region.region import Region
from wsr.store.row import Row, rows_of_points

if TYPE_CHECKING:
    import pandas


class PointRows:
    """Points with values by name; its evaluations are dataclasses with these fields and properties."""

    region: Region
    coefficients: Float[np.ndarray, "points members"]
    how: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of what the points are scored on."""
        raise NotImplementedError

    @property
    def values(self) -> dict[str, Float[np.ndarray, " points"]]:
        """Loss and scores of each point, by name."""
        raise NotImplementedError

    @property
    def told(self) -> dict[str, Any]:
        """What every row says besides: how many ``texts`` count, and more."""
        raise NotImplementedError

    def to_frame(self) -> "pandas.DataFrame":
        """Returns a table with one row per point: its values, how it was scored, and one coefficient per member."""
        import pandas

        columns = {**self.values, "how": self.how}
        return pandas.DataFrame(columns | dict(zip(self.region.names, self.coefficients.T, strict=True)))

    def rows(self, group: str, **more: Any) -> list[Row]:
        """Returns one row per point and metric as in ``results.jsonl``, which stores coefficients and no weights.

        Args:
          group: name of the group of points.
          more: further entries of each row.
        """
        same = {**self.told, "members": self.region.names, **more}
        return rows_of_points(group, self.name, self.coefficients, self.values, how=self.how, **same)
