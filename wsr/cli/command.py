"""The command that a verb was called by, to be kept with what it made."""

import shlex
from collections.abc import Sequence

from wsr.cli.flags import Values


def command_of(verb: str, values: Values, positional: Sequence[str] = ()) -> str:
    """Returns the command with the flags that were given, in a form for the shell."""
    given = [values[name].serialize() for name in sorted(values) if values[name].present]
    return shlex.join(["wsr", verb, *positional, *given])
