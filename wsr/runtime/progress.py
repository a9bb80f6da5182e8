"""Shows the progress of long work: count, rate and time left; plain lines if there is no terminal."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_INTERVAL_SECONDS = 10.0


class Counter:
    """Counts finished units of work and shows them."""

    def __init__(self, what: str, total: int, unit: str, bar: Progress | None):
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._start = self._printed = time.monotonic()
        self._bar = bar
        self._task = bar.add_task(what, total=total, rate="") if bar else None

    def advance(self, units: int = 1, note: str = "") -> None:
        """Counts more units as done.

        Args:
          units: number of units.
          note: what is being worked on, shown beside the count.
        """
        self.done += units
        now = time.monotonic()
        rate = self.done / max(now - self._start, 1e-9)
        each = self.unit.removesuffix("s")
        pace = f"{rate:.1f} {self.unit}/s" if rate >= 1 or not rate else f"{1 / rate:.1f} s/{each}"
        left = f"{_clock((self.total - self.done) / rate)} left" if rate else "? left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.done, rate=f"{pace}, {left} {note}")
        elif (units and self.done >= self.total > 0) or now - self._printed >= PLAIN_INTERVAL_SECONDS:
            self._printed = now
            print(f"{self.what}: {self.done}/{self.total} {self.unit}, {pace}, {left} {note}".rstrip(), flush=True)


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Counter]:
    """Yields a counter, with a progress bar if stdout is a terminal.

    Args:
      what: name of the work.
      total: number of units.
      unit: name of the units, in the plural.
    """
    if total <= 0 or not sys.stdout.isatty():
        yield Counter(what, total, unit, None)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[rate]}"), console=Console()) as bar:
        yield Counter(what, total, unit, bar)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
