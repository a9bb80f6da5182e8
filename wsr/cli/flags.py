"""Pages of flags: how every verb and experiment declares what it takes, for the parser and for the help."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from absl import flags

Values: TypeAlias = flags.FlagValues
"""The parsed flags of one call; ``values.NAME`` is a flag's value."""


@dataclass(frozen=True)
class Flag:
    """One flag.

    Args:
      name: without the dashes.
      what: plain sentences that say what the value is; each ends with a period.
      default: the value when the flag is absent; it also gives the type.
      kind: the type where the default is None: str, int, float, bool or tuple (a comma-separated list).
      value: the placeholder in the help, as in ``--store=STORE``.
      allowed: the words that the value may be.
      at_least: the smallest number allowed.
      accepts: the allowed values in words, where ``allowed`` and ``at_least`` cannot say it.
      otherwise: what happens without the flag, where the default is None or empty.
      required: whether a call without the flag is refused.
    """

    name: str
    what: str
    default: Any = None
    kind: type = str
    value: str = ""
    allowed: tuple[str, ...] = ()
    at_least: float | None = None
    accepts: str = ""
    otherwise: str = ""
    required: bool = False

    @property
    def type(self) -> type:
        """The type of the value."""
        return self.kind if self.default is None else type(self.default)


@dataclass(frozen=True)
class Group:
    """Flags under one heading, the most used first."""

    heading: str
    flags: tuple[Flag, ...]


@dataclass(frozen=True)
class Page:
    """What one command takes and what its help says.

    Args:
      name: of the command, as it is typed: ``wsr train``.
      usage: the usual call with its placeholders.
      what: one sentence that says what the command does.
      examples: commands that run as they are printed.
      groups: the flags, the most used group first.
      notes: paragraphs below the examples; one of several lines is a table.
      positional: the most words that may follow without dashes; None for any number.
      unlisted: flags that are read but have a page of their own among ``variants``.
      variants: pages shown instead of this one where a call has the words, as ``--method=ties``.
    """

    name: str
    usage: str
    what: str
    examples: tuple[str, ...]
    groups: tuple[Group, ...]
    notes: tuple[str, ...] = ()
    positional: int | None = 0
    unlisted: tuple[Flag, ...] = ()
    variants: "Mapping[str, Page]" = field(default_factory=dict)

    @property
    def flags(self) -> list[Flag]:
        """All flags that the command reads."""
        return [flag for group in self.groups for flag in group.flags] + list(self.unlisted)


DEBUG = Group("Errors", (Flag("debug", "Show the traceback of an error.", False),))
"""The last group of every page."""


def values_of(declared: Iterable[Flag]) -> Values:
    """Returns the flags with their defaults, ready to parse words."""
    values = Values()
    for flag in declared:
        _define(values, flag)
    return values


def _define(values: Values, flag: Flag) -> None:
    name, what = flag.name, flag.what
    if flag.type is bool:
        flags.DEFINE_bool(name, flag.default, what, flag_values=values)
    elif flag.type is int:
        least = None if flag.at_least is None else int(flag.at_least)
        flags.DEFINE_integer(name, flag.default, what, lower_bound=least, flag_values=values)
    elif flag.type is float:
        flags.DEFINE_float(name, flag.default, what, lower_bound=flag.at_least, flag_values=values)
    elif flag.type is tuple:
        default: Sequence[str] | None = None if flag.default is None else list(flag.default)
        flags.DEFINE_list(name, default, what, flag_values=values)
    elif flag.allowed:
        flags.DEFINE_enum(name, flag.default, flag.allowed, what, flag_values=values)
    else:
        flags.DEFINE_string(name, flag.default, what, flag_values=values)
