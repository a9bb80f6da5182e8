"""A region in memory for examples and tests; it needs no download and no training."""

import jax
import numpy as np

from wsr.models import Checkpoint, load
from wsr.region.region import Region, from_params
from wsr.runtime import seeds
from wsr.types import AnyArray


def made_up_region(members: int = 3, *, checkpoint: Checkpoint | None = None, seed: int = 0) -> Region:
    """Returns a region whose members lie near a checkpoint in random directions.

    Args:
      members: number of members.
      checkpoint: the base; None: the ``tiny`` checkpoint.
      seed: seed of the random directions.

    Example:
      >>> import wsr
      >>> wsr.made_up_region(3).names
      ('m0', 'm1', 'm2')
    """
    base = checkpoint or load("tiny")
    draw = seeds.generator(seed, "made-up region")

    def moved(leaf: AnyArray) -> np.ndarray:
        return (np.asarray(leaf) + 0.05 * draw.normal(size=leaf.shape)).astype(np.float32)

    params = {f"m{number}": jax.tree.map(moved, base.params) for number in range(members)}
    return from_params(base.model, base.params, params, dataset="made_up", family="made_up")
