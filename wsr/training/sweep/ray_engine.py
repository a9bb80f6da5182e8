"""Runs a sweep on Ray: each unit is a task, placed on a free device and restarted if its machine goes away.

Workers open the store and read the base themselves, so the store needs the same path on every machine, or a URL. The
list of units, with the datasets of their jobs, goes into Ray's object store once.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.runtime.compilation import use_persistent_cache
from wsr.runtime.progress import progress
from wsr.store import Store
from wsr.training.sweep.run import Answer, Run
from wsr.training.sweep.units import Unit, members_there, unfinished

_RETRIES = (
    10  # restarts of a unit whose worker dies: spot machines come and go, but a unit that kills its worker must end
)
_LOOKED_AT_SECONDS = 1.0


@dataclass(frozen=True)
class OnRay(Run):
    """Runs all units on the workers of the cluster at ``RAY_ADDRESS``; if that is not set, on this machine."""

    takes: Mapping[str, float] | None = None
    """Resources that a unit occupies, by Ray's names, for example ``{"GPU": 1}``, ``{"CPU": 4}`` or ``{"TPU": 4}``.
    None: one GPU or TPU if the cluster has any, else one CPU."""

    def ask(self, question: Callable[[Model, Store], Answer], model: Model, store: Store) -> Answer:
        """See ``Run``."""
        ray = _started()
        task = ray.remote(**self._options(ray))(_answer)
        return _result(ray, task.remote(question, store.where))

    def make(self, units: Sequence[Unit], model: Model, store: Store) -> None:
        """See ``Run``. A unit that fails does not stop the others."""
        ray = _started()
        todo = unfinished(units, store)
        task = ray.remote(**self._options(ray))(_make)
        listed = ray.put(list(units))
        pending = {task.remote(listed, number, store.where): number for number in todo}
        failures: list[str] = []
        with progress("fine-tuning", sum(units[number].steps for number in todo), "steps") as counter:
            while pending:
                done, _ = ray.wait(list(pending), num_returns=len(pending), timeout=_LOOKED_AT_SECONDS)
                for reference in done:
                    unit = units[pending.pop(reference)]
                    try:
                        _result(ray, reference)
                        counter.advance(unit.steps, note=f"{len(pending)} of {len(units)} units left")
                    except WsrError as error:
                        failures.append(f"{', '.join(unit.names)}: {error}")
        there = members_there(units, store)
        if failures:
            raise WsrError(f"{there}; {len(failures)} of {len(units)} units failed, the first: {failures[0]}")
        print(there, flush=True)

    def _options(self, ray: ModuleType) -> dict[str, Any]:
        there = ray.cluster_resources()
        takes = dict(self.takes or next(({kind: 1} for kind in ("GPU", "TPU") if there.get(kind)), {"CPU": 1}))
        # max_calls=0 keeps a worker with its compiled programs; by default Ray ends it after each task on a GPU.
        return {
            "num_cpus": takes.pop("CPU", 0),
            "num_gpus": takes.pop("GPU", 0),
            "resources": takes,
            "max_retries": _RETRIES,
            "max_calls": 0,
        }


def _started() -> ModuleType:
    try:
        import ray
    except ImportError:
        raise WsrError("--run=ray needs Ray, which is not installed: pip install 'wsr[ray]'") from None
    if ray.is_initialized():
        return ray
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS", "local")
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, include_dashboard=False, logging_level="error")
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise WsrError(f"no Ray cluster at RAY_ADDRESS={address!r}: {' '.join(str(error).split())[:300]}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)  # Ray's handler hides the exit status
    return ray


def _result(ray: ModuleType, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, WsrError):
            raise WsrError(str(cause)) from error
        raise WsrError(f"{type(cause).__name__}: {' '.join(str(cause).split())[:500]}") from error
    except ray.exceptions.RayError as error:
        raise WsrError(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}") from error


def _answer(question: Callable[[Model, Store], Answer], where: str) -> Answer:
    return question(*_opened(where))


def _make(units: Sequence[Unit], number: int, where: str) -> None:
    model, store = _opened(where)
    if unfinished([units[number]], store):  # a worker may have died after its last save
        units[number].make(model, store, None)


@lru_cache(maxsize=2)
def _opened(where: str) -> tuple[Model, Store]:
    """Returns the model and the store, which each worker opens once."""
    use_persistent_cache()
    store = Store.open(where)
    return store.model, store
