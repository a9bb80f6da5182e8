"""Processes, on one host or several, that evaluate together.

Points need nothing of one another, so each process has its own, and none waits for another before the end. Where there
are fewer points than processes, groups of processes share the texts of a point, and talk once a chunk of points.
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
"""How long a process may be silent before the others end as well."""
_LATE_SECONDS = 5  # what a network file system may take to show a new file


def couple(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    heartbeat_seconds: int = HEARTBEAT_SECONDS,
) -> None:
    """Makes this process one of several; to be called before anything else is asked of JAX.

    All of its devices count from then on, those as well that a CPU was cut into.

    Args:
      coordinator: host and port where process 0 listens; None: JAX finds it and the other two, on TPUs and under Slurm.
      processes: how many there are.
      process: which of them this is, from 0.
      heartbeat_seconds: a process that was silent for so long is taken to be dead, and the others end too.

    Raises:
      WsrError: where JAX does not find the others.
    """
    # Its handler would swallow the SIGTERM that is to end the process.
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
            f"the processes did not come together ({why[:300]}); where JAX cannot find them by itself, give "
            "--coordinator=HOST:PORT --processes=N --process=I"
        ) from error


@dataclass(frozen=True)
class Deal:
    """What one process has of some points."""

    points: list[int]
    """Numbers of its points."""
    mesh: Mesh
    """Devices that work on them: its own, or those of the group that it is in."""
    keeps: bool
    """Whether it scores and writes them: the first of its group does."""
    groups: int
    """How many groups the points were dealt to."""


def deal(points: int, mesh: Mesh | None = None) -> Deal:
    """Returns this process's share: as many groups as there are points for, of as many processes each.

    A process alone has all points and the mesh of ``devices.mesh_for``; so has one that was given a ``mesh``.
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
    """Returns what all processes go by: points that any of them misses, the smallest chunk, the smallest budget.

    Raises:
      WsrError: where they were not asked for the same points.
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
            "of them the same command, store and data"
        )
    anywhere = sorted({number for of_process in told for number in of_process["missing"]})
    smallest = min((of_process["chunk"] for of_process in told if of_process["chunk"]), default=None)
    return anywhere, smallest, min(of_process["budget_gib"] for of_process in told)


def exchange(content: bytes) -> list[bytes]:
    """Returns what each process gave, in their order. All have to call this; it waits for the last.

    Raises:
      WsrError: where another process ended.
    """
    if jax.process_count() == 1:
        return [content]
    from jax.experimental import multihost_utils

    try:
        sizes = multihost_utils.process_allgather(np.array([len(content)], np.int32))[:, 0]
        # Few lengths, few programs.
        padded = np.zeros(2 ** math.ceil(math.log2(max(int(sizes.max()), 64))), np.uint8)
        padded[: len(content)] = np.frombuffer(content, np.uint8)
        gathered = multihost_utils.process_allgather(padded)
    except (ValueError, RuntimeError) as error:  # each kind of network has its own
        raise WsrError(
            "another process of this evaluation ended; what was finished is kept, the same command goes on from there"
        ) from error
    return [row[:size].tobytes() for row, size in zip(gathered, sizes.tolist(), strict=True)]


def refuse_unshared(folder: Path) -> None:
    """Raises where not all processes see what process 0 writes into a folder; one that is not there is no matter."""
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
            f"{folder}: {', '.join(blind)} does not see what process 0 writes there; give all processes one store, on "
            "a file system that they share"
        )
