"""Reads CSV, TSV, JSONL, Parquet and text files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from wsr.data.decompressed import Allowance
from wsr.data.delimited import Dialect, read_delimited, refuse_repeated
from wsr.data.records import ROLES, Records
from wsr.data.roles import roles_of
from wsr.errors import WsrError
from wsr.runtime import strict_json

ROWS_AT_ONCE = 1024
POINTER_BYTES = 8
CELL_BYTES = 64
"""Memory of a short Python string beside its characters."""
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")

_OTHER_CONTENT = {
    b"\x1f\x8b": "gzip compression; unpack it",
    b"BZh": "bzip2 compression; unpack it",
    b"\xfd7zXZ": "xz compression; unpack it",
    b"(\xb5/\xfd": "zstd compression; unpack it",
    b"PK\x03\x04": "a zip file, such as an Excel workbook; unpack it or save it as CSV",
    b"\xff\xfe": "UTF-16; convert it",
    b"\xfe\xff": "UTF-16; convert it",
}
"""What the first bytes of a file say."""


Place: TypeAlias = str | Path | tuple[Path, ...]
"""A file, or several that are one table."""


@dataclass(frozen=True)
class Files:
    """A dataset in one file per role, or in several files that follow one another.

    The first row of a CSV or TSV file names the columns; see ``wsr.data.delimited`` for its cells. A ``.txt`` file has
    one column, ``text``, with one row per non-empty line.
    """

    train: Place
    validation: Place | None = None
    test: Place | None = None
    dialect: Dialect = Dialect()  # noqa: RUF009 frozen, so one default serves all
    """How the cells of CSV and TSV files are separated."""
    notes: tuple[str, ...] = ()
    """Which files of a folder are read, where their names do not say it."""

    def read(self) -> Mapping[str, Records]:
        """Returns the records of each file, by role.

        Raises:
          WsrError: naming the file and the line.
        """
        places = {role: getattr(self, role) for role in ROLES}
        found = {role: self._records(place) for role, place in places.items() if place is not None}
        return found | {"train": replace(found["train"], notes=self.notes + found["train"].notes)}

    def _records(self, place: Place) -> Records:
        if not isinstance(place, tuple):
            return read_file(Path(place), self.dialect)
        return joined([read_file(path, self.dialect) for path in place])


@dataclass(frozen=True)
class Documents:
    """A folder of ``.txt`` files, each one text without a label."""

    folder: str | Path

    def read(self) -> Mapping[str, Records]:
        """Returns the texts in the order of the file names.

        Raises:
          WsrError: naming a file that is not UTF-8.
        """
        paths = sorted(Path(self.folder).glob("*.txt"))
        texts = [read_document(path) for path in paths]
        return {"train": Records(str(self.folder), {"text": texts}, range(1, len(texts) + 1), unit="file")}


def find_files(path: Path) -> Files | None:
    """Returns the data file ``path``, or the files of a folder that are named train, validation and test.

    Capitals do not count, and a name may have more words (``reviews_dev.csv``); see ``wsr.data.roles``. None if no file
    is named like a training split.

    Raises:
      WsrError: if several files have one role.
    """
    if path.suffix.lower() in SUFFIXES and not path.is_dir():
        return Files(path)
    if not path.is_dir() or _has_card(path):
        return None
    files = _data_files(path)
    found, left = roles_of(dict.fromkeys(file.stem for file in files), str(path), of_files=True)
    if "train" not in found:
        return None
    unread = [file.name for file in files if file.stem in left and file.suffix.lower() != ".txt"]
    notes = (f"{path}: not read, because their names say no split: {', '.join(unread)}",) if unread else ()
    return _of_roles(path, found, files, notes)


def find_tables(path: Path) -> Files | None:
    """Returns the data files of a folder in which no name says the split: all of them are one table.

    Text files beside tables (LICENSE.txt) are not read. The files may lie in a subfolder ``data``. None if there are no
    tables, or of several kinds.
    """
    if _has_card(path):
        return None
    files = [file for file in _data_files(path) if file.suffix.lower() != ".txt" and file.stem != "metadata"]
    if not files:
        inner = path / "data"
        return (find_files(inner) or find_tables(inner)) if inner.is_dir() else None
    if len({file.suffix.lower() for file in files}) > 1:
        return None
    found, left = roles_of(dict.fromkeys(file.stem for file in files), str(path), of_files=True)
    if not left:
        return None
    read = ", ".join(file.name for file in files if file.stem in left)
    told = "one table" if len(left) > 1 else "train" if found else ""
    notes = (f"{path}: {read} read as {told}",) * bool(told)
    return _of_roles(path, {**found, "train": left}, files, notes)


def joined(parts: Sequence[Records]) -> Records:
    """Returns the records of several tables as one.

    Raises:
      WsrError: if their columns differ.
    """
    if len(parts) == 1:
        return parts[0]
    for part in parts[1:]:
        if set(part.columns) != set(parts[0].columns) or part.label_names != parts[0].label_names:
            raise WsrError(
                f"{part.origin}: expected the columns of {parts[0].origin}, {', '.join(parts[0].columns)}; found "
                f"{', '.join(part.columns)}"
            )
    columns = {name: [cell for part in parts for cell in part.columns[name]] for name in parts[0].columns}
    rows = [row for part in parts for row in part.rows]
    origin = f"{parts[0].origin} to {Path(parts[-1].origin).name}"
    notes = tuple(note for part in parts for note in part.notes)
    return Records(origin, columns, rows, parts[0].unit, parts[0].label_names, notes)


def _of_roles(path: Path, found: Mapping[str, tuple[str, ...]], files: Sequence[Path], notes: tuple[str, ...]) -> Files:
    places: dict[str, Any] = {}
    for role, names in found.items():
        chosen = tuple(file for file in files if file.stem in names)
        if len(chosen) > len(names):
            listed = ", ".join(file.name for file in chosen)
            raise WsrError(f"{path}: found several files for {role}: {listed}; keep one")
        places[role] = chosen[0] if len(chosen) == 1 else chosen
    return Files(**places, notes=notes)


def _data_files(path: Path) -> list[Path]:
    return sorted(
        file
        for file in path.iterdir()
        if file.is_file() and file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def _has_card(path: Path) -> bool:
    """Returns whether a folder has a card of the hub, which may say how its files are to be read."""
    card = path / "README.md"
    try:
        return card.is_file() and card.read_bytes()[:4] == b"---\n"
    except OSError:
        return False


def read_file(path: Path, dialect: Dialect = Dialect()) -> Records:  # noqa: B008 frozen
    """Returns the records of one file; its suffix says how it is read."""
    readers: dict[str, Callable[[Path], Records]] = {
        ".csv": partial(_read_csv, dialect=dialect),
        ".tsv": partial(_read_csv, dialect=dialect),
        ".jsonl": _read_jsonl,
        ".parquet": _read_parquet,
        ".txt": _read_lines,
    }
    if path.suffix.lower() not in readers:
        raise WsrError(f"{path}: expected a file ending in {', '.join(SUFFIXES)}")
    try:
        return readers[path.suffix.lower()](path)
    except OSError as error:
        raise WsrError(f"{path}: cannot be read: {error.strerror or error}") from None


def read_text(path: Path) -> str:
    """Returns the text of a UTF-8 file.

    Raises:
      WsrError: naming the line of the first byte that is not UTF-8.
    """
    content = path.read_bytes()
    for start, what in _OTHER_CONTENT.items():
        if content.startswith(start):
            raise WsrError(f"{path}: expected UTF-8 text, found {what}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise WsrError(
            f"{path}, line {line}: byte {content[error.start]:#04x} is not UTF-8; convert the file to UTF-8"
        ) from None


def read_document(path: Path) -> str:
    """Returns the text of a UTF-8 file that is one text; line ends of Windows become those of Unix."""
    return read_text(path).replace("\r\n", "\n")


def _read_csv(path: Path, dialect: Dialect) -> Records:
    return read_delimited(path, read_text(path), dialect)


def _read_jsonl(path: Path) -> Records:
    objects: list[dict[str, Any]] = []
    rows: list[int] = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = strict_json.parse(line, unique_keys=True)
        except ValueError as error:
            raise WsrError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(value, dict):
            raise WsrError(f"{path}, line {number}: expected one JSON object per line, found {type(value).__name__}")
        objects.append(value)
        rows.append(number)
    names = dict.fromkeys(name for value in objects for name in value)
    Allowance(path).take(len(names) * len(objects) * POINTER_BYTES)  # each line may have keys of its own
    return Records(str(path), {name: [value.get(name) for value in objects] for name in names}, rows)


def _read_lines(path: Path) -> Records:
    lines = [(number, line) for number, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    return Records(str(path), {"text": [line.removesuffix("\r") for _, line in lines]}, [number for number, _ in lines])


def _read_parquet(path: Path) -> Records:
    import pyarrow
    import pyarrow.parquet

    allowance, batches = Allowance(path), []
    try:
        schema = pyarrow.parquet.read_schema(path)
        # Repeated texts stay one text each until their total length is known to fit.
        refuse_repeated(str(path), schema.names)
        texts = [field.name for field in schema if _is_text(field.type)]
        with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as file:
            groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
            # A file may lie about its sizes, so they are checked again while it is read.
            Allowance(path).take(sum(group.total_byte_size for group in groups))
            for batch in file.iter_batches(ROWS_AT_ONCE):
                allowance.take(sum(map(_bytes_in_python, batch.columns)))
                batches.append(batch)
        columns = pyarrow.Table.from_batches(batches, batches[0].schema if batches else schema).to_pydict()
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise WsrError(f"{path}: not a readable Parquet file: {told}") from None
    count = len(next(iter(columns.values()))) if columns else 0
    return Records(str(path), columns, range(1, count + 1), unit="row", label_names=_declared_names(schema))


def _declared_names(schema: Any) -> dict[str, tuple[str, ...]]:
    """Returns the names of the classes that ``Dataset.to_parquet`` of ``datasets`` keeps in a file, by column."""
    try:
        about = strict_json.parse((schema.metadata or {})[b"huggingface"].decode())
        features = about["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return any(is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_binary))


def _bytes_in_python(column: Any) -> int:
    import pyarrow
    import pyarrow.compute

    size = column.nbytes + CELL_BYTES * len(column)
    if isinstance(column, pyarrow.DictionaryArray):
        lengths = pyarrow.compute.binary_length(column.dictionary.cast(pyarrow.large_binary(), safe=False))
        size += pyarrow.compute.sum(lengths.take(column.indices)).as_py() or 0
    return int(size)
