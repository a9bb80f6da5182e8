"""Flags of how the engine works, shared by the verbs that evaluate or train."""

from typing import TYPE_CHECKING, Any

from absl import flags

if TYPE_CHECKING:
    from wsr.engine.settings import Settings


def define(values: flags.FlagValues, what: str) -> None:
    """Defines them for a verb that works on several ``what`` together."""
    flags.DEFINE_integer(
        "chunk",
        None,
        f"{what} on a device together; by default chosen for it.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "memory_budget_gib",
        None,
        "Memory of a device that may be used; by default most of what it has.",
        lower_bound=0.0,
        flag_values=values,
    )


def define_engine(values: flags.FlagValues) -> None:
    """Defines them for a verb that evaluates points, with the precision of the encoder."""
    define(values, "Points")
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "bfloat16"],
        "What the encoder computes in; bfloat16 is for accelerators.",
        flag_values=values,
    )


def settings_of(values: flags.FlagValues, **more: Any) -> "Settings":
    """Returns the settings that the flags give; ``more`` are its other fields."""
    from wsr.engine.settings import Settings

    return Settings(chunk=values.chunk, memory_budget_gib=values.memory_budget_gib, precision=values.precision, **more)
