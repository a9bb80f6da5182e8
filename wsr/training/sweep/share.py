"""A static share of a sweep: every n-th unit, for schedulers that number their tasks. Nothing is passed between shares
but the store."""

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
    """The units ``index``, ``index + count``, ... of a sweep."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Raises: ``WsrError`` where there is no such share."""
        if not 0 <= self.index < self.count:
            raise WsrError(f"share {self} does not exist: shares are counted from 0, as in 0/8 to 7/8")

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
                f"{there}; unfinished: {others}, each to be run as --share={left[0]}/{self.count}; when all are there "
                "the same command goes on"
            )
        print(there, flush=True)


def parse_share(text: str) -> Share:
    """Returns the share that is written ``I/N``."""
    found = re.fullmatch(r"(\d+)/(\d+)", text.strip(), re.ASCII)
    if not found:
        raise WsrError(f"share {text!r}: expected I/N, a share from 0 and how many there are, as in 0/8")
    return Share(int(found[1]), int(found[2]))


def share_of_environment(environment: Mapping[str, str] = os.environ) -> Share:
    """Returns this process's share as a scheduler tells it; the first of these that is there speaks.

    ``WSR_SHARE=I/N`` anywhere; ``SLURM_ARRAY_TASK_ID`` and its fellows in an array of Slurm; ``JOB_COMPLETION_INDEX``
    in an indexed job of Kubernetes, which does not tell how many there are: ``WSR_SHARES`` does;
    ``SKYPILOT_NODE_RANK`` of ``SKYPILOT_NUM_NODES``.

    Raises:
      WsrError: where nothing or half of it is there.
    """
    if "WSR_SHARE" in environment:
        return parse_share(environment["WSR_SHARE"])
    if "SLURM_ARRAY_TASK_ID" in environment:
        return _of_slurm(environment)
    if "JOB_COMPLETION_INDEX" in environment:
        return _counted(environment, "JOB_COMPLETION_INDEX", "WSR_SHARES")
    if "SKYPILOT_NODE_RANK" in environment:
        return _counted(environment, "SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES")
    raise WsrError("--run=share: which share is this? give --share=I/N or WSR_SHARE=I/N; no scheduler that tells it")


def _of_slurm(environment: Mapping[str, str]) -> Share:
    task, first, count = (_number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "COUNT"))
    step = _number(environment, "SLURM_ARRAY_TASK_STEP") if "SLURM_ARRAY_TASK_STEP" in environment else 1
    index, rest = divmod(task - first, max(step, 1))
    if rest or not 0 <= index < count:
        raise WsrError(
            f"Slurm task {task} is none of {count} counted from {first} in steps of {step}: an array of single numbers "
            "does not tell shares; submit a range, as in --array=0-7, or give --share=I/N"
        )
    return Share(index, count)


def _counted(environment: Mapping[str, str], index: str, count: str) -> Share:
    return Share(_number(environment, index), _number(environment, count))


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name)
    if value is None:
        raise WsrError(f"--run=share: the environment lacks {name}; set it, or give --share=I/N")
    if not re.fullmatch(r"\d+", value, re.ASCII):
        raise WsrError(f"--run=share: {name}={value!r} of the environment is not a number; give --share=I/N")
    return int(value)
