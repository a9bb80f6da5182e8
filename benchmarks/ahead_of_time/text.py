"""A compiled program as XLA writes it: its instructions, what they call, and the lines of source they come from."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)(?= [a-z])|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body)=%?([\w.\-]+)")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    result: str
    """Types and shapes of what it returns."""
    opcode: str
    line: str

    @property
    def operands(self) -> list[str]:
        """Names of its operands."""
        inside = self.line.split(f" {self.opcode}(", 1)[1].split("), ", 1)[0]
        return re.findall(r"%([\w.\-]+)", inside)

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls."""
        return _CALLED.findall(self.line)


class Program:
    """A compiled program.

    Args:
      text: the program, as ``as_text`` of a compiled one returns it.
    """

    def __init__(self, text: str):
        self._tables, self._computations = _parts(text)

    def instructions(self, computation: str = "ENTRY") -> Iterator[Instruction]:
        """Yields the instructions of one call of a computation.

        The body of a loop that counts up to a constant comes as often as it runs, and that of any other loop once: a
        program with such a loop is one turn of it.
        """
        for instruction in self.of(computation):
            yield instruction
            if instruction.opcode == "while":
                for name in instruction.called * self._turns(instruction):
                    yield from self.instructions(name)

    def in_loops(self) -> Iterator[Instruction]:
        """Yields the instructions of one turn of each loop of the entry computation."""
        for instruction in self.of("ENTRY"):
            if instruction.opcode == "while":
                for name in instruction.called:
                    yield from self.instructions(name)

    def of(self, computation: str) -> list[Instruction]:
        """Returns the instructions of a computation."""
        return self._computations.get(computation, [])

    def within(self, instruction: Instruction) -> Iterator[Instruction]:
        """Yields an instruction and all those of the computations that it calls, however deep."""
        yield instruction
        for name in instruction.called:
            for inner in self.of(name):
                yield from self.within(inner)

    def _turns(self, loop: Instruction) -> int:
        """Returns how often a loop runs: the constant that its number stays below, or 1 if something else decides."""
        named = re.search(r"\bcondition=%?([\w.\-]+)", loop.line)
        condition = "\n".join(own.line for own in self.of(named[1])) if named else ""
        constants = dict(re.findall(r"%([\w.\-]+) = s32\[\]\S* constant\((\d+)\)", condition))
        below = re.search(r"ROOT .* compare\(%[\w.\-]+, %([\w.\-]+)\), direction=LT", condition)
        return int(constants.get(below[1], 1)) if below else 1

    def source(self, instruction: Instruction) -> str:
        """Returns the file whose function made an instruction: the innermost that is not JAX's; empty: not known."""
        found = re.search(r"stack_frame_id=(\d+)", instruction.line)
        return self._files.get(found[1], "") if found else ""

    @cached_property
    def _files(self) -> dict[str, str]:
        """By number of a stack frame, the file it is in."""
        names = dict(re.findall(r'^(\d+) "(.*)"$', self._table("FileNames"), re.M))
        places = dict(re.findall(r"^(\d+) \{file_name_id=(\d+)", self._table("FileLocations"), re.M))
        frames = re.findall(r"^(\d+) \{file_location_id=(\d+)", self._table("StackFrames"), re.M)
        return {frame: names[places[place]] for frame, place in frames}

    def _table(self, name: str) -> str:
        found = re.search(rf"^{name}\n((?:\d+ .*\n)*)", self._tables, re.M)
        return found[1] if found else ""


def _parts(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """Returns what comes before the first computation, and each computation by name; that of the entry is ``ENTRY``."""
    before: list[str] = []
    computations: dict[str, list[Instruction]] = {}
    name = ""
    for line in text.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            name = "ENTRY" if head[1] else head[2]
            computations[name] = []
        elif not name:
            before.append(line)
        elif found := _INSTRUCTION.match(line):
            computations[name].append(Instruction(found[1], found[2], found[3], line))
    return "\n".join(before) + "\n", computations
