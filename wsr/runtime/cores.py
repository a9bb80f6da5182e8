"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """Returns the cores that the scheduler lets this process have, where the system tells; else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
