"""Checks raw cells and turns them into texts and labels; errors name the file, row and column."""

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from wsr.data.records import Records
from wsr.errors import WsrError

SEPARATOR = " <SEP> "
"""Joins columns that make one text, as in the paper's released code."""


@dataclass(frozen=True)
class Columns:
    """The columns of a dataset that hold the text, the second text of a pair, and the label.

    Example:
      >>> from wsr.data import Columns
      >>> Columns(text="premise", text_pair="hypothesis", label="gold").of_texts
      ('premise', 'hypothesis')
    """

    text: str | tuple[str, ...] = "text"
    """Column of the text, or of the image. Several columns are joined into one text."""
    text_pair: str | tuple[str, ...] | None = None
    """Column of the second text of a pair; None for single texts."""
    label: str = "label"

    @property
    def of_texts(self) -> tuple[str, ...]:
        """The names of all columns that hold text."""
        return (*_parts(self.text), *_parts(self.text_pair or ()))


@dataclass(frozen=True, eq=False)
class Examples:
    """Checked texts and labels of one role (``train``, ``validation`` or ``test``)."""

    texts: Sequence[str]
    pairs: Sequence[str] | None
    labels: Int32[np.ndarray, " texts"] | Float32[np.ndarray, " texts"]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)


def read_examples(
    records: Mapping[str, Records],
    columns: Columns,
    *,
    label_names: tuple[str, ...] = (),
    classes: int | None = None,
    drop_empty: bool = False,
) -> tuple[dict[str, Examples], tuple[str, ...]]:
    """Returns the examples of each role and the names of the classes.

    Args:
      records: raw cells, by role.
      columns: the columns of text and label.
      label_names: names of the classes in the order of their numbers. If empty, the source may declare them; otherwise
        the labels of ``train``, sorted by number or name, are the classes.
      classes: number of classes; 1 reads labels as real numbers; None takes as many as there are.
      drop_empty: leaves out rows without text, instead of raising.

    Returns:
      The examples by role, and the names of the classes (empty for regression).

    Raises:
      WsrError: naming the file, row and column of a bad cell.
    """
    labels, names = read_labels(records, columns, label_names=label_names, classes=classes)
    out = {role: _examples(table, columns, labels[role], drop_empty) for role, table in records.items()}
    refuse_one_label(records["train"], columns, out["train"].labels, names)
    return out, names


def read_labels(
    records: Mapping[str, Records], columns: Columns, *, label_names: tuple[str, ...] = (), classes: int | None = None
) -> tuple[dict[str, Int32[np.ndarray, " texts"] | Float32[np.ndarray, " texts"]], tuple[str, ...]]:
    """Returns the labels of each role and the names of the classes; see ``read_examples``."""
    for table in records.values():
        _check_columns(table, (*columns.of_texts, columns.label))
    train = records["train"]
    names = () if classes == 1 else _class_names(train, columns.label, label_names, classes)
    labels = {
        role: _numbers(table, columns.label) if classes == 1 else _classes(table, columns.label, names)
        for role, table in records.items()
    }
    return labels, names


def refuse_one_label(train: Records, columns: Columns, labels: np.ndarray, names: tuple[str, ...]) -> None:
    """Raises WsrError if all labels of ``train`` are the same."""
    distinct = np.unique(labels)
    if len(distinct) < 2:
        found = names[int(distinct[0])] if names else float(distinct[0])
        raise WsrError(
            f"{train.origin}, column {columns.label!r}: every label is {found!r}; expected two or more labels"
        )


def read_unlabelled(records: Mapping[str, Records], columns: Columns) -> dict[str, Examples]:
    """Returns the examples of each role, all labelled 0; rows without text are left out and counted in a note.

    Args:
      records: raw cells, by role.
      columns: the columns of text.

    Raises:
      WsrError: naming the file, row and column of a bad cell.
    """
    for table in records.values():
        _check_columns(table, columns.of_texts)
    return {
        role: _examples(table, columns, np.zeros(len(table), np.int32), drop_empty=True)
        for role, table in records.items()
    }


def _examples(
    table: Records,
    columns: Columns,
    labels: Int32[np.ndarray, " texts"] | Float32[np.ndarray, " texts"],
    drop_empty: bool,
) -> Examples:
    kept, empty = _kept(table, columns, drop_empty)
    texts = _texts(table, columns.text)
    pairs = None if columns.text_pair is None else _texts(table, columns.text_pair)
    if empty:
        texts, pairs = [texts[i] for i in kept], None if pairs is None else [pairs[i] for i in kept]
        labels = labels[kept]
    notes = (*table.notes, f"{table.origin}: {empty} rows without text left out") if empty else table.notes
    return Examples(texts, pairs, labels, notes)


