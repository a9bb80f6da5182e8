"""Turns cells into numbers of classes.

Where a source declares the classes of a column (ClassLabel of ``datasets`` and of TensorFlow Datasets), its cells are
positions among the declared names. Everywhere else a cell is matched by name; a number stands for the position of a
name only if the order of the names was given.
"""

import math
import numbers
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from jaxtyping import Int32

from wsr.data.records import Records
from wsr.errors import WsrError

_INTEGER = re.compile(r"([+-]?(?:0|[1-9][0-9]*))(?:\.0*)?", re.ASCII)
"""A whole number as programs write it. Codes such as 007 and 1e3 are names."""
WAYS_ON = (
    "name the classes, in order, with --label_names=A,B,... (label_names in Python), or read real numbers with "
    "--regression (classes=1)"
)


def read_classes(
    records: Mapping[str, Records], column: str, label_names: tuple[str, ...] = (), classes: int | None = None
) -> tuple[dict[str, Int32[np.ndarray, " texts"]], tuple[str, ...], tuple[str, ...]]:
    """Returns the number of the class of each cell by role, the names of the classes, and notes.

    Args:
      records: raw cells, by role.
      column: the column of labels.
      label_names: names of the classes, in order; empty if the source declares them or they are to be found.
      classes: number of classes; None takes as many as there are.

    Raises:
      WsrError: naming the file, row and column of a label that has no class.
    """
    train = records["train"]
    names = label_names or train.label_names.get(column) or ()
    ordered = bool(names)
    if not names:
        names = _found_names(train, column)
        if classes and all(whole(name) is not None for name in names):
            names, ordered = tuple(map(str, class_values(_wholes(records, column), classes))), True
    if classes and len(names) != classes:
        raise WsrError(
            f"{train.origin}, column {column!r}: expected {classes} classes, found {len(names)}: {listed(names)}"
        )
    numbers = class_values(_wholes(records, column), len(names))
    labels, notes = {}, []
    if label_names and numbers != tuple(range(len(names))) and not set(map(str, numbers)) <= set(names):
        pairs = ", ".join(f"{number} {shown(name)}" for number, name in zip(numbers[:12], names, strict=False))
        notes.append(f"{train.origin}, column {column!r}: numbers read as names in their order: {pairs}")
    for role, table in records.items():
        declared = table.label_names.get(column, ())
        if declared:
            labels[role] = _positions(table, column, declared, names, renamed=bool(label_names))
        else:
            labels[role], merged = _matched(table, column, names, ordered, numbers)
            notes += merged
    return labels, names, tuple(notes)


def class_values(found: Collection[int], classes: int) -> tuple[int, ...]:
    """Returns the numbers that stand for the classes 0, 1, ... of a dataset.

    They are 0 to n - 1 if the labels fit, else 1 to n if they fit, else the labels themselves if there are n of them.

    Args:
      found: the labels that occur; some classes may have none.
      classes: number of classes, n.

    Example:
      >>> from wsr.data.classes import class_values
      >>> class_values({0, 2}, 3), class_values({1, 3}, 3), class_values({0, 2, 4}, 3)
      ((0, 1, 2), (1, 2, 3), (0, 2, 4))
    """
    for values in (range(classes), range(1, classes + 1)):
        if set(found) <= set(values):
            return tuple(values)
    # -1 beside 0 alone is a hidden label, not a class.
    return tuple(sorted(found)) if len(found) == classes and set(found) != {-1, 0} else tuple(range(classes))


def is_empty(cell: Any) -> bool:
    """Returns whether a cell holds nothing, or only white space."""
    return cell is None or (isinstance(cell, str) and not cell.strip())


def number_in(cell: Any) -> float | None:
    """Returns the number in a cell, or None."""
    # float() would read "1_0" as 10.
    if isinstance(cell, numbers.Real | Decimal) or (isinstance(cell, str) and "_" not in cell):
        try:
            return float(cell)
        except (ValueError, OverflowError):
            return None
    return None


def whole(cell: Any) -> int | None:
    """Returns the whole number in a cell, or None: 3, 3.0, "3", "3.0" and True hold one; 0.5, "03", "1e3" do not."""
    if isinstance(cell, str):
        found = _INTEGER.fullmatch(cell.strip())
        return int(found[1]) if found else None
    if isinstance(cell, numbers.Integral):
        return int(cell)
    number = number_in(cell)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None


def shown(cell: Any) -> str:
    """Returns a cell for a message, cut at 60 characters."""
    text = repr(cell)
    return text if len(text) <= 60 else text[:57] + "..."


def listed(names: tuple[str, ...], most: int = 12) -> str:
    """Returns names for a message; at most ``most`` of them."""
    text = ", ".join(map(shown, names[:most]))
    return text if len(names) <= most else f"{text} and {len(names) - most} more"


def _wholes(records: Mapping[str, Records], column: str) -> set[int]:
    """Returns the whole numbers among the labels of all roles."""
    cells = {cell for table in records.values() for cell in table.columns[column] if not isinstance(cell, list | dict)}
    return {number for number in map(whole, cells) if number is not None}


