"""Runs jobs of the host beside a device: one job behind, in a thread."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

Job = Callable[[], None]


@contextmanager
def one_behind(*, threaded: bool) -> Iterator[Callable[[Job], None]]:
    """Yields ``later(job)``, which runs jobs in their order while the caller goes on.

    ``later`` first waits for the job before, so that at most one is unfinished. An error of a job is raised by the next
    call, or at the end of the context. Leaving the context waits for the last job, also where an error or an interrupt
    ends it early, so that no job is lost.

    Args:
      threaded: whether jobs run in a thread; if not, ``later`` runs them at once.
    """
    if not threaded:
        yield lambda job: job()
        return
    unfinished: list[Future[None]] = []
    with ThreadPoolExecutor(1) as thread:

        def later(job: Job) -> None:
            while unfinished:
                unfinished.pop().result()
            unfinished.append(thread.submit(job))

        yield later
        while unfinished:
            unfinished.pop().result()
