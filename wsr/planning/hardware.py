"""Machines: the rates that their makers publish, and the measured rates of the machine that this runs on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from wsr.errors import WsrError, nearest_names


class Expected(NamedTuple):
    """Shares of the bfloat16 peak that a chip's compiler expects in float32, at JAX's default precision.

    They count real tokens and come from benchmarks/results/tpu_ahead_of_time.jsonl.
    """

    evaluation: float
    """Share reached while 4 points each encode 1,024 tokens, in texts of 27."""
    training: float
    """Share reached in a training step of one member on 32 texts of 128 tokens."""


@dataclass(frozen=True)
class Chip:
    """One accelerator, or all cores of a CPU together."""

    platform: str
    """Platform as in ``jax.Device.platform``: "tpu", "gpu" or "cpu"."""
    float32_flops: float
    """Rate of float32 matrix products at JAX's default precision, in operations per second; see ``float32_runs_in``."""
    bfloat16_flops: float
    """Rate of bfloat16 matrix products, in operations per second."""
    memory_bytes: float
    bandwidth: float
    """Rate between the chip and its memory, in bytes per second; 0: unknown."""
    source: str
    """Where the rates come from."""
    float32_runs_in: str = "float32"
    """Precision in which JAX computes a float32 product by default."""
    per_name: int = 1
    """How many units of the number in a machine's name make one chip: 2 if it counts cores and a chip has two."""
    chips_a_host: int = 1
    """Number of chips in a host."""
    host_cores: int = 0
    """Number of CPU cores of a full host; 0: unknown."""
    expected: Mapping[str, Expected] = field(default_factory=dict)
    """By encoder, what the chip's compiler expects."""

    def memory_stats(self) -> Mapping[str, int]:
        """Returns what a ``jax.Device`` returns, for ``wsr.runtime.devices.memory_budget``."""
        return {"bytes_limit": int(self.memory_bytes)}


@dataclass(frozen=True)
class Hardware:
    """A machine: a number of chips of one kind."""

    name: str
    chip: Chip
    chips: int

    @property
    def flops(self) -> float:
        """Rate of float32 matrix products on all chips together, in operations per second."""
        return self.chips * self.chip.float32_flops

    @property
    def hosts(self) -> int:
        """Number of hosts that hold the chips."""
        return -(-self.chips // self.chip.chips_a_host)

    @property
    def chips_together(self) -> int:
        """Number of chips that can share a model: those of one host, because each host works on models of its own."""
        return min(self.chips, self.chip.chips_a_host)


_TPU = "the peak of cloud.google.com/tpu/docs/{}"
_BF16 = "one pass of bfloat16"
_TF32 = "TF32"

CHIPS: Mapping[str, Chip] = {
    "v4": Chip("tpu", 275e12, 275e12, 32 * 2**30, 1.228e12, _TPU.format("v4"), _BF16, 2, 4, 240),
    "v5e": Chip(
        *("tpu", 197e12, 197e12, 16e9, 0.819e12, _TPU.format("v5e"), _BF16, 1, 8, 224),
        expected={"minilm": Expected(0.217, 0.135), "roberta-base": Expected(0.4651, 0.279)},
    ),
    "v5p": Chip(
        *("tpu", 459e12, 459e12, 95e9, 2.765e12, _TPU.format("v5p"), _BF16, 2, 4, 208),
        expected={"minilm": Expected(0.141, 0.111), "roberta-base": Expected(0.255, 0.258)},
    ),
    "v6e": Chip(
        *("tpu", 918e12, 918e12, 32e9, 1.64e12, _TPU.format("v6e"), _BF16, 1, 8, 180),
        expected={"minilm": Expected(0.111, 0.0419), "roberta-base": Expected(0.224, 0.1038)},
    ),
    # Dense rates; the larger rates in the data sheets are for sparse matrices.
    "h100": Chip("gpu", 494e12, 989e12, 80e9, 3.35e12, "the peak of NVIDIA's data sheet of the H100 SXM", _TF32, 1, 8),
    "a100": Chip(
        "gpu", 156e12, 312e12, 80e9, 2.039e12, "the peak of NVIDIA's data sheet of the A100 80GB SXM", _TF32, 1, 8
    ),
    "l4": Chip("gpu", 60e12, 121e12, 24e9, 0.3e12, "the peak of NVIDIA's data sheet of the L4", _TF32, 1, 8),
    # One core: half the rate that two cores reached together; the memory is assumed.
    "epyc": Chip("cpu", 95.9e9, 95.9e9, 8 * 2**30, 0, "measured, benchmarks/results/cpu/evaluation.json"),
}
"""Chips by the first part of a machine's name. There are no prices, because they change."""

HERE = "here"
_ALIASES = {"v5litepod": "v5e"}


def find(name: str) -> Hardware:
    """Returns a machine by its name.

    Args:
      name: for example ``v5e-8``, ``v4-8`` (eight cores, which are four chips), ``h100-2`` or ``epyc-16``; ``here``
        measures this machine.

    Raises:
      WsrError: the name is unknown; the message lists the nearest names.

    Example:
      >>> from wsr.planning.hardware import find
      >>> find("v4-8").chips, find("h100-2").chips
      (4, 2)
    """
    if name == HERE:
        return _here()
    match = re.fullmatch(r"([a-z0-9]+?)(?:-([1-9][0-9]*))?", name)
    kind = _ALIASES.get(match[1], match[1]) if match else ""
    if match is None or kind not in CHIPS:
        names = [f"{known}-8" for known in CHIPS] + [HERE]
        raise WsrError(f"--hardware={name}: unknown; nearest: {nearest_names(name, [*names, *CHIPS], most=len(names))}")
    chip = CHIPS[kind]
    number = int(match[2] or chip.per_name)
    if number % chip.per_name:
        raise WsrError(
            f"--hardware={name}: the number counts cores, of which a chip has {chip.per_name}; {kind}-8 has four chips"
        )
    if chip.platform != "cpu":
        return Hardware(name, chip, number // chip.per_name)
    # A CPU is one device with all its cores.
    whole = replace(
        chip,
        float32_flops=number * chip.float32_flops,
        bfloat16_flops=number * chip.bfloat16_flops,
        memory_bytes=number * chip.memory_bytes,
        host_cores=number,
    )
    return Hardware(name, whole, 1)


def _here() -> Hardware:
    import jax

    from wsr.runtime.cores import usable_cores
    from wsr.runtime.devices import memory_budget

    device = jax.devices()[0]
    rates = {dtype: _matmul_rate(dtype) for dtype in ("float32", "bfloat16")}
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    chips = 1 if device.platform == "cpu" else jax.local_device_count()
    chip = Chip(
        device.platform,
        rates["float32"],
        rates["bfloat16"],
        limit or memory_budget(device=device),
        0,
        f"measured on one {device.device_kind}",
        float32_runs_in="JAX's default precision",
        chips_a_host=chips,
        host_cores=usable_cores(),
    )
    return Hardware(HERE, chip, chips)


def _matmul_rate(dtype: str) -> float:
    """Returns the rate of a product of square matrices, in operations per second, the best of three."""
    import time

    import jax
    import jax.numpy as jnp

    size = 2048 if jax.default_backend() == "cpu" else 8192
    left = jnp.ones((size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(left, left).block_until_ready()
    fastest = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        product(left, left).block_until_ready()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest
