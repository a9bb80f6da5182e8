"""Tables as HTML and as CSV."""

import csv
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from wsr.report.document import Cell, Table
from wsr.report.style import number, readable
from wsr.runtime.atomic import write_atomically

# The column of what ``interval_cell`` returns.
INTERVAL = "95 % interval"
# A table of more rows is folded until someone asks for it.
OPEN_ROWS = 12
# Letters up to which a text cell stays on one line; columns of longer texts break their lines.
ONE_LINE = 30
# A spreadsheet takes a cell that begins with one of these for a formula; blanks before it are skipped by some, and some
# read the wide forms of Chinese and Japanese keyboards (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def write_csv(table: Table, path: str | Path) -> None:
    """Writes the table as CSV; a text cell that a spreadsheet would run as a formula gets an apostrophe."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_guarded(name) for name in table.columns])
    writer.writerows([_guarded(cell) for cell in row] for row in table.rows)
    write_atomically(Path(path), stream.getvalue().encode())


def interval_cell(low: float | None, high: float | None) -> str | None:
    """Returns both ends of an interval as one cell; None where there is no interval."""
    if low is None or high is None or not math.isfinite(low) or not math.isfinite(high):
        return None
    return f"{number(low)} to {number(high)}"


def table_html(table: Table) -> str:
    """Returns the table as HTML, folded where it is long; numbers are rounded, all digits in their title."""
    classes = [_class([row[i] for row in table.rows]) for i in range(len(table.columns))]
    head = "".join(_tag("th", name, classes[i]) for i, name in enumerate(table.columns))
    body = "".join(
        f"<tr>{''.join(_tag('td', cell, classes[i]) for i, cell in enumerate(row))}</tr>" for row in table.rows
    )
    caption = f'<p class="caption">{escape(readable(table.caption))}</p>' if table.caption else ""
    # A table scrolls within itself on a phone; the keyboard has to reach it for that.
    scroll = (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(readable(table.title))}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{caption}"
    )
    title = escape(readable(table.title))
    if len(table.rows) > OPEN_ROWS:
        rows = f'<span class="muted">{len(table.rows)} rows</span>'
        return f'<details class="table"><summary>{title} {rows}</summary>{scroll}</details>'
    return f'<div class="table"><h3>{title}</h3>{scroll}</div>'


def _class(column: Sequence[Cell]) -> str:
    if any(isinstance(cell, int | float) for cell in column):
        return "number"
    return "prose" if any(isinstance(cell, str) and len(cell) > ONE_LINE for cell in column) else ""


def _tag(tag: str, cell: Cell, kind: str) -> str:
    attributes = (' scope="col"' if tag == "th" else "") + (f' class="{kind}"' if kind else "")
    if isinstance(cell, float):
        return f'<{tag}{attributes} title="{cell!r}">{number(cell)}</{tag}>'
    if isinstance(cell, int):
        return f"<{tag}{attributes}>{cell:,}</{tag}>".replace(",", "\u202f")
    return f"<{tag}{attributes}>{escape(readable(cell)) if cell is not None else '–'}</{tag}>"


def _guarded(cell: Cell) -> Cell:
    guarded = isinstance(cell, str) and (cell.lstrip().startswith(_FORMULA) or cell.startswith(("\t", "\r", "\n")))
    return f"'{cell}" if guarded else cell
