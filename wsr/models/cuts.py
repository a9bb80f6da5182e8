"""Where the parameters of one model lie if several devices share it: the mesh axis ``model``.

One rule serves all architectures, by the kind of a parameter and its shape (as in Megatron-LM, Shoeybi et al. 2019). A
kernel is cut by its outputs: each device computes other features from whole inputs. A kernel that leads back to the
residual stream is cut by its inputs, which then lie where the layer before left them, and one sum over the devices
completes its outputs. An embedding is cut by its entries. All else lies whole on each device: biases and scales, the
factors of LoRA, and what does not divide evenly.

The rule decides where parameters lie, and nothing else. The compiler derives from it how to divide a program and where
devices communicate, so an architecture that the rule suits badly communicates more and computes the same.
"""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_BACK = frozenset(("output", "attention_output", "down", "mix"))
"""Names of the dense layers whose outputs are added to the residual stream."""


def shardings(params: Any, mesh: Mesh, *leading: str | None) -> Any:
    """Returns the sharding of each leaf of some parameters.

    Args:
      params: the parameters of one model, nested or by path; only their shapes matter.
      mesh: the devices, with an axis ``model``.
      leading: mesh axes of dimensions that the placed leaves have before their own, for example "points".
    """
    parts = mesh.shape["model"]

    def leaf(path: jax.tree_util.KeyPath, array: Any) -> NamedSharding:
        axis = _cut_axis(path, array.shape, parts)
        # Without None at the end, as JAX writes it for the results of a program.
        own = () if axis is None else (*[None] * axis, "model")
        return NamedSharding(mesh, PartitionSpec(*leading, *own))

    return jax.tree_util.tree_map_with_path(leaf, params)


def bytes_on_each(params: Any, parts: int) -> int:
    """Returns the bytes that one model's parameters take on each of the devices that share it.

    Args:
      params: arrays or their shapes, nested or by path.
      parts: number of devices that share the model.
    """

    def leaf(path: jax.tree_util.KeyPath, array: Any) -> int:
        share = 1 if _cut_axis(path, array.shape, parts) is None else parts
        return array.size * array.dtype.itemsize // share

    return sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(leaf, params)))


def _cut_axis(path: jax.tree_util.KeyPath, shape: tuple[int, ...], parts: int) -> int | None:
    """Returns the axis along which a leaf is cut into ``parts``; None: it lies whole on each device."""
    *_, layer, kind = ("/" + jax.tree_util.keystr(path, simple=True, separator="/")).split("/")
    if kind == "embedding":
        axis = 0
    elif kind == "kernel":
        axis = len(shape) - (2 if layer in _BACK else 1)
    else:
        return None
    return axis if parts > 1 and shape[axis] % parts == 0 else None