def _check_columns(table: Records, wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        raise WsrError(
            f"{table.origin}: no column {', '.join(map(repr, missing))}; "
            f"found {_listed(tuple(table.columns))}; say which columns hold text and label"
        )
    if not len(table):
        raise WsrError(f"{table.origin}: no examples")


def _parts(column: str | tuple[str, ...]) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _texts(table: Records, column: str | tuple[str, ...]) -> list[str]:
    cells = [["" if cell is None else cell for cell in table.columns[part]] for part in _parts(column)]
    return cells[0] if len(cells) == 1 else [SEPARATOR.join(row) for row in zip(*cells, strict=True)]


def _kept(table: Records, columns: Columns, drop_empty: bool) -> tuple[list[int], int]:
    """Returns the records with text in every segment, and the number of records without."""
    filled = np.ones(len(table), bool)
    for segment in (columns.text, columns.text_pair):
        if segment is None:
            continue
        parts = _parts(segment)
        some = np.zeros(len(table), bool)
        for part in parts:
            for record, cell in enumerate(table.columns[part]):
                if cell is not None and not isinstance(cell, str):
                    raise WsrError(f"{table.where(record, part)}: expected text, found {_shown(cell)}")
                if cell and not _is_unicode(cell):
                    raise WsrError(f"{table.where(record, part)}: the text is not valid Unicode (a lone surrogate)")
                some[record] |= bool(cell and cell.strip())
        if not drop_empty and not some.all():
            raise WsrError(f"{table.where(int(some.argmin()), parts[0])}: the text is empty")
        filled &= some
    kept = np.flatnonzero(filled).tolist()
    if not kept:
        raise WsrError(f"{table.origin}: every text is empty")
    return kept, len(table) - len(kept)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _class_names(train: Records, column: str, label_names: tuple[str, ...], classes: int | None) -> tuple[str, ...]:
    names = label_names or train.label_names.get(column) or ()
    if not names:
        names = _found_names(train, column)
        if classes and all(_whole(name) is not None for name in names):
            return tuple(map(str, range(classes)))
    if classes and len(names) != classes:
        raise WsrError(
            f"{train.origin}, column {column!r}: expected {classes} classes, found {len(names)}: {_listed(names)}"
        )
    return names


def _found_names(table: Records, column: str) -> tuple[str, ...]:
    _check_present(table, column)
    whole = [_whole(cell) for cell in table.columns[column]]
    numeric = sum(value is not None for value in whole)
    if numeric == len(whole):
        return tuple(map(str, sorted({value for value in whole if value is not None})))
    for record, (cell, value) in enumerate(zip(table.columns[column], whole, strict=True)):
        if value is None and (numeric > 0 or not isinstance(cell, str)):
            others = f", as {numeric} other labels are" if numeric else " or a name"
            raise WsrError(
                f"{table.where(record, column)}: label {_shown(cell)} is not a whole number{others}; "
                f"give label_names if labels are names, or classes=1 if they are real numbers"
            )
    return tuple(sorted({cell.strip() for cell in table.columns[column]}))


def _check_present(table: Records, column: str) -> None:
    for record, cell in enumerate(table.columns[column]):
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            raise WsrError(f"{table.where(record, column)}: the label is empty")


def _classes(table: Records, column: str, names: tuple[str, ...]) -> Int32[np.ndarray, " texts"]:
    by_name = {name: number for number, name in enumerate(names)}
    # Class names that are numbers ("1" to "5") are matched as names; otherwise numbers count classes from 0.
    numbered = not all(_whole(name) is not None for name in names)
    _check_present(table, column)
    labels = np.empty(len(table), np.int32)
    for record, cell in enumerate(table.columns[column]):
        whole = _whole(cell)
        found = by_name.get(str(cell).strip() if whole is None else str(whole))
        if found is None and numbered and whole is not None and 0 <= whole < len(names):
            found = whole
        if found is None:
            what = f"label {_shown(cell)} is none of" if whole is None else f"label {whole} is out of range:"
            if whole == -1:
                what = "label -1 marks a hidden label (leave this split out of the source's splits); it is none of"
            raise WsrError(f"{table.where(record, column)}: {what} the {len(names)} classes {_listed(names)}")
        labels[record] = found
    return labels


def _numbers(table: Records, column: str) -> Float32[np.ndarray, " texts"]:
    labels = np.empty(len(table), np.float32)
    for record, cell in enumerate(table.columns[column]):
        number = _number(cell)
        if number is None or not math.isfinite(number) or abs(number) > float(np.finfo(np.float32).max):
            raise WsrError(f"{table.where(record, column)}: label {_shown(cell)} is not a finite number")
        labels[record] = number
    return labels


def _number(cell: Any) -> float | None:
    # float() would read "1_0" as 10.
    if isinstance(cell, numbers.Real) or (isinstance(cell, str) and "_" not in cell):
        try:
            return float(cell)
        except (ValueError, OverflowError):
            return None
    return None


def _whole(cell: Any) -> int | None:
    """Returns the whole number in a cell, or None: 3, 3.0, "3", "3.0" and True hold one; 0.5 and "three" do not."""
    number = _number(cell)
    if number is None or not math.isfinite(number) or number != int(number) or abs(number) >= 2**53:
        return None
    return int(number)


def _shown(cell: Any) -> str:
    shown = repr(cell)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _listed(names: tuple[str, ...], most: int = 12) -> str:
    shown = ", ".join(map(_shown, names[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
