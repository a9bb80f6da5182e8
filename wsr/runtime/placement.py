"""Arrays of a process, put on its devices or on those of several processes."""

from typing import Any

import jax
import numpy as np


def placed(tree: Any, sharding: jax.sharding.Sharding | None) -> Any:
    """Returns the arrays on devices; a process puts its own part where some devices are those of others.

    ``jax.device_put`` would do that too, and would first send whole arrays around to see whether all processes have the
    same.
    """
    if sharding is None or sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def part(leaf: Any) -> jax.Array:
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(part, tree)
