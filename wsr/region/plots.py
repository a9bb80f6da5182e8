"""Quick looks at a region in a notebook: matplotlib ``Axes`` in, ``Axes`` out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float


def draw_map(positions: Float[np.ndarray, "members 2"], groups: Sequence[str], ax: Any = None) -> Any:
    """Draws members as points in the plane, one colour per group.

    Args:
      positions: coordinates without units, such as those of t-SNE.
      groups: group of each member.
      ax: matplotlib ``Axes`` to draw on; None: new ones.

    Returns:
      The ``Axes``.
    """
    ax = ax if ax is not None else _new_axes()
    for group in dict.fromkeys(groups):
        own = [k for k, other in enumerate(groups) if other == group]
        ax.scatter(positions[own, 0], positions[own, 1], label=group, s=36)
    ax.set(xticks=[], yticks=[], title="Map of the population (t-SNE of 1 - cosine)")
    ax.legend(fontsize="small")
    return ax


def draw_similarity(
    similarity: Float[np.ndarray, "members members"], names: Sequence[str], groups: Sequence[str], ax: Any = None
) -> Any:
    """Draws the cosines between members as a heat map, ordered by group.

    The colour scale ignores the diagonal.

    Args:
      similarity: cosines of the task vectors.
      names: name of each member.
      groups: group of each member.
      ax: matplotlib ``Axes`` to draw on; None: new ones.

    Returns:
      The ``Axes``.
    """
    ax = ax if ax is not None else _new_axes()
    order = sorted(range(len(names)), key=lambda k: (groups[k], names[k]))
    matrix = np.asarray(similarity, np.float64)[np.ix_(order, order)]
    off_diagonal = matrix[~np.eye(len(order), dtype=bool)]
    limit = float(np.abs(off_diagonal).max()) if off_diagonal.size else 1.0
    image = ax.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit)
    ax.figure.colorbar(image, ax=ax, label="cosine of task vectors")
    if len(order) <= 40:
        ax.set_yticks(range(len(order)), [names[k] for k in order], fontsize="x-small")
    ax.set(xticks=[], title="Similarity of the members")
    return ax


def _new_axes() -> Any:
    import matplotlib.pyplot as plt

    return plt.subplots()[1]
