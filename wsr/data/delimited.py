"""Reads CSV and TSV text: says which delimiter and quoting it assumed, and refuses what can be read in two ways."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from wsr.data.records import Records
from wsr.errors import WsrError

DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "vertical bars"}
Rows: TypeAlias = tuple[list[str], list[list[str]], list[int]]
"""The header, the cells of each row, and the line on which each row starts."""


@dataclass(frozen=True)
class Dialect:
    """How cells are separated; what is None is found in the file.

    Raises:
      WsrError: if the delimiter is not one character.
    """

    delimiter: str | None = None
    quoting: bool | None = None
    """Whether double quotes enclose cells; otherwise they are characters like others."""
    surplus: str | None = None
    """Column of texts that contain the delimiter: it takes the surplus cells of a row that has too many."""

    def __post_init__(self) -> None:
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise WsrError(f"delimiter {self.delimiter!r}: expected one character, such as ; or a tab")


def read_delimited(path: Path, content: str, dialect: Dialect) -> Records:
    """Returns the records of the text of a CSV or TSV file. The first row names the columns.

    Args:
      path: the file; its ending says which delimiter is usual.
      content: its text.
      dialect: what the user says about it.

    Raises:
      WsrError: naming the file and the line.
    """
    notes = []
    skipped = 0
    declared = re.match(r"sep=(.)\r?\n", content)  # a first line that Excel writes and reads
    if declared:
        content, skipped = content[declared.end() :], 1
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    delimiter = dialect.delimiter or (declared[1] if declared else _delimiter(content, usual))
    if delimiter != usual and not dialect.delimiter:
        notes.append(f"{path}: read as cells separated by {DELIMITERS.get(delimiter, repr(delimiter))}")

    def read(quoted: bool) -> Rows:
        return _rows(path, content, delimiter, quoted, skipped, dialect.surplus)

    if dialect.quoting is not None or '"' not in content:
        header, cells, rows = read(dialect.quoting is not False)
    else:
        header, cells, rows, assumed = _by_cells(path, read, usual)
        notes += assumed
    joined = sum(len(row) > len(header) for row in cells)
    if joined:
        notes.append(f"{path}: column {dialect.surplus!r} of {joined} rows contains the delimiter {delimiter!r}")
        assert dialect.surplus is not None
        cells = [_without_surplus(row, header, dialect.surplus, delimiter) for row in cells]
    columns = zip(*cells, strict=True) if cells else [()] * len(header)
    return Records(str(path), dict(zip(header, columns, strict=True)), rows, notes=tuple(notes))


def _delimiter(content: str, usual: str) -> str:
    """Returns the delimiter that the header shows; ``usual`` if the header has that one, none or several others."""
    header = content.lstrip("\r\n").splitlines()[:1]
    if not header or usual in header[0]:
        return usual
    found = [one for one in DELIMITERS if one in header[0]]
    return found[0] if len(found) == 1 else usual


def _by_cells(
    path: Path, read: Callable[[bool], Rows], usual: str
) -> tuple[list[str], list[list[str]], list[int], list[str]]:
    """Reads with and without quotes and takes the reading in which every row has as many cells as the header."""
    try:
        plain: Rows | None = read(False)
    except WsrError:
        plain = None
    characters = [f"{path}: double quotes are read as characters (--quoting=yes: they enclose cells)"]
    try:
        quoted = read(True)
    except WsrError as error:
        if plain is None:
            raise
        if usual == "\t":
            return *plain, characters
        raise WsrError(
            f"{error}; write a quote inside a cell twice, or read quotes as characters with --quoting=no"
        ) from None
    if plain is None or plain == quoted:
        return *quoted, []
    enclosed = any(len(cell) > 1 and cell[0] == cell[-1] == '"' for row in [plain[0], *plain[1]] for cell in row)
    if len(plain[1]) != len(quoted[1]) and not enclosed:
        if usual == "\t":
            return *plain, characters
        line = next(line for line, other in zip(plain[2], [*quoted[2], 0], strict=False) if line != other) - 1
        raise WsrError(
            f"{path}, line {line}: a double quote opens a cell that ends on a later line, but every line would be a "
            "row if quotes were characters; say --quoting=yes if quotes enclose cells, --quoting=no if they do not"
        )
    told = f"{path}: double quotes enclose cells (--quoting=no: they are characters)"
    return *quoted, [told] if usual == "\t" else []


def _without_surplus(row: list[str], header: list[str], column: str, delimiter: str) -> list[str]:
    """Returns a row with the surplus cells joined to the cell of ``column``."""
    start, more = header.index(column), len(row) - len(header)
    return [*row[:start], delimiter.join(row[start : start + more + 1]), *row[start + more + 1 :]]


def _rows(path: Path, content: str, delimiter: str, quoted: bool, skipped: int, surplus: str | None) -> Rows:
    header: list[str] | None = None
    cells: list[list[str]] = []
    rows: list[int] = []
    start = 1 + skipped
    csv.field_size_limit(2**31 - 1)
    # newline="": the reader must see the line ends inside quotes as they are.
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        strict=True,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        skipinitialspace=f"{delimiter} " in content.partition("\n")[0],
    )
    try:
        for record in reader:
            if header is None:
                header = _header(path, record)
            elif record:
                if len(record) < len(header) or (len(record) > len(header) and surplus not in header):
                    way = (
                        "if another character separates the cells, name it with --delimiter"
                        if len(record) < len(header)
                        else f"put double quotes around a cell that contains {delimiter!r}, or name another character "
                        "that separates the cells with --delimiter"
                    )
                    raise WsrError(
                        f"{path}, line {start}: expected {len(header)} cells ({', '.join(header)}), found "
                        f"{len(record)}; {way}"
                    )
                cells.append(record)
                rows.append(start)
            start = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise WsrError(f"{path}, line {start}: {error}") from None
    if header is None:
        raise WsrError(f"{path}: the file is empty; its first line must name the columns")
    return header, cells, rows


def _header(path: Path, names: list[str]) -> list[str]:
    """Returns the names of the columns; those without a name are called by their number."""
    named = [name.strip() or f"column {number}" for number, name in enumerate(names, start=1)]
    refuse_repeated(f"{path}, line 1", named)
    return named


def refuse_repeated(where: str, names: list[str]) -> None:
    """Raises WsrError if two columns have one name."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise WsrError(f"{where}: column {repeated[0]!r} occurs more than once; rename one of them")
