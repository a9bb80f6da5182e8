"""Lets several processes, on one host or several, evaluate together.

Points are independent, so each process evaluates different points and waits for the others only at the end. If there
are fewer points than processes, groups of processes share the texts of a point and communicate once per chunk of
points.
"""

import hashlib
import json
import math
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from wsr.errors import WsrError
from wsr.runtime.atomic import write_atomically
from wsr.runtime.devices import largest_divisor, memory_budget, mesh_for

HEARTBEAT_SECONDS = 30
"""Seconds without a sign of life after which a process counts as dead and the others end too."""
_LATE_SECONDS = 5  # longest delay until a network file system shows a new file


def couple(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> None:
    """Connects this process with others; call it before any other use of JAX.

    From then on all devices of the process are used, also those that a CPU was divided into.

    Args:
      coordinator: host and port at which process 0 listens. None lets JAX find all three arguments, which works on
        TPUs and under Slurm.
      processes: number of processes.
      process: number of this process, from 0.
      heartbeat_seconds: a process that is silent for so long counts as dead, and the others end too.

    Raises:
      WsrError: if JAX cannot connect the processes.
    """
    # Its handler would swallow the SIGTERM that should end the process.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except (ValueError, RuntimeError) as error:
        why = " ".join(str(error).split())
        raise WsrError(
            f"the processes did not connect ({why[:300]}); if JAX cannot find them by itself, give "
            "--coordinator=HOST:PORT --processes=N --process=I"
        ) from error


@dataclass(frozen=True)
class Deal:
    """The share of the points that one process works on."""

    points: list[int]
    """Indices of its points."""
    mesh: Mesh
    """The devices that work on them: those of the process, or of its group."""
    keeps: bool
    """Whether this process scores and stores them, as the first of its group does."""
    groups: int
    """Number of groups that share all points."""


def deal(points: int, mesh: Mesh | None = None) -> Deal:
    """Returns this process's share of the points.

    Processes form equal groups, at most one group per point. A single process, or one with a ``mesh``, gets all points.

    Args:
      points: number of points.
      mesh: the devices to use; None takes those of ``wsr.runtime.devices.mesh_for``.
    """
    if mesh:
        return Deal(list(range(points)), mesh, True, 1)
    groups = largest_divisor(jax.process_count(), at_most=points)
    each = jax.process_count() // groups
    group, place = divmod(jax.process_index(), each)
    devices = [device for device in jax.devices() if device.process_index // each == group] if each > 1 else None
    own = np.array_split(np.arange(points), groups)[group].tolist()
    return Deal(own, mesh_for(len(own), devices=devices), place == 0, groups)


def agree(
    keys: Sequence[str], missing: Sequence[int], chunk: int | None, memory_budget_gib: float | None
) -> tuple[list[int], int | None, float | None]:
    """Agrees with all processes on the points to evaluate, the chunk and the memory budget.

    Args:
      keys: the key of each point.
      missing: indices of the points that this process has no results for.
      chunk: points per device; None chooses.
      memory_budget_gib: memory per device in GiB; None takes most of the device's memory.

    Returns:
      The points that any process misses, the smallest chunk, and the smallest budget.

    Raises:
      WsrError: if the processes evaluate different points.
    """
    if jax.process_count() == 1:
        return list(missing), chunk, memory_budget_gib
    digest = hashlib.sha256("".join(keys).encode()).hexdigest()
    own = {
        "digest": digest,
        "missing": list(missing),
        "chunk": chunk,
        "budget_gib": memory_budget(memory_budget_gib) / 2**30,
    }
    told = [json.loads(content) for content in exchange(json.dumps(own).encode())]
    others = [number for number, of_process in enumerate(told) if of_process["digest"] != told[0]["digest"]]
    if others:
        raise WsrError(
            f"process {', '.join(map(str, others))} of {len(told)} was asked for other points than process 0; give all "
            "processes the same command, store and data"
        )
    anywhere = sorted({number for of_process in told for number in of_process["missing"]})
    smallest = min((of_process["chunk"] for of_process in told if of_process["chunk"]), default=None)
    return anywhere, smallest, min(of_process["budget_gib"] for of_process in told)


def exchange(content: bytes) -> list[bytes]:
    """Returns the bytes that each process passed, in the order of the processes.

    Every process must call it; it waits for the last one.

    Args:
      content: the bytes of this process.

    Raises:
      WsrError: if another process has ended.
    """
    if jax.process_count() == 1:
        return [content]
    from jax.experimental import multihost_utils

    try:
        sizes = multihost_utils.process_allgather(np.array([len(content)], np.int32))[:, 0]
        # Padded to powers of two, so that few programs are compiled.
        padded = np.zeros(2 ** math.ceil(math.log2(max(int(sizes.max()), 64))), np.uint8)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        gathered = multihost_utils.process_allgather(padded)
    except (ValueError, RuntimeError) as error:  # networks raise different errors
        raise WsrError(
            "another process of this evaluation ended; finished points are kept: run the same command again to resume"
        ) from error
    return [row[:size].tobytes() for row, size in zip(gathered, sizes.tolist(), strict=True)]


def refuse_unshared(folder: Path) -> None:
    """Checks that all processes see what process 0 writes into a folder; does nothing if there is no folder.

    Args:
      folder: the folder of the store.

    Raises:
      WsrError: naming the processes that do not see it.
    """
    first = jax.process_index() == 0
    nonce = exchange(secrets.token_hex(8).encode() if folder.is_dir() else b"")[0].decode()
    if not nonce:
        return
    file = folder / f".seen-by-all-{nonce}"
    if first:
        write_atomically(file, b"")
    exchange(b"")
    until = time.monotonic() + _LATE_SECONDS
    while not (seen := file.is_file()) and time.monotonic() < until:
        time.sleep(0.1)
    told = exchange(b"" if seen else socket.gethostname().encode())
    if first:
        file.unlink(missing_ok=True)
    blind = [f"process {number} on {host.decode()}" for number, host in enumerate(told) if host]
    if blind:
        raise WsrError(
            f"{folder}: {', '.join(blind)} does not see what process 0 writes there; give all processes the same "
            "store, on a file system that they share"
        )
