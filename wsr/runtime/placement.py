"""Puts arrays on the devices of one process or of several."""

from typing import Any

import jax
import numpy as np


def placed(tree: Any, sharding: Any) -> Any:
    """Returns a tree of arrays on devices.

    If some devices belong to other processes, each process puts only its part there. ``jax.device_put`` would first
    send whole arrays between processes, to check that they are equal.

    Each device receives only its part of an array; none holds the whole of an array that is cut.

    Args:
      tree: arrays in host memory, the same in all processes.
      sharding: where they go: one sharding, or one for each array; None takes the default device.
    """
    if all(own.is_fully_addressable for own in jax.tree.leaves(sharding)):
        return jax.device_put(tree, sharding)

    def part(leaf: Any, own: jax.sharding.Sharding) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, own, lambda index: array[index])

    return jax.tree.map(part, tree, jax.tree.broadcast(sharding, tree))
