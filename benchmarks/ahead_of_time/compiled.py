"""What a compiled program tells: expected cycles, memory, collectives."""

import re
from dataclasses import dataclass
from typing import Any

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
    collectives: tuple[str, ...]
    """Kinds of communication between chips."""

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
        collectives=tuple(sorted(set(_COLLECTIVE.findall(text)))),
    )


def _cycles(text: str) -> int:
    """Returns the cycles of one call: those of each instruction of the entry computation.

    The body of a loop counts once: a program with a loop is one turn of it.
    """
    cycles = 0
    computations = _computations(text)
    for line in computations.pop("ENTRY", []):
        cycles += _of_line(line)
        body = re.search(r"\bwhile\(.*body=%?([\w.\-]+)", line)
        if body:
            cycles += sum(_of_line(own) for own in computations.get(body[1], []))
    return cycles


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
