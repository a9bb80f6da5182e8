"""Flags of what is on the device at the same time, shared by several verbs."""

from absl import flags


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
