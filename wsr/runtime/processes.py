"""Shares jobs among forked processes. Threads would wait for Python's lock between the many short steps of NumPy."""

import ctypes
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import TypeVar

from wsr.errors import WsrError
from wsr.runtime.cores import usable_cores

Item = TypeVar("Item")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc


def may_fork() -> bool:
    """Returns whether this process may be forked: on Linux, before JAX is imported, whose threads a fork breaks."""
    return sys.platform == "linux" and "jax" not in sys.modules


def in_processes(
    work: Callable[[Item], object],
    items: Sequence[Item],
    done: Callable[[Item], None],
    coming: Callable[[Item], None] = lambda item: None,
) -> None:
    """Calls ``work`` on each item in forked processes, one per core, and ``done`` on it in this process afterwards.

    What ``work`` changes in memory stays in its process. The processes end with this one, however it ends.

    Args:
      work: the function.
      items: the items; they are begun in their order.
      done: called after the work on an item, in any order.
      coming: called on an item in its process, before the work on the item before it.

    Raises:
      WsrError: if a process is killed. Errors of ``work`` and ``done`` are raised as they are.
    """
    fork = multiprocessing.get_context("fork")
    parent, numbers = os.getpid(), iter(range(len(items)))
    processes: dict[Connection, ForkProcess] = {}
    try:
        for _ in range(min(usable_cores(), len(items))):
            ours, theirs = fork.Pipe()
            process = fork.Process(target=_serve, args=(work, items, coming, theirs, parent), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
        for connection in [*processes, *processes]:  # each knows its item and the one after it
            connection.send(next(numbers, None))
        busy = set(processes)
        while busy:
            for own in wait(list(busy)):
                assert isinstance(own, Connection)
                number, last = _answer(own)
                if last:
                    busy.remove(own)
                else:
                    own.send(next(numbers, None))
                done(items[number])
    finally:
        for own, process in processes.items():
            process.kill()
            process.join()
            own.close()


def _answer(own: Connection) -> tuple[int, bool]:
    try:
        number, last, error = own.recv()
    except EOFError:
        raise WsrError("a process was killed while it worked; perhaps the machine has too little memory") from None
    if error is not None:
        raise error
    return number, last


def _serve(
    work: Callable[[Item], object],
    items: Sequence[Item],
    coming: Callable[[Item], None],
    own: Connection,
    parent: int,
) -> None:
    from threadpoolctl import threadpool_limits

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    libc = ctypes.CDLL(None)
    libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if hasattr(libc, "mallopt"):  # keep freed arrays, whose memory the system would clear again and again
        libc.mallopt(_TRIM_THRESHOLD, 2**28)
        libc.mallopt(_MMAP_THRESHOLD, 2**25)
    if os.getppid() != parent:
        return
    with threadpool_limits(1, user_api="blas"):
        number = own.recv()
        while number is not None:
            following = own.recv()
            try:
                if following is not None:
                    coming(items[following])
                work(items[number])
            except BaseException as error:
                error.add_note("".join(traceback.format_exception(error)))  # where it arose
                own.send((number, True, error))
            else:
                own.send((number, following is None, None))
            number = following
        own.recv()  # the parent ends this process
