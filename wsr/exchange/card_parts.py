"""The pieces of a model card: metadata in YAML, tables and text in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from wsr.exchange.licences import UNCLEAR, Licences
from wsr.runtime.printable import printable

TAG = "weight-space-regions"
"""Tag of the cards that wsr writes."""


def front_matter(about: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the metadata that the hub reads, and an empty one.

    Args:
      about: the metadata.
    """
    import yaml

    return ["---", yaml.safe_dump(dict(about), sort_keys=False, allow_unicode=True).rstrip(), "---", ""]


def made_by(command: str) -> list[str]:
    """Returns the lines of the section with the command that writes the model again; none without a command.

    Args:
      command: the command, as it is typed.
    """
    return ["## Made by", "", "```sh", printable(command), "```", ""] if command else []


def licence_section(found: Licences) -> list[str]:
    """Returns the lines of the section on the licence of a model and those of its parents.

    Args:
      found: the licences.
    """
    said = {None: "no card names one", UNCLEAR: "unclear"}
    rows = [
        (code(name) if name else "the base", said[own] if own is None or own == UNCLEAR else code(own))
        for name, own in found.parents.items()
    ]
    if found.own is None:
        told = "None is set here, because not every parent has a card that names one. Add `license:` at the top."
    else:
        told = code(found.own)
    return ["## Licence", "", told, "", *table(("parent", "licence"), rows)]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, and an empty one.

    Args:
      columns: the head of each column.
      rows: the cells, in Markdown.
    """
    return [*(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)), ""]


def code(text: Any) -> str:
    """Returns text as inline code, in which Markdown is not interpreted: names may come from anywhere."""
    return f"`{printable(str(text)).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def plain(text: str) -> str:
    """Returns text with the characters escaped that Markdown interprets."""
    return "".join(f"\\{letter}" if letter in "\\`*_{}[]<>#|" else letter for letter in printable(text))
