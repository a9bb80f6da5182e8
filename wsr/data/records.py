"""Raw cells of a source, by column, with their origin for error messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

ROLES = ("train", "validation", "test")
"""The parts of a source. If there is no ``test``, the test split is cut out of ``train``."""


@dataclass(frozen=True)
class Records:
    """The rows of one file, or of one split of a hub dataset."""

    origin: str
    """The file or split, for error messages."""
    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[int]
    """The line or row of each record in ``origin``, counted from 1."""
    unit: str = "line"
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the classes 0, 1, ... of a column, if the source declares them."""
    notes: tuple[str, ...] = ()
    """Which rows the source left out, with counts."""

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, record: int, column: str | None = None) -> str:
        """Returns the origin, row and column of a record, for the start of an error message."""
        place = f"{self.origin}, {self.unit} {self.rows[record]}"
        return place if column is None else f"{place}, column {column!r}"


@runtime_checkable
class Source(Protocol):
    """A source of records: a packaged corpus, local files, the Hugging Face hub, TensorFlow Datasets."""

    def read(self) -> Mapping[str, Records]:
        """Returns the records by role: always ``train``, and ``validation`` and ``test`` if the source has them."""
        ...
