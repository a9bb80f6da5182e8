"""What a compiled program tells: expected cycles, memory, collectives."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.ahead_of_time.chips import CHIPS

_COLLECTIVE = re.compile(r"\b(all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(")


@dataclass(frozen=True)
class Compiled:
    """One program on one chip."""

    milliseconds: float
    """Expected time of one call, without dispatch and transfers."""
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


def compile_for(lowered: Any, chip: str) -> Compiled:
    """Compiles a lowered program and returns what it tells."""
    program = lowered.compile()
    text, memory = program.as_text(), program.memory_analysis()
    return Compiled(
        milliseconds=1e3 * _cycles(text) / CHIPS[chip].clock_hz,
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


def _cycles(text: str) -> int:
    """Returns the cycles of one call: those of each instruction of the entry computation.

    The body of a loop that counts up to a constant counts as often as it runs, and that of any other loop once: a
    program with such a loop is one turn of it.
    """
    computations = _computations(text)

    def of(name: str) -> int:
        cycles = 0
        for line in computations.get(name, []):
            cycles += _of_line(line)
            if loop := re.search(r"\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line):
                cycles += _turns("\n".join(computations.get(loop[1], []))) * of(loop[2])
        return cycles

    return of("ENTRY")


def _turns(condition: str) -> int:
    """Returns how often a loop runs: the constant that its number stays below, or 1 if something else decides."""
    constants = dict(re.findall(r"%([\w.\-]+) = s32\[\]\S* constant\((\d+)\)", condition))
    below = re.search(r"ROOT .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT", condition)
    return int(constants.get(below[1], 1)) if below else 1


def _of_line(line: str) -> int:
    found = re.search(r'"estimated_cycles":"(\d+)"', line)
    return int(found[1]) if found else 0


def _computations(text: str) -> dict[str, list[str]]:
    """Returns the lines of each computation, by name; the entry computation is called ``ENTRY``."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            name = "ENTRY" if head[1] else head[2]
        elif name:
            found.setdefault(name, []).append(line)
    return found
