"""Tables as HTML and as CSV."""

import csv
import io
from html import escape
from pathlib import Path

from wsr.report.document import Cell, Table
from wsr.report.style import number, readable
from wsr.runtime.atomic import write_atomically

# A table of more rows is folded until someone asks for it.
OPEN_ROWS = 12
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


def table_html(table: Table) -> str:
    """Returns the table as HTML that scrolls within itself; numbers are rounded, all digits in their title."""
    right = [any(isinstance(row[i], int | float) for row in table.rows) for i in range(len(table.columns))]
    head = "".join(_tag("th", name, right[i]) for i, name in enumerate(table.columns))
    body = "".join(
        f"<tr>{''.join(_tag('td', cell, right[i]) for i, cell in enumerate(row))}</tr>" for row in table.rows
    )
    caption = f'<p class="caption">{escape(readable(table.caption))}</p>' if table.caption else ""
    scroll = (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(readable(table.title))}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{caption}"
    )
    title = escape(readable(table.title))
    if len(table.rows) > OPEN_ROWS:
        rows = f'<span class="muted">{len(table.rows)} rows</span>'
        return f'<details class="table"><summary>{title} {rows}</summary>{scroll}</details>'
    return f'<div class="table"><h3>{title}</h3>{scroll}</div>'


def _tag(tag: str, cell: Cell, right: bool) -> str:
    align = ' class="number"' if right else ""
    if isinstance(cell, float):
        return f'<{tag}{align} title="{cell!r}">{number(cell)}</{tag}>'
    if isinstance(cell, int):
        return f"<{tag}{align}>{cell:,}</{tag}>".replace(",", "\u202f")
    return f"<{tag}{align}>{escape(readable(cell)) if cell is not None else '–'}</{tag}>"


def _guarded(cell: Cell) -> Cell:
    guarded = isinstance(cell, str) and (cell.lstrip().startswith(_FORMULA) or cell.startswith(("\t", "\r", "\n")))
    return f"'{cell}" if guarded else cell
