"""What every source yields: columns of raw cells that know where they came from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

ROLES = ("train", "validation", "test")
"""What a source may hold. A source without ``test`` has its test split cut out of ``train``."""


@dataclass(frozen=True)
class Records:
    """The rows of one file, or of one split of a hub's dataset."""

    origin: str
    """File or split, as an error names it."""
    columns: Mapping[str, Sequence[Any]]
    rows: Sequence[int]
    """For each record the 1-based number of its line or row in ``origin``."""
    unit: str = "line"
    label_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Column -> names of its classes 0, 1, ... where the source declares them."""
    notes: tuple[str, ...] = ()
    """What the source left out, with counts."""

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, record: int, column: str | None = None) -> str:
        """Returns the origin, row and column of a record as the start of an error line."""
        place = f"{self.origin}, {self.unit} {self.rows[record]}"
        return place if column is None else f"{place}, column {column!r}"


@runtime_checkable
class Source(Protocol):
    """Where records come from: packaged corpora, local files, the Hugging Face hub, TensorFlow Datasets."""

    def read(self) -> Mapping[str, Records]:
        """Returns records by role: ``train`` always, ``validation`` and ``test`` where there are any."""
        ...
