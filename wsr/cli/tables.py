"""Tables on the console: as wide as their cells, whether there is a terminal or a pipe."""

from collections.abc import Iterable, Sequence

from wsr.runtime.printable import printable

Cell = str | int | float | None


def show_table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, title: str | None = None) -> None:
    """Prints a table; numbers get three decimals, and no cell is wrapped or cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Text and not str: rich would read "[red]" in a name as markup.
    table = Table(box=None, pad_edge=False, title=Text(title) if title else None, title_justify="left")
    for column in columns:
        table.add_column(Text(column), no_wrap=True)
    for row in rows:
        table.add_row(*(Text(_shown(cell)) for cell in row))
    Console(width=10_000).print(table, highlight=False)


def _shown(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:.3f}" if isinstance(cell, float) else printable(str(cell))
