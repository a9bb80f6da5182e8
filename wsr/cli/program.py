"""One call of a command, from its words to its exit status. Every verb and every experiment is called through this."""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

from absl import flags

from wsr.cli.flags import DEBUG, Page, Values, values_of
from wsr.cli.help import help_of
from wsr.runtime.printable import printable

HELP = ("--help", "-h", "-help")


def call(page: Page, run: Callable[[Values, Sequence[str]], int | None], words: Sequence[str]) -> int:
    """Parses ``words``, runs the command and returns its exit status.

    The status is that of ``run`` (0 for None), 1 for an error, 2 for a call that the page does not allow, 130 after an
    interruption, and that of ``wsr.runtime.preemption`` after SIGTERM. Errors are one line on standard error.
    """
    if any(word in HELP for word in words):
        with suppress(BrokenPipeError):
            print(help_of(page, words), flush=True)
        return 0
    program = page.name.split()[0]
    values = values_of([*page.flags, *DEBUG.flags])
    try:
        positional = values([page.name, *words])[1:]
    except flags.Error as error:
        return complain(program, f"{page.name}: {' '.join(str(error).split())}; see {page.name} --help", status=2)
    from wsr.errors import WsrError
    from wsr.runtime.preemption import STATUS, TOLD, Preempted, sigterm_raises

    try:
        _refuse(page, values, positional)
        with sigterm_raises():
            return run(values, positional) or 0
    except WsrError as error:
        if values.debug:
            raise
        return complain(program, str(error))
    except Preempted:
        return complain(program, TOLD, status=STATUS)
    except KeyboardInterrupt:
        return complain(program, "interrupted; finished work is kept: run the same command again to resume", status=130)
    except BrokenPipeError:
        return 0
    except Exception as error:
        if values.debug:
            raise
        message = " ".join(str(error).split()) or "no message"
        told = f"{type(error).__name__}: {message[:500]} (an unexpected error: rerun with --debug to see the traceback)"
        return complain(program, told)


def complain(program: str, line: str, *, status: int = 1) -> int:
    """Prints one line on standard error and returns the status."""
    print(f"{program}: error: {printable(' '.join(line.split()))}", file=sys.stderr)
    return status


def _refuse(page: Page, values: Values, positional: Sequence[str]) -> None:
    """Raises where a word has no dashes and no meaning, or a required flag is missing."""
    from wsr.errors import WsrError

    if page.positional is not None and len(positional) > page.positional:
        extra = " ".join(positional[page.positional :])
        raise WsrError(f"unexpected {extra!r}: options are written --name=value; see {page.name} --help")
    for flag in page.flags:
        if flag.required and not values[flag.name].value:
            raise WsrError(f"--{flag.name} is needed: {flag.what} See {page.name} --help")
