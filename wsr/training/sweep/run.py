"""Where a sweep runs: what the three ways have in common, and the first of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wsr.models.model import Model
from wsr.store import Store
from wsr.training.sweep.units import Unit, make_in_turn

Answer = TypeVar("Answer")


class Run(ABC):
    """A way to run a sweep."""

    def ask(self, question: Callable[[Model, Store], Answer], model: Model, store: Store) -> Answer:
        """Returns what is found where units are made: how many members a device there trains together."""
        return question(model, store)

    @abstractmethod
    def make(self, units: Sequence[Unit], model: Model, store: Store) -> None:
        """Makes the units that are not in the store, and returns when all are.

        Raises:
          Unfinished: where some are left to other processes.
          WsrError: where one cannot be made.
        """


class Unfinished(Exception):
    """This process did its part of a sweep and cannot go on before others have done theirs. No failure: one line."""


@dataclass(frozen=True)
class Here(Run):
    """All units, in this process, one after another."""

    def make(self, units: Sequence[Unit], model: Model, store: Store) -> None:
        """See ``Run``."""
        make_in_turn(units, model, store)


HERE: Run = Here()
"""The way that is taken where none is named."""
