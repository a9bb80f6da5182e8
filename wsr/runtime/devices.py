"""Chooses how many points are processed together, on which devices and in how much memory.

A device mesh has three axes: points, texts and model. Along the first two, each device encodes different texts under
different points, so no device waits for another. Along the third, devices share each model, and communicate in every
layer; it is 1 unless a model exceeds the memory of a device.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wsr.errors import WsrError

_MOST_TOGETHER = 16
_USUAL_LENGTH = 64  # tokens of a row
_TOKENS_TOGETHER = {"gpu": 2**14, "tpu": 2**12}
"""Tokens, over all points, of a step of an accelerator: fewer leave it partly idle, and more do not stay in the fast
memory of a TPU. The figure for TPUs is the best of ``python -m benchmarks.ahead_of_time --only="step of"`` on v5e, v5p
and v6e; that for GPUs is not measured."""
_LARGEST_BLOCK = 8
"""Models that one program adds to points on an accelerator, if memory allows."""
_SHARE_OF_HOST = 0.7  # of available memory: other programs need some too
_SHARE_OF_DEVICE = 0.9  # fragmentation takes some


MOST_BYTES = 2**60
"""More bytes than any device has."""

Plan = TypeVar("Plan")


class TooLittleMemory(WsrError):
    """What was asked for exceeds the memory budget of a device."""


@dataclass(frozen=True)
class DeviceLayout:
    """How points and members are laid out over devices, and the memory this takes."""

    mesh: Mesh
    """The devices, with the axes ``points``, ``texts`` and ``model``."""
    chunk: int
    """Number of points per device, or per group of devices that share a model."""
    resident: bool
    """Whether members stay on the device while points need them; otherwise they are streamed one after another."""
    rounds: int
    """Number of chunks computed in one pass over streamed members; 1 if members are resident."""
    block: int
    """Largest number of models that one program adds to the points."""
    ahead: bool
    """Whether a chunk is mixed, and its encoding queued, while the chunk before is encoded."""
    needed_bytes: int
    """Predicted memory per device, without what is in use already."""
    budget_bytes: int
    """Memory that may be used per device."""

    @property
    def together(self) -> int:
        """Number of points on all devices together."""
        return self.chunk * self.mesh.shape["points"]

    @property
    def budget_gib(self) -> float:
        """The budget in GiB, as the command line takes it."""
        return self.budget_bytes / 2**30

    def sharding(self, *axes: str | None) -> NamedSharding:
        """Returns the sharding of an array along one mesh axis per dimension; without axes, a copy on each device."""
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def __str__(self) -> str:
        points, texts, model = (self.mesh.shape[axis] for axis in ("points", "texts", "model"))
        where = "the device" if self.mesh.size == 1 else f"each of {self.mesh.size} devices (mesh {points} x {texts})"
        if model > 1:
            where = f"each of {points * texts} groups of {model} devices (mesh {points} x {texts} x {model})"
        memory = f"{_gib(self.needed_bytes)} of {_gib(self.budget_bytes)}"
        return f"{self.chunk} at a time on {where}, {memory}" + ("" if self.resident else ", members streamed")


def lay_out(
    points: int,
    *,
    params_bytes: int,
    member_bytes: Callable[[int, bool, int], int],
    point_bytes: int,
    encoding_bytes: Callable[[int], int],
    mesh: Mesh,
    tokens: int = 0,
    chunk: int | None = None,
    memory_budget_gib: float | None = None,
) -> DeviceLayout:
    """Returns a layout with as many points at a time as are useful and as the memory budget allows.

    On an accelerator a chunk is mixed while the one before is encoded, and members are added in blocks, if memory
    allows; neither makes chunks smaller.

    Args:
      points: number of points in all.
      params_bytes: size of one model's float32 parameters on a device.
      member_bytes: maps a number of points processed together to the memory for members: of those that must stay on the
        device so that none is loaded twice, if the second argument is true, and of the others at most as many as the
        third argument says.
      point_bytes: memory for the features of one point and for scoring them.
      encoding_bytes: maps a number of points to the memory for encoding one batch under them.
      mesh: the devices.
      tokens: tokens that one point reads in a step, see ``chunk_for_device``.
      chunk: points per device; None chooses.
      memory_budget_gib: memory per device in GiB; None takes most of the device's memory.

    Raises:
      TooLittleMemory: if even one point exceeds the memory budget.
    """
    device = mesh.local_devices[0]
    budget = memory_budget(memory_budget_gib, device=device)
    axis = mesh.shape["points"]
    most = -(-max(points, 1) // axis)
    sizes = [chunk] if chunk else _halved(chunk_for_device(most, tokens=tokens, device=device))
    copies = copies_of_a_member(device)
    encoding = cache(encoding_bytes)

    def counted(way: DeviceLayout) -> DeviceLayout:
        """Returns the layout with the memory that it needs."""
        mixed = way.chunk * (way.rounds + (way.rounds > 1) + way.ahead)
        together, loose = way.chunk * axis if way.resident else points, way.block * (1 + way.ahead)
        of_members = member_bytes(together, way.resident, loose)
        # Each device keeps the features of its points; processes that share a mesh gather those of all.
        scored = way.chunk * (axis if mesh.is_multi_process else 1)
        held = (1 + mixed) * params_bytes + copies * of_members + scored * point_bytes
        # A program whose models alone do not fit need not be compiled.
        return replace(way, needed_bytes=held if held > budget else held + encoding(way.chunk))

    def widened(way: DeviceLayout) -> DeviceLayout:
        """Returns a layout that fits, with as many rounds and then as large a block as fit too."""
        if not way.resident:
            room = (budget - way.needed_bytes) // (way.chunk * params_bytes)
            rounds = max(1, min(-(-most // way.chunk), room))  # further chunks need room beside the first
            way = counted(replace(way, rounds=rounds))
        blocks = _halved(_LARGEST_BLOCK if overlaps(device) else 1)
        wider = (counted(replace(way, block=block)) for block in blocks)
        return next(own for own in wider if own.needed_bytes <= budget)

    for resident in (True, False):
        for size in sizes:
            for ahead in (True, False) if overlaps(device) else (False,):
                way = counted(DeviceLayout(mesh, size, resident, 1, 1, ahead, 0, budget))
                if way.needed_bytes <= budget:
                    return widened(way)
    raise _too_little(sizes[-1], "points", way.needed_bytes, budget, mesh.shape["model"])


def copies_of_a_member(device: Any) -> int:
    """Returns how many copies of a member the memory of a device holds: a CPU's also has the one in host memory.

    Args:
      device: a JAX device, or anything with its ``platform``.
    """
    return 1 if overlaps(device) else 2


def with_smallest_model(points: int, mesh: Mesh, plan: Callable[[Mesh], Plan]) -> Plan:
    """Returns a plan that cuts each model over as few devices as its memory allows.

    Args:
      points: number of points to process.
      mesh: the devices, and the fewest along the axis ``model``.
      plan: makes the plan for a mesh of the same devices; raises ``TooLittleMemory`` if it does not fit.

    Raises:
      TooLittleMemory: if it does not fit even where all devices share each model.
    """
    devices, least = list(mesh.devices.flat), mesh.shape["model"]
    larger = [parts for parts in divisors(len(devices)) if parts > least]
    *smaller, largest = [mesh, *(mesh_for(points, model=parts, devices=devices) for parts in larger)]
    for candidate in smaller:
        try:
            return plan(candidate)
        except TooLittleMemory:
            continue
    return plan(largest)


def fitting(
    wanted: int, needed: Callable[[int], int], *, what: str, fixed: bool = False, memory_budget_gib: float | None = None
) -> int:
    """Returns the largest number of items that fits the memory budget: ``wanted``, half of it, a quarter and so on.

    Args:
      wanted: the largest useful number.
      needed: maps a number of items to the bytes they need.
      what: name of the items, for error messages.
      fixed: whether only ``wanted`` will do.
      memory_budget_gib: memory per device in GiB; None takes most of the device's memory.

    Raises:
      TooLittleMemory: if not even one item fits, or with ``fixed`` not all.
    """
    budget = memory_budget(memory_budget_gib)
    sizes = [wanted] if fixed else _halved(wanted)
    for size in sizes:
        if needed(size) <= budget:
            return size
    raise _too_little(sizes[-1], what, needed(sizes[-1]), budget)


def chunk_for_device(wanted: int, *, tokens: int = 0, device: Any = None) -> int:
    """Returns the number of points or members to process together on a device.

    It is 1 on a CPU, where ``vmap`` over weights is slower than a loop. On accelerators it is at most 16, and so many
    that a step reads as many tokens as suit the chip. Chunks are nearly equal, because the last one is filled up with
    copies.

    Args:
      wanted: number of points or members in all.
      tokens: tokens that each of them reads in a step; 0: not known.
      device: a JAX device; None takes the first.
    """
    device = device or jax.devices()[0]
    if device.platform == "cpu" or wanted < 1:
        return 1
    most = min(_MOST_TOGETHER, max(1, _tokens_together(device) // tokens)) if tokens else _MOST_TOGETHER
    chunks = -(-wanted // most)
    return -(-wanted // chunks)


def rows_for_device(rows: int, chunk: int, row_length: int, *, device: Any = None) -> int:
    """Returns the number of packed rows per forward pass: ``rows``, or on an accelerator what suits the chip.

    It is more than ``rows`` if an accelerator would be partly idle, and fewer if the rows are long.

    Args:
      rows: the number of rows of 64 tokens that are worth a pass.
      chunk: points per device.
      row_length: tokens per row.
      device: a JAX device; None takes the first.
    """
    device = device or jax.devices()[0]
    if device.platform == "cpu":
        return rows
    fitting = _tokens_together(device) // (chunk * row_length)
    return max(min(rows, -(-rows * _USUAL_LENGTH // row_length)), fitting)


def mesh_for(points: int, *, model: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of all accelerators of this process, or of its CPU.

    As many devices as possible lie along the points axis, the others along the texts axis. If this process is one of
    several (``wsr.runtime.hosts``), all devices that its CPU was divided into are used.

    Args:
      points: number of points to process.
      model: number of devices that share each model; it divides their number.
      devices: the devices; None takes those of this process.
    """
    devices = devices or own_devices()
    groups = len(devices) // model
    along_points = largest_divisor(groups, at_most=points)
    return mesh_of(along_points, groups // along_points, model, devices=devices)


def member_mesh(members: int, *, model: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh with the axes ``members`` and ``model``, over which a group of members can be cut evenly.

    Args:
      members: number of members trained together.
      model: number of devices that share each member.
      devices: the devices; None takes all accelerators of this process, or its CPU.
    """
    devices = list(devices or own_devices())
    along_members = largest_divisor(members, at_most=len(devices) // model)
    return Mesh(np.array(devices[: along_members * model]).reshape(along_members, model), ("members", "model"))


def members_for_devices(wanted: int, *, model: int = 1, devices: Sequence[Any] | None = None) -> int:
    """Returns the number of members to train together: one on each device before two on one.

    Args:
      wanted: number of members in all.
      model: number of devices that share each member.
      devices: the devices; None takes all accelerators of this process, or its CPU.
    """
    devices = list(devices or own_devices())
    used = max(1, min(wanted, len(devices) // model))
    return used * chunk_for_device(-(-wanted // used), device=devices[0])


def overlaps(device: Any) -> bool:
    """Returns whether a device computes while the host does other work: an accelerator does, and a CPU is the host.

    Args:
      device: a JAX device.
    """
    return device.platform != "cpu"


def own_devices() -> list[Any]:
    """Returns all accelerators of this process, or its CPU."""
    devices = jax.local_devices()
    # Dividing a CPU into devices makes nothing faster; coupled processes use all of them because the user asked.
    return devices if devices[0].platform != "cpu" or jax.distributed.is_initialized() else devices[:1]


def divisors(number: int) -> list[int]:
    """Returns the divisors of a number, the smallest first."""
    return [n for n in range(1, max(number, 1) + 1) if number % n == 0]


def largest_divisor(number: int, *, at_most: int) -> int:
    """Returns the largest divisor of a number that is at most ``at_most``, or 1."""
    return max(n for n in divisors(number) if n <= max(at_most, 1))


def mesh_of(points: int, texts: int = 1, model: int = 1, *, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of ``points * texts * model`` devices; those that share a model are neighbours in the list."""
    chosen = list(devices or jax.local_devices())[: points * texts * model]
    # jax.make_mesh looks for an order that suits collectives along every axis, and refuses some shapes.
    return Mesh(np.array(chosen).reshape(points, texts, model), ("points", "texts", "model"))


def memory_budget(gib: float | None = None, *, device: Any = None) -> int:
    """Returns the bytes that may be used on a device.

    Args:
      gib: the budget in GiB; None takes most of the device's memory.
      device: a JAX device; None takes the first of this process.

    Raises:
      WsrError: if ``gib`` is not a finite number above 0.
    """
    if gib is not None:
        if not 0 < gib < math.inf:
            raise WsrError(f"memory_budget_gib: expected a number above 0, found {gib:g}")
        return int(gib * 2**30)
    device = device or jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    return int(_SHARE_OF_DEVICE * limit) if limit else int(_SHARE_OF_HOST * _host_available_bytes())


def _tokens_together(device: Any) -> int:
    return _TOKENS_TOGETHER["tpu" if device.platform == "tpu" else "gpu"]


def _host_available_bytes() -> int:
    """Returns the memory that can be allocated without swapping, or the container's limit if that is lower."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit = Path("/sys/fs/cgroup/memory.max")
    value = limit.read_text(encoding="ascii").strip() if limit.is_file() else "max"
    return min(available, int(value)) if value.isdigit() else available


def _too_little(together: int, what: str, needed: int, budget: int, model: int = 1) -> TooLittleMemory:
    size = _gib(needed) if needed < MOST_BYTES else "more memory than the device has"
    shared = f" with each model cut over {model} devices" if model > 1 else ""
    return TooLittleMemory(
        f"{together} {what} at a time need {size} on a device{shared}, but the budget is {_gib(budget)}; give "
        f"--memory_budget_gib=MORE{' or a smaller --chunk' if together > 1 else ' or use a device with more memory'}"
    )


def _halved(largest: int) -> list[int]:
    return [math.ceil(largest / 2**n) for n in range(largest.bit_length())]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
