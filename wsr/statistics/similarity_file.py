"""Similarity matrices and labels of models from CSV files, as people publish them."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO
from os import PathLike
from pathlib import Path

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.statistics.clustering import check_similarity

LISTED = 10  # problems of one kind that a message lists


def read_similarity(path: str | PathLike[str]) -> tuple[tuple[str, ...], Float[np.ndarray, "models models"]]:
    """Reads a square CSV of similarities: a header of model names, then a row of numbers a model.

    The rows may begin with the model's name, in the order of the header; the header's first cell is then empty,
    anything, or absent. Raises WsrError naming file, line and column.
    """
    (_, header), *rows = _table(path)
    widths = Counter(len(cells) for _, cells in rows)
    width = widths.most_common(1)[0][0] if rows else 0
    ragged = [f"line {line} ({len(cells)})" for line, cells in rows if len(cells) != width]
    if ragged:
        raise WsrError(f"{path}: every row must have {width} cells like most rows, found {_listed(ragged)}")
    named = len(rows) != width
    names = tuple(header[1:] if named and len(header) == width else header)
    unnamed = named and not {cells[0] for _, cells in rows} & set(names)  # a row is missing, not a name
    if unnamed or not len(rows) == len(names) == width - named:
        raise WsrError(
            f"{path}: must be square, with a header of model names and as many rows of numbers, found a header of "
            f"{len(header)} cells and {len(rows)} rows of {width} cells"
        )
    _refuse(
        path, "model names must not be empty, found", [f"column {i + 1}" for i, name in enumerate(names) if not name]
    )
    _refuse(path, "model names must differ, found twice", [name for name, n in Counter(names).items() if n > 1])
    if named:
        pairs = zip(names, rows, strict=True)
        moved = [f"line {line}: {cells[0]!r} for {name!r}" for name, (line, cells) in pairs if cells[0] != name]
        _refuse(path, "rows must be named in the order of the header, found", moved)
    matrix = np.full((len(names), len(names)), np.nan)
    bad = []
    for row, (line, cells) in enumerate(rows):
        for column, cell in enumerate(cells[named:]):
            try:
                matrix[row, column] = float(cell)
            except ValueError:
                bad.append(f"{cell!r} at line {line}, column {names[column]!r}")
    _refuse(path, "similarities must be numbers, found", bad)
    return names, check_similarity(matrix, names=names, source=str(path))


def read_labels(path: str | PathLike[str]) -> dict[str, str]:
    """Reads the label of each model from a CSV with the columns ``model`` and ``label``; others are not read."""
    (_, header), *rows = _table(path)
    absent = [name for name in ("model", "label") if header.count(name) != 1]
    if absent:
        raise WsrError(f"{path}: needs the columns model and label once each, found {header}")
    ragged = [f"line {line} ({len(cells)})" for line, cells in rows if len(cells) != len(header)]
    _refuse(path, f"every row must have {len(header)} cells like the header, found", ragged)
    pairs = [(line, cells[header.index("model")], cells[header.index("label")]) for line, cells in rows]
    for column, index in (("model", 1), ("label", 2)):
        _refuse(
            path, f"column {column} must not be empty, found", [f"line {pair[0]}" for pair in pairs if not pair[index]]
        )
    models = Counter(model for _, model, _ in pairs)
    _refuse(path, "a model must have one row, found more for", [model for model, n in models.items() if n > 1])
    if not pairs:
        raise WsrError(f"{path}: has no rows below its header")
    return {model: label for _, model, label in pairs}


def labels_from_names(names: Sequence[str], pattern: str) -> dict[str, str]:
    """Returns the label of each model: what the first group of the regular expression finds in its name."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise WsrError(f"label pattern {pattern!r}: not a regular expression: {error}") from None
    if not expression.groups:
        raise WsrError(f"label pattern {pattern!r}: needs a group, such as '^([a-z]+)-', that is the label")
    found = {name: match.group(1) for name in names if (match := expression.search(name))}
    labels = {name: label for name, label in found.items() if label}
    _refuse(f"label pattern {pattern!r}", "finds no label in", [name for name in names if name not in labels])
    return labels


def labels_in_order(names: Sequence[str], labels: Mapping[str, str], source: str | PathLike[str]) -> list[str]:
    """Returns the labels of ``names``, all of which must have one; ``source`` is where the labels came from."""
    _refuse(source, "has no label for", [name for name in names if name not in labels])
    return [labels[name] for name in names]


def _table(path: str | PathLike[str]) -> list[tuple[int, list[str]]]:
    """Lines of a CSV file that are not blank, each with its number from 1; blanks in cells made single."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise WsrError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise WsrError(
            f"{path}: must be UTF-8, found the byte {error.object[error.start]:#04x} at {error.start}"
        ) from None
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    lines = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                lines.append((reader.line_num, [" ".join(cell.split()) for cell in cells]))
    except csv.Error as error:
        raise WsrError(f"{path}: not a CSV file: {error} at line {reader.line_num}") from None
    if not lines:
        raise WsrError(f"{path}: is empty; needs a header and rows")
    return lines


def _refuse(source: object, problem: str, found: Sequence[str]) -> None:
    if found:
        raise WsrError(f"{source}: {problem} {_listed(found)}")


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
    return ", ".join(items[:LISTED]) + more
