"""Flags of several processes, on one host or several, that do one piece of work together."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout

from absl import flags

_PLACES = ("coordinator", "processes", "process")


def define(values: flags.FlagValues) -> None:
    """Defines them."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "Be one of several processes that deal the points among all their devices. The same command runs on each; "
        "TPU VMs and Slurm tell JAX where the others are, elsewhere the next three flags do.",
        flag_values=values,
    )
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, which listens there.", flag_values=values)
    flags.DEFINE_integer("processes", None, "How many processes there are.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("process", None, "Which of them this is, from 0.", lower_bound=0, flag_values=values)
    flags.DEFINE_integer(
        "heartbeat_seconds",
        30,
        "Where a process is silent for so long, the others end.",
        lower_bound=1,
        flag_values=values,
    )


@contextmanager
def coupled(values: flags.FlagValues, store: str) -> Iterator[bool]:
    """Couples the processes where asked to; yields whether this one reports. The others print nothing but errors.

    Raises:
      WsrError: for flags that do not go together, and where the processes do not share the store.
    """
    from pathlib import Path

    from wsr.errors import WsrError

    given = [name for name in _PLACES if values[name].value is not None]
    if not values.distributed:
        if given:
            raise WsrError(f"--{given[0]} is for --distributed, which is not given")
        yield True
        return
    if given and len(given) < len(_PLACES):
        missing = ", ".join(f"--{name}" for name in _PLACES if name not in given)
        raise WsrError(
            f"--distributed: {missing} is missing; give all of --coordinator, --processes, --process or none"
        )
    if given and not values.process < values.processes:
        raise WsrError(f"--process={values.process}: processes are counted from 0, there are {values.processes}")
    import jax

    from wsr.runtime import hosts

    hosts.couple(values.coordinator, values.processes, values.process, heartbeat_seconds=values.heartbeat_seconds)
    hosts.refuse_unshared(Path(store))
    with ExitStack() as silence:
        if jax.process_index() > 0:
            silence.enter_context(redirect_stdout(silence.enter_context(open(os.devnull, "w"))))
        yield jax.process_index() == 0
        hosts.exchange(b"")  # nobody leaves while another still writes