def _found_names(table: Records, column: str) -> tuple[str, ...]:
    """Returns the labels of a table as names: whole numbers by size, others by alphabet."""
    cells: dict[Any, int] = {}
    for record, cell in enumerate(table.columns[column]):
        if is_empty(cell):
            raise _empty(table, record, column)
        if isinstance(cell, list | dict):
            raise WsrError(f"{table.where(record, column)}: label {shown(cell)} is not one number or name")
        cells.setdefault(cell.strip() if isinstance(cell, str) else cell, record)
    wholes = {cell: whole(cell) for cell in cells}
    if all(value is not None for value in wholes.values()):
        return tuple(map(str, sorted({value for value in wholes.values() if value is not None})))
    if not _are_names(cells):
        cell, record = next((cell, record) for cell, record in cells.items() if wholes[cell] is None)
        others = ", as other labels are" if any(value is not None for value in wholes.values()) else ""
        raise WsrError(f"{table.where(record, column)}: label {shown(cell)} is not a whole number{others}; {WAYS_ON}")
    by_number = defaultdict(list)
    for cell in cells:
        number = number_in(cell)
        by_number[cell if number is None or not math.isfinite(number) else number].append(cell)
    for spellings in by_number.values():
        if len(spellings) > 1:
            raise WsrError(
                f"{table.where(cells[spellings[1]], column)}: the labels {listed(tuple(spellings))} are one number "
                f"written in several ways; write them alike, or {WAYS_ON}"
            )
    return tuple(sorted(cells))


def _are_names(cells: Mapping[Any, int]) -> bool:
    """Returns whether labels are names: words only, or codes (whole numbers, some with zeros in front or exponents)."""
    if not all(isinstance(cell, str) for cell in cells):
        return False
    values = [number_in(cell) for cell in cells]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    return not finite or (len(finite) == len(values) and all(value == int(value) for value in finite))


def _positions(
    table: Records, column: str, declared: tuple[str, ...], names: tuple[str, ...], *, renamed: bool
) -> Int32[np.ndarray, " texts"]:
    """Returns the classes of cells that are positions among ``declared``, as positions among ``names``."""
    # Names given by hand may rename the declared classes, in their order.
    same = declared == names or (renamed and len(declared) == len(names) and set(declared) != set(names))
    by_name = {name: number for number, name in enumerate(names)}
    labels = np.empty(len(table), np.int32)
    for record, cell in enumerate(table.columns[column]):
        position = declared.index(cell) if isinstance(cell, str) and cell in declared else whole(cell)
        if is_empty(cell):
            raise _empty(table, record, column)
        if position is None or not 0 <= position < len(declared):
            raise _no_class(table, record, column, cell, declared)
        number = position if same else by_name.get(declared[position])
        if number is None:
            raise _no_class(table, record, column, declared[position], names)
        labels[record] = number
    return labels


def _matched(
    table: Records, column: str, names: tuple[str, ...], ordered: bool, numbers: tuple[int, ...]
) -> tuple[Int32[np.ndarray, " texts"], list[str]]:
    """Returns the classes of cells by name, or by position if the names are ``ordered``, and notes on spellings."""
    by_name = {name: number for number, name in enumerate(names)}
    by_number = {value: number for number, value in enumerate(numbers)}
    # Class names that are numbers ("1" to "5") are matched as names; otherwise numbers count classes.
    numbered = not all(whole(name) is not None for name in names)
    labels = np.empty(len(table), np.int32)
    known: dict[tuple[type, Any], int] = {}
    for record, cell in enumerate(table.columns[column]):
        if is_empty(cell):
            raise _empty(table, record, column)
        if isinstance(cell, list | dict):
            raise WsrError(f"{table.where(record, column)}: label {shown(cell)} is not one number or name")
        key = (type(cell), cell)
        if key not in known:
            value = whole(cell)
            found = by_name.get(str(cell).strip())
            if found is None and value is not None:
                found = by_name.get(str(value))
            if found is None and numbered and value is not None and value in by_number:
                if not ordered:
                    raise WsrError(
                        f"{table.where(record, column)}: label {shown(cell)} is a number, but the classes of train are "
                        f"the names {listed(names)}, whose order is not declared; {WAYS_ON}"
                    )
                found = by_number[value]
            if found is None:
                raise _no_class(table, record, column, cell if value is None else value, names)
            known[key] = found
        labels[record] = known[key]
    return labels, _spellings(table, column, names, known)


def _spellings(table: Records, column: str, names: tuple[str, ...], known: Mapping[tuple[type, Any], int]) -> list[str]:
    spellings = defaultdict(list)
    for (kind, cell), number in known.items():
        if kind is str:
            spellings[number].append(cell)
    return [
        f"{table.origin}, column {column!r}: {listed(tuple(cells))} read as one class, {shown(names[number])}"
        for number, cells in spellings.items()
        if len(cells) > 1
    ]


def _empty(table: Records, record: int, column: str) -> WsrError:
    return WsrError(
        f"{table.where(record, column)}: the label is empty; fill it, or leave out such rows with --drop_empty"
    )


def _no_class(table: Records, record: int, column: str, cell: Any, names: tuple[str, ...]) -> WsrError:
    value = whole(cell)
    what = f"label {shown(cell)} is none of" if value is None else f"label {value} is out of range:"
    if value == -1:
        what = "label -1 marks a hidden label (leave this split out of the source's splits); it is none of"
    return WsrError(f"{table.where(record, column)}: {what} the {len(names)} classes {listed(names)}")
