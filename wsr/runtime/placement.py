"""Puts arrays on the devices of one process or of several."""

import math
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


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


def gathered(tree: Any, shardings: Any) -> Any:
    """Returns the same arrays on the same devices as ``placed``, and uploads each array once.

    Where several devices of this process will hold copies of an array, each first receives another part of it; then
    they gather the parts from each other. An array that does not divide evenly is uploaded once for each copy.

    Args:
      tree: arrays in host memory, the same in all processes.
      shardings: where they go: one sharding for each array.
    """
    leaves, form = jax.tree.flatten(tree)
    wholes = jax.tree.leaves(shardings)
    cut = [_cut(leaf.shape, own) for leaf, own in zip(leaves, wholes, strict=True)]
    found = placed(leaves, [part or own for part, own in zip(cut, wholes, strict=True)])
    parts = [number for number, part in enumerate(cut) if part]
    if parts:
        whole = _gather(tuple(wholes[number] for number in parts))(tuple(found[number] for number in parts))
        for number, array in zip(parts, whole, strict=True):
            found[number] = array
    return jax.tree.unflatten(form, found)


def _cut(shape: tuple[int, ...], whole: NamedSharding) -> NamedSharding | None:
    """Returns a sharding without copies; None if there is none that divides evenly, or copies lie in many processes."""
    axes = [*whole.spec, *[None] * (len(shape) - len(whole.spec))]
    free = tuple(axis for axis, size in whole.mesh.shape.items() if axis not in axes and size > 1)
    copies = math.prod(whole.mesh.shape[axis] for axis in free)
    if copies == 1 or not whole.is_fully_addressable:
        return None
    for number, size in enumerate(shape):
        if axes[number] is None and size and size % copies == 0:
            return NamedSharding(whole.mesh, PartitionSpec(*axes[:number], free, *axes[number + 1 :]))
    return None


@lru_cache(maxsize=32)
def _gather(wholes: tuple[NamedSharding, ...]) -> jax.stages.Wrapped:
    return jax.jit(lambda parts: parts, out_shardings=wholes)
