"""Units of work of a sweep: groups of members that are trained together, and may be trained twice without harm.

Units are formed over all members of the sweep, even those in the store. So which members share a compiled program, and
with it their bits, does not depend on where an earlier run was interrupted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wsr.models.model import Model
from wsr.runtime.progress import Counter, progress
from wsr.store import Store


@dataclass(frozen=True, eq=False)
class Unit:
    """Members that share one call of a compiled program."""

    names: tuple[str, ...]
    """Names of the members in the store."""
    make: Callable[[Model, Store, Counter | None], None]
    """Trains all members and saves or quarantines each. It can be pickled; calling it again changes nothing."""
    steps: int
    """Number of optimiser steps of all members together, for the progress counter."""


def settled(store: Store) -> set[str]:
    """Returns the names of the members that are in the store or in its quarantine."""
    return {*store.names(), *(entry.record.name for entry in store.quarantined())}


def unfinished(units: Sequence[Unit], store: Store) -> list[int]:
    """Returns the numbers of the units with a member that is neither in the store nor in its quarantine."""
    done = settled(store)
    return [number for number, unit in enumerate(units) if not done.issuperset(unit.names)]


def members_there(units: Sequence[Unit], store: Store) -> str:
    """Returns a sentence that says how many members of the sweep are in the store."""
    done = settled(store)
    names = [name for unit in units for name in unit.names]
    return f"{sum(name in done for name in names)} of {len(names)} members are in the store"


def make_in_turn(units: Sequence[Unit], model: Model, store: Store) -> None:
    """Trains the unfinished units in this process, one after another."""
    todo = [units[number] for number in unfinished(units, store)]
    with progress("fine-tuning", sum(unit.steps for unit in todo), "steps") as counter:
        for unit in todo:
            if unfinished([unit], store):  # another process may have trained it meanwhile
                unit.make(model, store, counter)
            else:
                counter.advance(unit.steps)
