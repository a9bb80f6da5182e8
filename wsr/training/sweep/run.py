"""``Run``, the interface of the ways to run a sweep, and ``Here``, which runs it in this process."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wsr.models.model import Model
from wsr.store import Store
from wsr.training.sweep.units import Unit, make_in_turn

Answer = TypeVar("Answer")


class Run(ABC):
    """The interface of the ways to run a sweep: ``Here``, ``Share`` and ``OnRay``."""

    def ask(self, question: Callable[[Model, Store], Answer], model: Model, store: Store) -> Answer:
        """Returns ``question(model, store)``, evaluated where the units run: for example, what fits that device."""
        return question(model, store)

    @abstractmethod
    def make(self, units: Sequence[Unit], model: Model, store: Store) -> None:
        """Trains the units that the store lacks, and returns when the store has all of them.

        Raises:
          Unfinished: other processes still have units to train.
          WsrError: a unit failed.
        """


class Unfinished(Exception):
    """This process trained its part of a sweep and must wait for others. This is not a failure: print its one line."""


@dataclass(frozen=True)
class Here(Run):
    """Runs all units in this process, one after another."""

    def make(self, units: Sequence[Unit], model: Model, store: Store) -> None:
        """See ``Run``."""
        make_in_turn(units, model, store)


HERE: Run = Here()
"""The default."""
