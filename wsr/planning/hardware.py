"""Machines as data: what their makers publish of them, and the machine this runs on, measured."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from wsr.errors import WsrError, nearest_names


@dataclass(frozen=True)
class Chip:
    """One accelerator, or the cores of a CPU together."""

    platform: str
    """As ``jax.Device.platform`` has it: tpu, gpu or cpu."""
    float32_flops: float
    """Operations a second of float32 matrix products, at JAX's default precision; see ``float32_runs_in``."""
    bfloat16_flops: float
    memory_bytes: float
    bandwidth: float
    """Bytes a second between the chip and its memory; 0: not known."""
    source: str
    float32_runs_in: str = "float32"
    """What a float32 product is computed in at JAX's default precision."""
    per_name: int = 1
    """What the number in a machine's name counts, to one chip: 2 where it counts cores of which a chip has two."""
    chips_a_host: int = 1
    host_cores: int = 0
    """Of a full host; 0: not known."""

    def memory_stats(self) -> Mapping[str, int]:
        """As a ``jax.Device`` answers, so that ``wsr.runtime.devices.memory_budget`` serves chips that are not here."""
        return {"bytes_limit": int(self.memory_bytes)}


@dataclass(frozen=True)
class Hardware:
    """A machine: so many chips of one kind."""

    name: str
    chip: Chip
    chips: int

    @property
    def flops(self) -> float:
        """Operations a second of float32 matrix products on all chips."""
        return self.chips * self.chip.float32_flops

    @property
    def hosts(self) -> int:
        """Hosts that the chips sit in."""
        return -(-self.chips // self.chip.chips_a_host)


_TPU = "the peak of cloud.google.com/tpu/docs/{}"
_BF16 = "one pass of bfloat16"
_TF32 = "TF32"

CHIPS: Mapping[str, Chip] = {
    "v4": Chip("tpu", 275e12, 275e12, 32 * 2**30, 1.228e12, _TPU.format("v4"), _BF16, 2, 4, 240),
    "v5e": Chip("tpu", 197e12, 197e12, 16e9, 0.819e12, _TPU.format("v5e"), _BF16, 1, 8, 224),
    "v5p": Chip("tpu", 459e12, 459e12, 95e9, 2.765e12, _TPU.format("v5p"), _BF16, 2, 4, 208),
    "v6e": Chip("tpu", 918e12, 918e12, 32e9, 1.64e12, _TPU.format("v6e"), _BF16, 1, 8, 180),
    # Dense rates: the data sheets' larger ones count products with zeros left out.
    "h100": Chip("gpu", 494e12, 989e12, 80e9, 3.35e12, "the peak of NVIDIA's data sheet of the H100 SXM", _TF32, 1, 8),
    "a100": Chip(
        "gpu", 156e12, 312e12, 80e9, 2.039e12, "the peak of NVIDIA's data sheet of the A100 80GB SXM", _TF32, 1, 8
    ),
    "l4": Chip("gpu", 60e12, 121e12, 24e9, 0.3e12, "the peak of NVIDIA's data sheet of the L4", _TF32, 1, 8),
    # A core: half of what two cores reached together; memory is assumed.
    "epyc": Chip("cpu", 103.7e9, 103.7e9, 8 * 2**30, 0, "measured, benchmarks/results/cpu/evaluation.json"),
}
"""By the name that begins a machine's name. Prices are not here: they change, and none was at hand with its date."""

HERE = "here"
_ALIASES = {"v5litepod": "v5e"}


def find(name: str) -> Hardware:
    """Returns a machine by name: ``v5e-8``, ``v4-8`` (eight cores, so four chips), ``h100-2``, ``epyc-16``, ``here``.

    Raises:
      WsrError: with the nearest names.
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
        raise WsrError(f"--hardware={name}: the number counts cores, {chip.per_name} a chip; {kind}-8 has four chips")
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
    chip = Chip(
        device.platform,
        rates["float32"],
        rates["bfloat16"],
        limit or memory_budget(device=device),
        0,
        f"measured on one {device.device_kind}",
        float32_runs_in="JAX's default precision",
        host_cores=usable_cores(),
    )
    return Hardware(HERE, chip, 1 if device.platform == "cpu" else jax.local_device_count())


def _matmul_rate(dtype: str) -> float:
    """Operations a second of a square product, the best of three."""
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
