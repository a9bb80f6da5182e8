"""What a sweep is made of: groups of members that are made together, whole, and may be made twice.

Units are formed over all members asked for, whatever is in the store already: which members share a compiled program,
and so their bits, never depends on where an earlier run was interrupted.
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
    """Of the members, in the store."""
    make: Callable[[Model, Store, Counter | None], None]
    """Makes them all and saves or quarantines each. It can be pickled, and made twice it changes nothing."""
    steps: int
    """Optimiser steps of them all, for the counter."""


def settled(store: Store) -> set[str]:
    """Returns the names of the members that are in the store, or are known to have become non-finite."""
    return {*store.names(), *(entry.record.name for entry in store.quarantined())}


def unfinished(units: Sequence[Unit], store: Store) -> list[int]:
    """Returns the numbers of the units of which a member is neither in the store nor quarantined."""
    done = settled(store)
    return [number for number, unit in enumerate(units) if not done.issuperset(unit.names)]


def members_there(units: Sequence[Unit], store: Store) -> str:
    """Returns how many members of the sweep are there, in words."""
    done = settled(store)
    names = [name for unit in units for name in unit.names]
    return f"{sum(name in done for name in names)} of {len(names)} members are in the store"


def make_in_turn(units: Sequence[Unit], model: Model, store: Store) -> None:
    """Makes the units in this process, one after another; those of which all members are there are passed over."""
    todo = [units[number] for number in unfinished(units, store)]
    with progress("fine-tuning", sum(unit.steps for unit in todo), "steps") as counter:
        for unit in todo:
            if unfinished([unit], store):  # another process may have made it meanwhile
                unit.make(model, store, counter)
            else:
                counter.advance(unit.steps)
