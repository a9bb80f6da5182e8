"""The table of faults: what must hold after each fault, and the counts of ``make torture``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.store.results import read_rows

TORTURE = "<!-- torture -->"
"""Opens the table on a page; ``<!-- end -->`` closes it."""

_BLOCK = re.compile(rf"({TORTURE}\n)(.*?)(<!-- end -->)", re.DOTALL)
_ROW = re.compile(r"^\| (?P<fault>[^|]+?) \| (?P<must_hold>[^|]+?) \|", re.MULTILINE)


def rendered_torture(page: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a page with the counts in its table of faults.

    The first two cells of a line, the fault and what must hold, stay as the page has them. Faults that the page lacks
    are added at the end.

    Args:
      page: the Markdown text.
      rows: counts from ``make torture``, ``{"fault": NAME, KEY: COUNT, ...}``; several rows of a fault are added up.

    Raises:
      WsrError: the page does not have exactly one table of faults, or rows of one fault have different keys.
    """
    blocks = _BLOCK.findall(page)
    if len(blocks) != 1:
        raise WsrError(f"page: expected one block from <!-- torture --> to <!-- end -->, found {len(blocks)}")
    must_hold = {own["fault"]: own["must_hold"] for own in _ROW.finditer(blocks[0][1]) if own["fault"] != "fault"}
    must_hold.pop("---", None)
    counted = _added_up(rows)
    lines = ["| fault | must hold | counted |", "| --- | --- | --- |"]
    for fault in dict.fromkeys([*must_hold, *counted]):
        told = ", ".join(f"{key.replace('_', ' ')} {_number(own)}" for key, own in counted.get(fault, {}).items())
        lines.append(f"| {fault} | {must_hold.get(fault, '–')} | {told or 'not run'} |")
    table = "\n".join(lines) + "\n"
    return _BLOCK.sub(lambda found: found[1] + table + found[3], page)


def read_torture(file: Path) -> list[dict[str, Any]]:
    """Returns the rows that ``make torture`` wrote, or none if there is no file.

    Raises:
      WsrError: the file does not hold such rows.
    """
    rows = read_rows(file) if file.is_file() else []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row.get("fault"), str):
            raise WsrError(f"{file}: line {number}: expected the name of a fault under 'fault'")
    return rows


def _added_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        fault, counts = row["fault"].replace("|", "/"), {key: own for key, own in row.items() if key != "fault"}
        before = found.setdefault(fault, dict.fromkeys(counts, 0))
        if before.keys() != counts.keys():
            raise WsrError(f"torture: {fault!r} counted {', '.join(before)} and then {', '.join(counts)}")
        for key, own in counts.items():
            summed = isinstance(own, int) and isinstance(before[key], int)
            before[key] = before[key] + own if summed else own
    return found


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "/")
