"""Where points are worked on: how many at a time, on which devices, in how much memory.

A device mesh has two axes, points and texts: no device waits for another, since each encodes texts of its own under
points of its own.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wsr.errors import WsrError

_MOST_TOGETHER = 16
_TOKENS_TOGETHER = 2**14  # of all points that an accelerator encodes in one step; fewer leave much of it idle
_SHARE_OF_HOST = 0.7  # of what is available: others live there too
_SHARE_OF_DEVICE = 0.9  # the allocator needs room for fragments


@dataclass(frozen=True)
class DeviceLayout:
    """What is on each device at the same time."""

    mesh: Mesh
    """Devices by points and texts."""
    chunk: int
    """Points on each device."""
    resident: bool
    """Whether members stay on the device while points need them; otherwise they are streamed, one after another."""
    rounds: int
    """Chunks that are mixed in one pass over streamed members; 1 where members are resident."""
    needed_bytes: int
    """Predicted for each device, without what was there before."""
    budget_bytes: int

    @property
    def together(self) -> int:
        """Points on all devices."""
        return self.chunk * self.mesh.shape["points"]

    @property
    def budget_gib(self) -> float:
        """The budget as flags give it."""
        return self.budget_bytes / 2**30

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Arrays cut along mesh axes, or a copy on each device where none is named."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def __str__(self) -> str:
        points, texts = self.mesh.shape["points"], self.mesh.shape["texts"]
        where = "the device" if self.mesh.size == 1 else f"each of {self.mesh.size} devices (mesh {points} x {texts})"
        memory = f"{_gib(self.needed_bytes)} of {_gib(self.budget_bytes)}"
        return f"{self.chunk} at a time on {where}, {memory}" + ("" if self.resident else ", members streamed")


def lay_out(
    points: int,
    *,
    params_bytes: int,
    members: Callable[[int], int],
    point_bytes: int,
    encoding_bytes: Callable[[int], int],
    mesh: Mesh,
    chunk: int | None = None,
    memory_budget_gib: float | None = None,
) -> DeviceLayout:
    """Returns the most points at a time that the rule asks for and the memory allows.

    Args:
      points: how many there are in all.
      params_bytes: float32 parameters of one model.
      members: how many must be on the device for none to be loaded again, where so many points are mixed together.
      point_bytes: features of one point and what scoring them takes.
      encoding_bytes: what encoding one batch under so many points takes.
      mesh: the devices.
      chunk: points on each device; None: chosen.
      memory_budget_gib: of each device; None: most of what it has.

    Raises:
      WsrError: where not even the smallest plan fits.
    """
    device = mesh.local_devices[0]
    budget = memory_budget(memory_budget_gib, device=device)
    axis = mesh.shape["points"]
    most = -(-max(points, 1) // axis)
    sizes = [chunk] if chunk else _halved(chunk_for_device(most, device=device))
    copies = 2 if device.platform == "cpu" else 1  # a CPU's memory also has those that the device's are copied from

    def needed(chunk: int, resident: bool, rounds: int = 1) -> int:
        mixed = chunk * (rounds + 1 if rounds > 1 else 1)
        models = 1 + copies * (members(chunk * axis) if resident else 1) + mixed
        # Features of all devices come together on the first.
        return models * params_bytes + chunk * axis * point_bytes + encoding_bytes(chunk)

    for resident in (True, False):
        for size in sizes:
            if (bytes_needed := needed(size, resident)) > budget:
                continue
            rounds = 1
            if not resident:
                room = (budget - bytes_needed) // (size * params_bytes)
                rounds = max(1, min(-(-most // size), room))  # a second chunk needs a place beside the mixed ones
                bytes_needed = needed(size, resident, rounds)
            return DeviceLayout(mesh, size, resident, rounds, bytes_needed, budget)
    raise _too_little(sizes[-1], "points", needed(sizes[-1], False), budget)


def fitting(
    wanted: int, needed: Callable[[int], int], *, what: str, fixed: bool = False, memory_budget_gib: float | None = None
) -> int:
    """Returns ``wanted`` of ``what``, or half as many and so on, until the bytes they need are within the budget.

    Raises:
      WsrError: where not even one fits, or not as many as there must be (``fixed``).
    """
    budget = memory_budget(memory_budget_gib)
    sizes = [wanted] if fixed else _halved(wanted)
    for size in sizes:
        if needed(size) <= budget:
            return size
    raise _too_little(sizes[-1], what, needed(sizes[-1]), budget)


def chunk_for_device(wanted: int, *, device: Any = None) -> int:
    """Points or members to process together: 1 on a CPU, where ``vmap`` over weights is slower than a loop.

    Elsewhere at most 16, in chunks of as equal a size as can be: the last one is filled up with copies.
    """
    if (device or jax.devices()[0]).platform == "cpu" or wanted < 1:
        return 1
    chunks = -(-wanted // _MOST_TOGETHER)
    return -(-wanted // chunks)


def rows_for_device(rows: int, chunk: int, row_length: int, *, device: Any = None) -> int:
    """Packed rows that a forward pass reads: ``rows``, and more where few points leave an accelerator idle."""
    if (device or jax.devices()[0]).platform == "cpu":
        return rows
    return max(rows, _TOKENS_TOGETHER // (chunk * row_length))


def mesh_for(points: int, *, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of all accelerators, or of one CPU: as many along the points as there are points for.

    What is left goes along the texts. The devices are those of this process; where it is one of several
    (``wsr.runtime.hosts``), those that its CPU was cut into count as well.
    """
    devices = devices or _own_devices()
    along_points = largest_divisor(len(devices), at_most=points)
    return mesh_of(along_points, len(devices) // along_points, devices=devices)


def largest_divisor(number: int, *, at_most: int) -> int:
    """Returns the largest divisor of ``number`` that is at most ``at_most``, or 1."""
    return max(n for n in range(1, number + 1) if number % n == 0 and n <= max(at_most, 1))


def mesh_of(points: int, texts: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of ``points * texts`` devices."""
    chosen = list(devices or jax.local_devices())[: points * texts]
    return jax.make_mesh((points, texts), ("points", "texts"), (AxisType.Auto, AxisType.Auto), devices=chosen)


def memory_budget(gib: float | None = None, *, device: Any = None) -> int:
    """Returns the bytes that may be used on a device: ``gib``, or most of what it has."""
    if gib:
        return int(gib * 2**30)
    device = device or jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return int(_SHARE_OF_DEVICE * limit) if limit else int(_SHARE_OF_HOST * _host_available_bytes())


def _own_devices() -> list[Any]:
    devices = jax.local_devices()
    # A CPU cut into several devices is no faster for it: who couples processes asks for all of them.
    return devices if devices[0].platform != "cpu" or jax.distributed.is_initialized() else devices[:1]


def _host_available_bytes() -> int:
    """What the kernel says could be allocated without swapping, or the limit of the container where it is less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit = Path("/sys/fs/cgroup/memory.max")
    value = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return min(available, int(value)) if value.isdigit() else available


def _too_little(together: int, what: str, needed: int, budget: int) -> WsrError:
    return WsrError(
        f"{together} of the {what} at a time need {_gib(needed)} on a device, the budget is {_gib(budget)}; give "
        f"--memory_budget_gib=MORE{' or a smaller --chunk' if together > 1 else ' or take a device with more memory'}"
    )


def _halved(largest: int) -> list[int]:
    return [math.ceil(largest / 2**n) for n in range(largest.bit_length())]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
