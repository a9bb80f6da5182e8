"""A row of results, as ``results.jsonl`` keeps it: one value of one point, or of some members together."""

from collections.abc import Sequence
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
from jaxtyping import Float

Row: TypeAlias = dict[str, Any]
"""``group``, ``members``, ``coefficients``, ``dataset``, ``metric``, ``value``, ``n``, ``how``, and what a study adds
(``study``, ``low``, ``high``, ``p_holm``, ...). Coefficients are kept, never weights."""


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
      group: which points the value belongs to.
      dataset: the name of the target.
      metric: what ``value`` is.
      value: written as null if it is not finite: JSON has no NaN, which a correlation with constant predictions is.
      texts: how many texts, or other items, the value was taken on; the row's ``n``.
      how: how the value was obtained.
      members: names of the region's members.
      coefficients: of a point, one for each name in ``members``; members with a coefficient of 0 are left out. None:
        the row is about the members together.
      interval: the ends of the value's interval; written as ``low`` and ``high`` if they are finite.
      **more: what the study adds, written first.

    Example:
      >>> import numpy as np
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
