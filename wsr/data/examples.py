"""Checks raw cells and turns them into texts and labels; errors name the file, row and column."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int32

from wsr.data.classes import is_empty, listed, number_in, read_classes, shown
from wsr.data.identity import Hashes, PartHashes, part_hashes, text_hashes
from wsr.data.records import Records
from wsr.errors import WsrError, nearest_names

Labels = Int32[np.ndarray, " texts"] | Float32[np.ndarray, " texts"]
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
    labels: Labels
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def hashes(self) -> Hashes:
        """A 64-bit hash of each text or pair of texts."""
        return text_hashes(self.texts, self.pairs)

    @cached_property
    def part_hashes(self) -> PartHashes | None:
        """A 64-bit hash of each text of each pair; None for single texts."""
        return None if self.pairs is None else part_hashes(self.texts, self.pairs)


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
        the labels of ``train``, sorted by number or name, are the classes, and numbers do not stand for names.
      classes: number of classes; 1 reads labels as real numbers; None takes as many as there are.
      drop_empty: leaves out rows without text or label, instead of raising.

    Returns:
      The examples by role, and the names of the classes (empty for regression).

    Raises:
      WsrError: naming the file, row and column of a bad cell.
    """
    if drop_empty:
        records = {role: _with_labels(table, columns.label) for role, table in records.items()}
    labels, names, notes = read_labels(records, columns, label_names=label_names, classes=classes)
    out = {role: _examples(table, columns, labels[role], drop_empty) for role, table in records.items()}
    out["train"] = replace(out["train"], notes=out["train"].notes + notes)
    refuse_one_label(records["train"], columns, out["train"].labels, names)
    return out, names


def read_labels(
    records: Mapping[str, Records], columns: Columns, *, label_names: tuple[str, ...] = (), classes: int | None = None
) -> tuple[dict[str, Labels], tuple[str, ...], tuple[str, ...]]:
    """Returns the labels of each role, the names of the classes, and notes; see ``read_examples``."""
    for table in records.values():
        _check_columns(table, (*columns.of_texts, columns.label))
    if classes == 1:
        return {role: _numbers(table, columns.label) for role, table in records.items()}, (), ()
    return read_classes(records, columns.label, label_names, classes)


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
    labels: Labels,
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


def _with_labels(table: Records, column: str) -> Records:
    """Returns the records that have a label; a note counts the others."""
    if column not in table.columns:
        return table
    kept = [at for at, cell in enumerate(table.columns[column]) if not is_empty(cell)]
    if len(kept) == len(table):
        return table
    columns = {name: [cells[at] for at in kept] for name, cells in table.columns.items()}
    note = f"{table.origin}: {len(table) - len(kept)} rows without label left out"
    return replace(table, columns=columns, rows=[table.rows[at] for at in kept], notes=(*table.notes, note))


def _check_columns(table: Records, wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in table.columns]
    if missing:
        # The names of several columns in one: the file was read as cells separated by another character.
        joined = any(column in re.split(r"[^\w ]", found) for column in missing for found in table.columns)
        way = "name the character between the cells with --delimiter, or " if joined else ""
        raise WsrError(
            f"{table.origin}: no column {', '.join(map(repr, missing))}; "
            f"found {listed(tuple(table.columns))}; nearest: {nearest_names(missing[0], table.columns, most=1)}; "
            f"{way}name the columns with --text_column, --pair_column and --label_column (columns=Columns(...) in "
            "Python)"
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
                    raise WsrError(f"{table.where(record, part)}: expected text, found {shown(cell)}")
                if cell and not _is_unicode(cell):
                    raise WsrError(f"{table.where(record, part)}: the text is not valid Unicode (a lone surrogate)")
                some[record] |= bool(cell and cell.strip())
        if not drop_empty and not some.all():
            raise WsrError(
                f"{table.where(int(some.argmin()), parts[0])}: the text is empty; fill it, or leave out such rows with "
                f"--drop_empty"
            )
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


def _numbers(table: Records, column: str) -> Float32[np.ndarray, " texts"]:
    labels = np.empty(len(table), np.float32)
    for record, cell in enumerate(table.columns[column]):
        number = number_in(cell)
        if number is None or not math.isfinite(number) or abs(number) > float(np.finfo(np.float32).max):
            raise WsrError(f"{table.where(record, column)}: label {shown(cell)} is not a finite number")
        labels[record] = number
    return labels
