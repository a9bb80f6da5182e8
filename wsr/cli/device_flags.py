"""Flags of memory and precision, shared by the verbs that evaluate or train."""

from typing import TYPE_CHECKING, Any

from wsr.cli.flags import Flag, Group, Values

if TYPE_CHECKING:
    from wsr.engine.settings import Settings


def memory_flags(what: str) -> tuple[Flag, ...]:
    """The flags of a verb that holds several ``what`` on a device at once."""
    return (
        Flag(
            "chunk",
            f"Number of {what} that a device holds at once.",
            kind=int,
            at_least=1,
            otherwise="as many as fit in memory",
        ),
        Flag(
            "memory_budget_gib",
            "Memory of each device that may be used, in GiB.",
            kind=float,
            value="GIB",
            at_least=0.0,
            otherwise="most of the device's memory",
        ),
    )


GROUP = Group(
    "Device and memory",
    (
        *memory_flags("points"),
        Flag(
            "precision",
            "Precision of the encoder's matrix products; bfloat16 is faster on chips that have it.",
            "float32",
            allowed=("float32", "bfloat16"),
        ),
    ),
)
"""How a verb that evaluates points uses its devices."""


def settings_of(values: Values, **more: Any) -> "Settings":
    """Returns the settings that the flags give; ``more`` are its other fields."""
    from wsr.engine.settings import Settings

    return Settings(chunk=values.chunk, memory_budget_gib=values.memory_budget_gib, precision=values.precision, **more)
