"""Reads published similarity matrices and labels of models from CSV files."""

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

LISTED = 10  # most problems of one kind that a message lists


def read_similarity(path: str | PathLike[str]) -> tuple[tuple[str, ...], Float[np.ndarray, "models models"]]:
    """Reads a square similarity matrix from a CSV file: a header of model names, then one row of numbers per model.

    Each row may begin with its model's name, in the order of the header. The first cell of the header may then hold
    anything or be left out.

    Args:
      path: the CSV file.

    Returns:
      The names of the models, and the matrix.

    Raises:
      WsrError: naming the file, the line and the column, if the file is not such a matrix.

    Example:
      >>> import numpy as np
      >>> from wsr.statistics.similarity_file import read_similarity
      >>> similarity = [[1.0, 0.5], [0.5, 1.0]]
      >>> np.savetxt("similarity.csv", similarity, delimiter=",", header="nli-1,nli-2", comments="")
      >>> names, matrix = read_similarity("similarity.csv")
      >>> names, matrix.tolist()
      (('nli-1', 'nli-2'), [[1.0, 0.5], [0.5, 1.0]])
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
            f"{path}: must be square, with a header of model names and one row of numbers per model; found a header of "
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
    """Reads the label of each model from a CSV file with the columns ``model`` and ``label``.

    Args:
      path: the CSV file. Other columns are ignored.

    Returns:
      The label of each model, by name.

    Raises:
      WsrError: naming the file and the line, if a column is missing, a cell is empty or a model has several rows.
    """
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
    """Returns the label of each model: the first group of a regular expression in the model's name.

    Args:
      names: the models.
      pattern: a regular expression with at least one group.

    Raises:
      WsrError: if the pattern is invalid, has no group, or does not match every name.

    Example:
      >>> from wsr.statistics.similarity_file import labels_from_names
      >>> labels_from_names(["mnli-0", "cola-1"], "^([a-z]+)-")
      {'mnli-0': 'mnli', 'cola-1': 'cola'}
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise WsrError(f"label pattern {pattern!r}: not a regular expression: {error}") from None
    if not expression.groups:
        raise WsrError(f"label pattern {pattern!r}: needs a group that captures the label, such as '^([a-z]+)-'")
    found = {name: match.group(1) for name in names if (match := expression.search(name))}
    labels = {name: label for name, label in found.items() if label}
    _refuse(f"label pattern {pattern!r}", "finds no label in", [name for name in names if name not in labels])
    return labels


def labels_in_order(names: Sequence[str], labels: Mapping[str, str], source: str | PathLike[str]) -> list[str]:
    """Returns the labels of some models in the order of their names.

    Args:
      names: the models.
      labels: the label of each model, by name.
      source: where the labels came from, for error messages.

    Raises:
      WsrError: if a model has no label.
    """
    _refuse(source, "has no label for", [name for name in names if name not in labels])
    return [labels[name] for name in names]


def _table(path: str | PathLike[str]) -> list[tuple[int, list[str]]]:
    """Returns the non-blank lines of a CSV file with their numbers from 1; runs of white space in cells become one."""
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
