"""The help of one command: usage, what it does, examples, options in groups. Nothing here knows a particular verb."""

import shlex
import textwrap
from collections.abc import Sequence

from wsr.cli.flags import DEBUG, Flag, Group, Page

WIDTH = 100
_TEXT_AT = 28
"""The column at which the text of an option begins."""


def help_of(page: Page, words: Sequence[str] = ()) -> str:
    """Returns the help of a command that was called with ``words``, at most ``WIDTH`` columns wide."""
    called = f" {' '.join(words).replace('=', ' ')} "
    for given, variant in page.variants.items():
        if f" {given.replace('=', ' ')} " in called:
            return _told(variant)
    return _told(page)


def accepted(flag: Flag) -> str:
    """The allowed values in words; empty for a free text, which its placeholder describes."""
    if flag.accepts:
        return flag.accepts
    if flag.allowed:
        return either(flag.allowed)
    if flag.type is bool:
        return "true or false"
    number = {int: "whole number", float: "number", tuple: "comma-separated"}.get(flag.type, "")
    return number if flag.at_least is None else f"{number}, at least {flag.at_least:g}"


def either(names: Sequence[str]) -> str:
    """``a, b or c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _told(page: Page) -> str:
    usage = textwrap.fill(f"Usage: {page.usage}", WIDTH, subsequent_indent=" " * 9, break_on_hyphens=False)
    examples = ["Examples:" if len(page.examples) > 1 else "Example:", *map(_command, page.examples)]
    parts = [usage, _filled(page.what), "\n".join(examples) if page.examples else "", *map(_filled, page.notes)]
    return "\n\n".join(filter(None, (*parts, *map(_group, (*page.groups, DEBUG)))))


def _filled(text: str) -> str:
    """A paragraph; one of several lines is a table and stays as it is."""
    return text if "\n" in text else textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _command(line: str) -> str:
    """A command for the shell, continued on further lines where it is long."""
    lines = textwrap.wrap(line, WIDTH - 4, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return textwrap.indent(" \\\n".join(lines), "  ")


def _group(group: Group) -> str:
    return "\n".join([f"{group.heading}:", *map(_option, group.flags)])


def _option(flag: Flag) -> str:
    text = textwrap.wrap(
        f"{flag.what} [{_terms(flag)}]", WIDTH - _TEXT_AT, break_long_words=False, break_on_hyphens=False
    )
    left = f"  --{flag.name}={flag.value or _placeholder(flag)}"
    lines = [" " * _TEXT_AT + line for line in text]
    if len(left) > _TEXT_AT - 2:
        return "\n".join([left, *lines])
    return "\n".join([left.ljust(_TEXT_AT) + text[0], *lines[1:]])


def _placeholder(flag: Flag) -> str:
    return {bool: "BOOL", int: "N", float: "X", tuple: "NAME,..."}.get(flag.type, flag.name.rpartition("_")[2].upper())


def _terms(flag: Flag) -> str:
    """Allowed values and default, in the one form that all options share."""
    default = "required" if flag.required else f"default: {_default(flag)}"
    return "; ".join(filter(None, (accepted(flag), default)))


def _default(flag: Flag) -> str:
    if flag.otherwise or flag.default is None or flag.default == ():
        return flag.otherwise or "none"
    if isinstance(flag.default, bool):
        return str(flag.default).lower()
    if isinstance(flag.default, tuple):
        return ",".join(map(str, flag.default))
    return f"{flag.default:g}" if isinstance(flag.default, float) else shlex.quote(str(flag.default))
