"""SIGTERM, which schedulers send before they take a machine away: raised in the main thread as Ctrl-C is.

Whatever runs is left at once, or when the call that is going on returns: training makes few steps in one call (see
``wsr.training.population``), and a save is whole or leaves a temporary that the next run sweeps.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SOON_SECONDS = 0.01
STATUS = 128 + signal.SIGTERM
TOLD = "stopped by SIGTERM; what was finished is kept, the same command goes on from there"


class Preempted(KeyboardInterrupt):
    """The process was told to end."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within, SIGTERM raises ``Preempted`` in the main thread; called in another it does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    told = False

    def tell(number: int, frame: object) -> None:
        nonlocal told
        told = True
        raise Preempted

    def again(ignored: "sys.UnraisableHookArgs") -> None:
        """Sends the signal again where it was raised in a callback (JAX's of the collector) that nothing leaves."""
        if isinstance(ignored.exc_value, Preempted):
            threading.Timer(_SOON_SECONDS, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            hook(ignored)

    before, hook = signal.signal(signal.SIGTERM, tell), sys.unraisablehook
    sys.unraisablehook = again
    try:
        yield
    except KeyboardInterrupt:
        if told:  # Ray raises a KeyboardInterrupt of its own where a handler of signals raised one
            raise Preempted from None
        raise
    finally:
        if sys.unraisablehook is again:  # else another was put before it
            sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)
