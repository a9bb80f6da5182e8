"""Saves the arrays of an archive as an Orbax training state, divided among eight virtual devices.

``python orbax_on_eight.py ARCHIVE FOLDER``
"""

import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def main(archive: str, folder: str) -> None:
    """Divides each array along its first axis that eight divides."""
    devices = jax.devices()
    assert len(devices) == 8
    mesh = Mesh(np.array(devices), ("all",))

    def divided(leaf: np.ndarray) -> jax.Array:
        axis = next((axis for axis, size in enumerate(leaf.shape) if size % 8 == 0), None)
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "all")
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    with np.load(archive) as leaves:
        flat = {tuple(name.split("/")): divided(leaves[name]) for name in leaves.files}
    assert any(len(leaf.addressable_shards[0].data.reshape(-1)) < leaf.size for leaf in flat.values())
    params = traverse_util.unflatten_dict(flat)
    state = {"params": {"params": params}, "opt_state": {"mu": {"a": divided(np.ones(16, np.float32))}}, "step": 7}
    with ocp.CheckpointManager(folder, item_names=("items",)) as manager:
        manager.save(7, args=ocp.args.Composite(items=ocp.args.PyTreeSave(state)))
        manager.wait_until_finished()


if __name__ == "__main__":
    main(*sys.argv[1:])
