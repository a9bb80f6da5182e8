"""Whether a model was fine-tuned from a checkpoint: fine-tuning leaves the weights close to where they started."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wsr.types import Params

LEAST_COSINE = 0.5
"""Models with a median cosine above this count as fine-tuned from one base.

The hidden units of independent models are in no common order, so their matrices have a cosine of about 0. Measured on
MiniLM by ``pytest -s tests/test_kinship.py``: fine-tuned at a usual learning rate (1e-4) 1.0000, at a destructive one
(1e-2) 0.94; redrawn with the base's means and standard deviations -0.0006; the base with its hidden units permuted
0.0011. The distances were 0.003, 0.28, 1.41 and 1.41 of the base's length.
"""

_PIECE = 2**20  # entries compared at a time, in float64


@dataclass(frozen=True)
class Kinship:
    """How close a model is to a checkpoint with the same leaves and shapes."""

    cosine: float
    """Median cosine of the model's matrices (kernels and tables) with the base's."""
    relative_distance: float
    """``||theta - base|| / ||base||`` over the matrices."""
    unchanged: int
    """Number of leaves that are equal bit for bit."""
    leaves: int
    """Number of leaves."""
    moved: float
    """``||theta - base||`` over all leaves."""

    @property
    def same_base(self) -> bool:
        """Whether the model was fine-tuned from the checkpoint, or from a close relative of it."""
        return self.cosine >= LEAST_COSINE

    def __str__(self) -> str:
        return (
            f"cosine with the base {self.cosine:.4f}, distance {self.relative_distance:.3g} of the base's length, "
            f"{self.unchanged} of {self.leaves} tensors unchanged"
        )


def kinship(params: "Params", base: "Params") -> Kinship:
    """Compares a model with a checkpoint, leaf by leaf.

    Args:
      params: parameters of the model.
      base: parameters of the checkpoint, with the same leaves and shapes.

    Example:
      >>> import wsr
      >>> from wsr.exchange.kinship import kinship
      >>> region = wsr.made_up_region(1)
      >>> kinship(region.base, region.base).same_base
      True
    """
    from wsr.geometry.trees import flatten

    own, origin = flatten(params), flatten(base)
    cosines, moved_matrices, length, moved, unchanged = [], 0.0, 0.0, 0.0, 0
    for path, base_leaf in origin.items():
        theirs, ours = np.asarray(own[path]), np.asarray(base_leaf)
        unchanged += np.array_equal(theirs, ours)
        inner, their_square, our_square, apart = products(theirs.reshape(-1), ours.reshape(-1))
        moved += apart
        if ours.ndim >= 2 and our_square > 0:
            moved_matrices, length = moved_matrices + apart, length + our_square
            cosines.append(inner / np.sqrt(their_square * our_square) if their_square > 0 else 0.0)
    return Kinship(
        # Without matrices there is nothing to compare.
        cosine=float(np.median(cosines)) if cosines else 1.0,
        relative_distance=float(np.sqrt(moved_matrices / length)) if length else 0.0,
        unchanged=unchanged,
        leaves=len(origin),
        moved=float(np.sqrt(moved)),
    )


def rounding(base: "Params", dtype: np.dtype) -> float:
    """Returns ``||round(base) - base||``, the distance that storing weights in ``dtype`` moves them.

    Args:
      base: parameters in float32.
      dtype: the storage type.
    """
    from wsr.geometry.trees import flatten

    total = 0.0
    for leaf in flatten(base).values():
        flat = np.asarray(leaf).reshape(-1)
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            total += float(np.square(piece.astype(dtype).astype(np.float64) - piece).sum())
    return float(np.sqrt(total))


def products(theirs: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Returns ``<theirs, ours>``, both squares and the square of the difference of flat arrays, in float64."""
    total = np.zeros(4)
    for start in range(0, theirs.size, _PIECE):
        a, b = (leaf[start : start + _PIECE].astype(np.float64) for leaf in (theirs, ours))
        total += a @ b, a @ a, b @ b, (a - b) @ (a - b)
    return total
