"""Counts the cores that this process may use."""

import os


def usable_cores() -> int:
    """Returns the number of cores that the scheduler allows this process, or all cores if the system cannot say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
