"""Leaves out rows whose label is hidden: public data mark them with -1."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from wsr.data.classes import whole
from wsr.data.records import Records

HIDDEN = -1


def without_hidden(
    records: Mapping[str, Records], column: str, label_names: tuple[str, ...], classes: int | None
) -> tuple[dict[str, Records], tuple[str, ...]]:
    """Returns the records whose label is known, and a note for each split that lost rows.

    -1 marks a hidden label where the source declares its classes, and where more numbers occur than there are classes.
    Otherwise it is a class like others (-1, 0, 1). A validation or test split without any other label is left out
    whole.

    Args:
      records: raw cells, by role.
      column: the column of labels.
      label_names: names of the classes, if they are given.
      classes: number of classes, if it is given; 1 is regression, in which -1 is a number like others.
    """
    count = classes or len(label_names)
    numbers = {role: _numbers(table, column) for role, table in records.items()}
    values = set().union(*numbers.values()) - {None}
    kept, notes = {}, []
    for role, table in records.items():
        hidden = []
        if HIDDEN in numbers[role]:
            hidden = [at for at, cell in enumerate(table.columns[column]) if _number(cell) == HIDDEN]
        marks = classes != 1 and (column in table.label_names or 0 < count < len(values))
        if numbers[role] == {HIDDEN} and role != "train" and (marks or HIDDEN not in numbers["train"]):
            notes.append(f"{table.origin}: not read, because all its labels are hidden (-1)")
        elif hidden and marks:
            notes.append(f"{table.origin}: {len(hidden):,} of {len(table):,} rows left out: their label is hidden (-1)")
            kept[role] = _without(table, set(hidden))
        else:
            kept[role] = table
    return kept, tuple(notes)


def _numbers(table: Records, column: str) -> set[int | None]:
    """Returns the different whole numbers among the labels; None stands for any other label."""
    cells = table.columns.get(column, ())
    return {_number(cell) for cell in {cell for cell in cells if not isinstance(cell, list | dict)}}


def _number(cell: Any) -> int | None:
    # A cell may be a list, which is no number.
    return None if isinstance(cell, list | dict) else whole(cell)


def _without(table: Records, rows: set[int]) -> Records:
    """Returns the records without some of its rows."""
    kept = [at for at in range(len(table)) if at not in rows]
    columns = {name: [cells[at] for at in kept] for name, cells in table.columns.items()}
    return replace(table, columns=columns, rows=[table.rows[at] for at in kept])
