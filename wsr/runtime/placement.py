"""Puts arrays on the devices of one process or of several."""

from typing import Any

import jax
import numpy as np


def placed(tree: Any, sharding: jax.sharding.Sharding | None) -> Any:
    """Returns a tree of arrays on devices.

    If some devices belong to other processes, each process puts only its part there. ``jax.device_put`` would first
    send whole arrays between processes, to check that they are equal.

    Args:
      tree: arrays in host memory, the same in all processes.
      sharding: where they go; None takes the default device.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def part(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(part, tree)
