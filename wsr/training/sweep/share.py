"""Runs a static share of a sweep, every n-th unit, for schedulers that number their tasks.

Shares communicate only through the store.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.store import Store
from wsr.training.sweep.run import Run, Unfinished
from wsr.training.sweep.units import Unit, make_in_turn, members_there, unfinished

T = TypeVar("T")


@dataclass(frozen=True)
class Share(Run):
    """Runs the units ``index``, ``index + count``, ``index + 2 * count``, ... of a sweep, in this process.

    Example:
      >>> from wsr.training.sweep.share import parse_share
      >>> parse_share("1/3").own(["a", "b", "c", "d", "e"])
      ['b', 'e']
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        """Raises ``WsrError`` unless ``0 <= index < count``."""
        if not 0 <= self.index < self.count:
            raise WsrError(f"share {self} does not exist: shares count from 0, for example from 0/8 to 7/8")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def own(self, units: Sequence[T]) -> Sequence[T]:
        """Returns this share of ``units``."""
        return units[self.index :: self.count]

    def make(self, units: Sequence[Unit], model: Model, store: Store) -> None:
        """See ``Run``."""
        own = self.own(units)
        print(f"share {self}: {len(own)} of {len(units)} units", flush=True)
        make_in_turn(own, model, store)
        there = f"share {self} is done; {members_there(units, store)}"
        left = sorted({number % self.count for number in unfinished(units, store)})
        if left:
            others = ", ".join(f"{index}/{self.count}" for index in left)
            raise Unfinished(
                f"{there}; unfinished shares: {others}; run each of them with --share, for example "
                f"--share={left[0]}/{self.count}, and then rerun this command"
            )
        print(there, flush=True)


def parse_share(text: str) -> Share:
    """Returns the share that a text ``I/N`` names; raises ``WsrError`` for other texts."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if not found:
        raise WsrError(
            f"share {text!r}: expected I/N, the share's number from 0 and the number of shares, for example 0/8"
        )
    return Share(int(found[1]), int(found[2]))


def share_of_environment(environment: Mapping[str, str] = os.environ) -> Share:
    """Returns this process's share from the first of these environment variables that is set.

    - ``WSR_SHARE``, as ``I/N``, under any scheduler;
    - ``SLURM_ARRAY_TASK_ID``, with ``SLURM_ARRAY_TASK_MIN`` and ``SLURM_ARRAY_TASK_COUNT``, in a Slurm array;
    - ``JOB_COMPLETION_INDEX``, with ``WSR_SHARES`` (set it to the number of shares), in an indexed job of Kubernetes;
    - ``SKYPILOT_NODE_RANK``, with ``SKYPILOT_NUM_NODES``, under SkyPilot.

    Raises:
      WsrError: none of them is set, or one is incomplete or not a number.
    """
    if "WSR_SHARE" in environment:
        return parse_share(environment["WSR_SHARE"])
    if "SLURM_ARRAY_TASK_ID" in environment:
        return _of_slurm(environment)
    if "JOB_COMPLETION_INDEX" in environment:
        return _counted(environment, "JOB_COMPLETION_INDEX", "WSR_SHARES")
    if "SKYPILOT_NODE_RANK" in environment:
        return _counted(environment, "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES")
    raise WsrError(
        "--run=share: this process's share is unknown, since no scheduler names it; give --share=I/N or WSR_SHARE=I/N"
    )


def _of_slurm(environment: Mapping[str, str]) -> Share:
    task, first, count = (_number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "COUNT"))
    step = _number(environment, "SLURM_ARRAY_TASK_STEP") if "SLURM_ARRAY_TASK_STEP" in environment else 1
    index, rest = divmod(task - first, max(step, 1))
    if rest or not 0 <= index < count:
        raise WsrError(
            f"Slurm task {task} is not one of {count} tasks from {first} in steps of {step}: shares need an array that "
            "is a range; submit a range, for example --array=0-7, or give --share=I/N"
        )
    return Share(index, count)


def _counted(environment: Mapping[str, str], index: str, count: str) -> Share:
    return Share(_number(environment, index), _number(environment, count))


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name)
    if value is None:
        raise WsrError(f"--run=share: the environment lacks {name}; set it, or give --share=I/N")
    if not re.fullmatch(r"\d+", value, re.ASCII):
        raise WsrError(f"--run=share: {name}={value!r} in the environment is not a number; give --share=I/N")
    return int(value)
