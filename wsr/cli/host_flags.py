"""Flags of several processes, on one host or several, that share one evaluation."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout

from wsr.cli.flags import Flag, Group, Values

_PLACES = ("coordinator", "processes", "process")


GROUP = Group(
    "Several processes",
    (
        Flag(
            "distributed",
            "Run as one of several processes that divide the points among all their devices. Run the same command in "
            "each process. JAX finds the other processes on TPU VMs and under Slurm; elsewhere give the next three "
            "options.",
            False,
        ),
        Flag("coordinator", "Address at which process 0 listens.", value="HOST:PORT", otherwise="found by JAX"),
        Flag("processes", "Number of processes.", kind=int, at_least=1, otherwise="found by JAX"),
        Flag("process", "Number of this process, counted from 0.", kind=int, at_least=0, otherwise="found by JAX"),
        Flag(
            "heartbeat_seconds",
            "Seconds of silence from one process after which the others stop.",
            30,
            value="SECONDS",
            at_least=1,
        ),
    ),
)
"""How several processes find one another."""


@contextmanager
def coupled(values: Values, store: str) -> Iterator[bool]:
    """Connects the processes under --distributed; yields whether this one reports. The others print errors only.

    Raises:
      WsrError: for flags that contradict one another, and for processes that do not share the store.
    """
    from pathlib import Path

    from wsr.errors import WsrError

    given = [name for name in _PLACES if values[name].value is not None]
    if not values.distributed:
        if given:
            raise WsrError(f"--{given[0]} is for --distributed: add --distributed or leave --{given[0]} out")
        yield True
        return
    if given and len(given) < len(_PLACES):
        missing = ", ".join(f"--{name}" for name in _PLACES if name not in given)
        raise WsrError(
            f"--distributed: {missing} is missing; give --coordinator, --processes and --process together, or none"
        )
    if given and not values.process < values.processes:
        raise WsrError(
            f"--process={values.process}: expected 0 to {values.processes - 1}, because --processes={values.processes}"
        )
    import jax

    from wsr.runtime import hosts

    hosts.couple(values.coordinator, values.processes, values.process, heartbeat_seconds=values.heartbeat_seconds)
    hosts.refuse_unshared(Path(store))
    with ExitStack() as silence:
        if jax.process_index() > 0:
            silence.enter_context(redirect_stdout(silence.enter_context(open(os.devnull, "w"))))
        yield jax.process_index() == 0
        hosts.exchange(b"")  # no process ends while another still writes
