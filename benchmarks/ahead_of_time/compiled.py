"""What a compiled program tells: expected cycles, memory, collectives."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.ahead_of_time.chips import CHIPS
from benchmarks.ahead_of_time.text import Instruction, Program
from benchmarks.ahead_of_time.work import kind_of

_COLLECTIVE = re.compile(r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


@dataclass(frozen=True)
class Compiled:
    """One program on one chip."""

    milliseconds: float
    """Expected time of one call, without dispatch and transfers."""
    milliseconds_by_kind: dict[str, float]
    """The same by kind of work, see ``benchmarks.ahead_of_time.work``."""
    untold: int
    """Number of kernels written by hand (Pallas), whose time the compiler does not tell and ``milliseconds`` lacks."""
    temporary_gib: float
    """Memory besides arguments and results."""
    arguments_gib: float
    """Memory of the arguments."""
    memory_gib: float
    """Memory of arguments, results and everything between them, on a chip."""
    collectives: tuple[str, ...]
    """Kinds of communication between chips."""
    partners: tuple[tuple[int, ...], ...]
    """Groups of chips that communicate, by their places in the mesh."""

    def share_of_peak(self, operations: float, chip: str) -> float:
        """Returns the share of the chip's bfloat16 peak that ``operations`` in this time are."""
        return operations / (self.milliseconds / 1e3) / CHIPS[chip].bfloat16_flops


def compile_for(lowered: Any, chip: str, *, one_turn: bool = False) -> Compiled:
    """Compiles a lowered program and returns what it tells.

    Args:
      lowered: the program.
      chip: the chip that it was lowered for.
      one_turn: whether the time is that of one turn of its loops, and not also of what comes before and after them.
    """
    compiled = lowered.compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    program = Program(text)
    instructions = program.in_loops() if one_turn else program.instructions()
    by_kind = _milliseconds(instructions, program, CHIPS[chip].clock_hz)
    return Compiled(
        milliseconds=sum(by_kind.values()),
        milliseconds_by_kind=by_kind,
        untold=text.count('custom_call_target="tpu_custom_call"'),
        temporary_gib=memory.temp_size_in_bytes / 2**30,
        arguments_gib=memory.argument_size_in_bytes / 2**30,
        memory_gib=_memory_bytes(memory) / 2**30,
        collectives=tuple(sorted(set(_COLLECTIVE.findall(text)))),
        partners=partners(text),
    )


def partners(text: str) -> tuple[tuple[int, ...], ...]:
    """Returns the groups of devices that communicate in a compiled program, by their places in its mesh.

    Args:
      text: the compiled program, as text.
    """
    lines = [line for line in text.splitlines() if _COLLECTIVE.search(line)]
    return tuple(sorted({group for line in lines for group in _partners_of(line)}))


def _partners_of(line: str) -> Iterable[tuple[int, ...]]:
    """Returns the groups of one collective, which the compiler writes in one of three ways."""
    if listed := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{[\d,{} ]*\})\}", line):
        return [_numbers(group) for group in re.findall(r"\{([\d, ]+)\}", listed[1])]
    if counted := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line):
        groups, shape = _numbers(counted[1]), _numbers(counted[2])
        order = _numbers(counted[3]) if counted[3] else tuple(range(len(shape)))
        return _rows(np.arange(np.prod(shape)).reshape(shape).transpose(order).reshape(groups))
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{('\w+'(?:, ?'\w+')*)\}", line):
        axes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        along = re.findall(r"'(\w+)'", named[2])
        last = sorted(range(len(axes)), key=lambda axis: list(axes)[axis] in along)
        places = np.arange(math.prod(axes.values())).reshape(*axes.values()).transpose(last)
        return _rows(places.reshape(-1, math.prod(axes[name] for name in along)))
    raise ValueError(f"a collective of unknown partners: {line.strip()[:300]}")


def _rows(places: np.ndarray) -> Iterable[tuple[int, ...]]:
    return map(tuple, places.tolist())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(","))


def _memory_bytes(memory: Any) -> int:
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes  # those that take over an argument's memory
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


def _milliseconds(instructions: Iterable[Instruction], program: Program, clock_hz: float) -> dict[str, float]:
    """Returns the expected time of instructions, by kind of work."""
    cycles: Counter[str] = Counter()
    for instruction in instructions:
        if expected := re.search(r'"estimated_cycles":"(\d+)"', instruction.line):
            cycles[kind_of(instruction, program)] += int(expected[1])
    return {kind: 1e3 * count / clock_hz for kind, count in cycles.most_common()}
