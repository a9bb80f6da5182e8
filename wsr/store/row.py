"""One row of results, as in ``results.jsonl``: one value of a point, or of a set of members."""

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float

Row: TypeAlias = dict[str, Any]
"""The keys ``group``, ``members``, ``coefficients``, ``dataset``, ``metric``, ``value``, ``n`` and ``how``, and those
that a study adds (``study``, ``low``, ``high``, ``p_holm``, ...). Rows hold coefficients, never weights."""


def result_row(
    group: str,
    dataset: str,
    metric: str,
    value: SupportsFloat,
    *,
    texts: int,
    how: str,
    members: Sequence[str] = (),
    coefficients: Float[np.ndarray, " members"] | None = None,
    interval: tuple[float, float] | None = None,
    **more: Any,
) -> Row:
    """Returns one row of results.

    Args:
      group: name of the group of points that the value belongs to.
      dataset: name of the target.
      metric: name of the value.
      value: the value; null in JSON if it is not finite (JSON has no NaN).
      texts: number of texts, or other items, behind the value; the row's ``n``.
      how: how the value was obtained, such as ``exact``.
      members: names of the region's members.
      coefficients: coefficients of a point, one per name in ``members``; members with coefficient 0 are left out. None
        if the row is about the members together.
      interval: the ends of the value's interval, written as ``low`` and ``high`` if they are finite.
      **more: further keys of a study, written first.

    Example:
      >>> import numpy as np
      >>> from wsr.store.row import result_row
      >>> row = result_row(
      ...     "point", "vader_movie", "generalised_loss", 0.5, texts=40, how="exact",
      ...     members=("a", "b"), coefficients=np.array([0.0, 1.0]),
      ... )
      >>> row["members"], row["coefficients"], row["value"]
      (['b'], [1.0], 0.5)
    """
    kept = range(len(members)) if coefficients is None else np.flatnonzero(coefficients).tolist()
    ends = (
        {}
        if interval is None or not np.isfinite(interval).all()
        else {"low": float(interval[0]), "high": float(interval[1])}
    )
    return {
        **more,
        "group": group,
        "members": [members[k] for k in kept],
        "coefficients": [] if coefficients is None else [float(coefficients[k]) for k in kept],
        "dataset": dataset,
        "metric": metric,
        "value": float(value) if np.isfinite(float(value)) else None,
        **ends,
        "n": int(texts),
        "how": how,
    }


def rows_of_points(
    group: str,
    dataset: str,
    coefficients: Float[np.ndarray, "points members"],
    values: Mapping[str, Sequence[float] | Float[np.ndarray, " points"]],
    *,
    how: Sequence[str],
    **same: Any,
) -> list[Row]:
    """Returns one row of results per point and metric.

    Args:
      group: name of the group of points.
      dataset: name of the dataset.
      coefficients: one row per point.
      values: the value of each point, by metric.
      how: how each point was scored.
      same: further arguments of ``result_row``, the same for all rows.
    """
    return [
        result_row(group, dataset, metric, float(of_points[point]), coefficients=row, how=how[point], **same)
        for point, row in enumerate(coefficients)
        for metric, of_points in values.items()
    ]
