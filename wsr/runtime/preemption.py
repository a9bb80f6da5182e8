"""Turns SIGTERM, which schedulers send before they take a machine away, into an exception like that of Ctrl-C.

The exception is raised in the main thread at once, or when the current call into compiled code returns. Training makes
few steps per call (see ``wsr.training.population``). An interrupted save leaves only a temporary file, which the next
run removes.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SOON_SECONDS = 0.01
STATUS = 128 + signal.SIGTERM
TOLD = "stopped by SIGTERM; finished work is kept: run the same command again to resume"


class Preempted(KeyboardInterrupt):
    """The process received SIGTERM."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Makes SIGTERM raise ``Preempted`` while the context is open; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def tell(number: int, frame: object) -> None:
        nonlocal told
        told = True
        raise Preempted

    def again(ignored: "sys.UnraisableHookArgs") -> None:
        """Sends the signal again if the exception was lost in a callback, such as JAX's of the garbage collector."""
        if isinstance(ignored.exc_value, Preempted):
            threading.Timer(_SOON_SECONDS, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            hook(ignored)

    before, hook = signal.signal(signal.SIGTERM, tell), sys.unraisablehook
    sys.unraisablehook = again
    try:
        yield
    except KeyboardInterrupt:
        if told:  # Ray replaces the exception of a signal handler by its own KeyboardInterrupt
            raise Preempted from None
        raise
    finally:
        if sys.unraisablehook is again:  # else another hook has replaced it
            sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)
