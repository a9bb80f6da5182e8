"""TPUs as the compiler knows them: topology, clock, peak rate, memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Chip:
    """One kind of TPU chip, and the smallest machine that the compiler describes with all its chips on one host."""

    topology: str
    """Name of the topology."""
    host: tuple[int, int, int]
    """Chips of a host along each axis."""
    clock_hz: float
    """Cycles a second."""
    bfloat16_flops: float
    """Peak rate of bfloat16 products, in operations a second."""
    memory_bytes: float
    """Memory of a chip."""


CHIPS: Mapping[str, Chip] = {
    "v5e": Chip("v5e:2x4", (2, 4, 1), 1.5e9, 197e12, 16e9),
    "v5p": Chip("v5p:2x2x1", (2, 2, 1), 1.75e9, 459e12, 95e9),
    "v6e": Chip("v6e:2x4", (2, 4, 1), 1.75e9, 918e12, 32e9),
}
"""Rates and memories are those of cloud.google.com/tpu/docs (v5e, v5p, v6e)."""

_ENVIRONMENT = {
    # The library would ask the metadata server of a cloud for the machine that it runs on.
    "TPU_SKIP_MDS_QUERY": "1",
    # It would let one process at a time use the TPUs of this machine, of which there are none.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "JAX_PLATFORMS": "cpu",
}


def use_compiler() -> None:
    """Lets JAX compile for absent TPUs; call it before anything imports JAX."""
    os.environ.update(_ENVIRONMENT)


def mesh_of(chip: str, points: int = 1, texts: int = 1, model: int = 1) -> Any:
    """Returns a mesh of absent devices with the engine's axes: ``points``, ``texts`` and ``model``."""
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh

    kind = CHIPS[chip]
    described = topologies.get_topology_desc(
        platform="tpu", topology_name=kind.topology, chips_per_host_bounds=list(kind.host)
    )
    devices: Any = np.array(described.devices[: points * texts * model]).reshape(points, texts, model)
    return Mesh(devices, ("points", "texts", "model"), axis_types=(AxisType.Auto,) * 3)
