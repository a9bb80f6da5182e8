"""Work of sweeps in processes that tests kill: this script imports once and forks a process for each order.

A line of JSON on stdin is an order. Its process tells when its work begins, and this script with which status it ended.
"""

import json
import os
import signal
import sys
from pathlib import Path

from sweep_worlds import evaluate_points, fake_units, training

from wsr.errors import WsrError
from wsr.runtime.compilation import use_persistent_cache
from wsr.runtime.preemption import STATUS, Preempted, sigterm_raises
from wsr.store import Store
from wsr.training.sweep.run import HERE, Unfinished
from wsr.training.sweep.share import Share


def main() -> None:
    """Serves orders until stdin ends; orders that come in one line are carried out at the same time."""
    use_persistent_cache()
    for line in sys.stdin:
        children = []
        for order in json.loads(line):
            pid = os.fork()
            if not pid:
                os._exit(status_of(order))
            children.append(pid)
        for _ in children:
            pid, status = os.wait()
            tell("ended", pid, os.waitstatus_to_exitcode(status))


def status_of(order: dict) -> int:
    """Does one piece of work and returns the status that it ends with."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with sigterm_raises():
            work(order)
    except Preempted:
        return STATUS
    except Unfinished:
        return 0
    except WsrError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def work(order: dict) -> None:
    """What was ordered."""
    if order["what"] == "fake":
        store = Store.open(order["store"])
        units = fake_units(order["units"], Path(order["log"]))
        tell("begins", os.getpid())
        Share(*order["share"]).make(units, None, store)
    elif order["what"] == "train":
        tiny, store, units = training(Path(order["store"]), Path(order["log"]))
        tell("begins", os.getpid())
        HERE.make(units, tiny.model, store)
    else:
        evaluate_points(Path(order["store"]), Path(order["points"]), begins=lambda: tell("begins", os.getpid()))


def tell(*what: object) -> None:
    """One write, so that lines of several processes do not mix."""
    os.write(1, f"{' '.join(map(str, what))}\n".encode())


if __name__ == "__main__":
    main()
