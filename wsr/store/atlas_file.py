"""The file of an atlas: one row per model, in a SQLite database that several processes may write at once."""

import contextlib
import datetime
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from wsr.errors import WsrError

NAME = "atlas.sqlite"
FORMAT = 1
_WAIT = 60.0  # seconds that a writer waits for another
_TOGETHER = 4096  # rows in memory at a time
_COLUMNS = "name, source, dataset, sha256, length, note, added"
_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (key TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS models (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, source TEXT NOT NULL, "
    "dataset TEXT NOT NULL, sha256 TEXT NOT NULL, length REAL NOT NULL, note TEXT NOT NULL, "
    "added TEXT NOT NULL, direction BLOB NOT NULL)",
    "CREATE INDEX IF NOT EXISTS by_sha256 ON models (sha256)",
)
_KIN = (
    "CREATE TABLE IF NOT EXISTS kin (one TEXT NOT NULL, other TEXT NOT NULL, word TEXT NOT NULL, "
    "PRIMARY KEY (one, other))"
)


@dataclass(frozen=True)
class AtlasEntry:
    """What an atlas knows of a model beside its sketch."""

    name: str
    source: str
    """Where the model was read: a folder, a hub name, or a member of a store."""
    dataset: str
    """Dataset on which it was fine-tuned; "unknown" if nobody said it."""
    sha256: str
    """Hash of its sketch; models with equal weights have equal hashes."""
    length: float
    """Length of its task vector."""
    note: str = ""
    """What was changed when it was read."""
    added: str = ""
    """When it was added, in UTC."""


class Near(NamedTuple):
    """A model of the atlas and its estimated cosine with another model."""

    entry: AtlasEntry
    cosine: float


class AtlasFile:
    """Directions of task vectors as sketches in half precision, with an entry for each model.

    A sketch is divided by its length before it is rounded, so that float16 keeps each of its numbers to 0.05 %. Adding
    models is one transaction: it happens whole or not at all, and processes wait for each other.

    Args:
      path: the file; it is created if needed.
      base_sha256: hash of the base of all models.
      size: numbers per sketch; None: that of the file, or ``SIZE`` for a new one.
      seed: seed of the sketches.

    Raises:
      WsrError: if the file is not an atlas, or one of another base, size, seed or format.
    """

    SIZE = 4096
    """Numbers per sketch of a new file: 8 KiB per model; the standard error of a cosine near 0 is 1 / 64."""

    def __init__(self, path: Path, base_sha256: str, *, size: int | None = None, seed: int = 0):
        self.path = path
        wanted = {"format": str(FORMAT), "base_sha256": base_sha256, "seed": str(seed)}
        try:
            found = self._about() or self._create({**wanted, "size": str(size or self.SIZE)})
        except sqlite3.DatabaseError as error:
            raise WsrError(f"{path}: not an atlas, or damaged ({error}); delete it and add the models again") from error
        if size is not None:
            wanted["size"] = str(size)
        other = [
            f"{name} is {found.get(name)} there and {own} here"
            for name, own in wanted.items()
            if found.get(name) != own
        ]
        if other:
            raise WsrError(f"{path}: an atlas of other sketches: {'; '.join(other)}")
        self.size, self.seed = int(found["size"]), seed

    def __len__(self) -> int:
        with self._open() as database:
            return int(database.execute("SELECT COUNT(*) FROM models").fetchone()[0])

    def find(self, name: str) -> AtlasEntry | None:
        """Returns the model of a name, or None."""
        with self._open() as database:
            row = database.execute(f"SELECT {_COLUMNS} FROM models WHERE name = ?", (name,)).fetchone()
        return AtlasEntry(*row) if row else None

    def add(self, entry: AtlasEntry, sketch: Float32[np.ndarray, " size"]) -> bool:
        """Adds a model, and returns whether it is new; one with the same name and sketch stays as it is.

        Args:
          entry: the model; ``added`` is filled in.
          sketch: the sketch of its task vector.

        Raises:
          WsrError: if another model has the name.
        """
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        (direction,) = directions(sketch[None])
        values = (entry.name, entry.source, entry.dataset, entry.sha256, entry.length, entry.note, now)
        with self._open(write=True) as database:
            known = database.execute("SELECT sha256 FROM models WHERE name = ?", (entry.name,)).fetchone()
            if known and known[0] != entry.sha256:
                raise WsrError(f"{self.path}: another model is called {entry.name!r}; give this one another name")
            if not known:
                database.execute(
                    f"INSERT INTO models ({_COLUMNS}, direction) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (*values, direction.astype("<f2").tobytes()),
                )
        return not known

    def entries(self) -> list[AtlasEntry]:
        """Returns all models in the order in which they were added."""
        with self._open() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM models ORDER BY number")
            return [AtlasEntry(*row) for row in rows]

    def same_as(self, sha256: str) -> list[AtlasEntry]:
        """Returns the models whose sketch has this hash."""
        with self._open() as database:
            rows = database.execute(f"SELECT {_COLUMNS} FROM models WHERE sha256 = ? ORDER BY number", (sha256,))
            return [AtlasEntry(*row) for row in rows]

    def keep_kin(self, kin: Mapping[tuple[str, str], str]) -> None:
        """Keeps what models are to one another, in place of what was known of them.

        Args:
          kin: for the hashes of two sketches, what the second model is to the first.
        """
        with self._open(write=True) as database:
            database.execute(_KIN)
            database.executemany("INSERT OR REPLACE INTO kin VALUES (?, ?, ?)", [(*own, kin[own]) for own in kin])

    def kin(self) -> dict[tuple[str, str], str]:
        """Returns what ``keep_kin`` kept."""
        with self._open() as database:
            # Files of earlier versions, and those of which no lineage was asked for, have no such table.
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'kin'").fetchone():
                return {}
            return {(one, other): word for one, other, word in database.execute("SELECT one, other, word FROM kin")}

    def directions(self) -> Iterator[tuple[Int64[np.ndarray, " rows"], Float32[np.ndarray, "rows size"]]]:
        """Yields the numbers of some models and the directions of their sketches, in the order of ``entries``."""
        last = -1
        while True:
            with self._open() as database:
                rows = database.execute(
                    "SELECT number, direction FROM models WHERE number > ? ORDER BY number LIMIT ?", (last, _TOGETHER)
                ).fetchall()
            if not rows:
                return
            numbers = np.array([number for number, _ in rows])
            content = b"".join(direction for _, direction in rows)
            yield numbers, np.frombuffer(content, "<f2").astype(np.float32).reshape(len(rows), self.size)
            last = int(numbers[-1])

    def nearest(self, sketch: Float32[np.ndarray, " size"], count: int) -> list[Near]:
        """Returns the models whose task vectors have the highest estimated cosine with that of a sketch.

        Args:
          sketch: the sketch of a task vector.
          count: number of models to return.
        """
        (wanted,) = directions(sketch[None])
        numbers, cosines = np.zeros(0, np.int64), np.zeros(0, np.float32)
        for own, rows in self.directions():
            numbers, cosines = np.append(numbers, own), np.append(cosines, rows @ wanted)
            best = np.argsort(-cosines, kind="stable")[:count]
            numbers, cosines = numbers[best], cosines[best]
        return [Near(entry, float(cosine)) for entry, cosine in zip(self._numbered(numbers), cosines, strict=True)]

    def _numbered(self, numbers: Int64[np.ndarray, " models"]) -> list[AtlasEntry]:
        with self._open() as database:
            query = f"SELECT {_COLUMNS} FROM models WHERE number = ?"
            return [AtlasEntry(*database.execute(query, (int(number),)).fetchone()) for number in numbers]

    def _about(self) -> dict[str, str]:
        if not self.path.is_file() or not self.path.stat().st_size:
            return {}
        with self._open() as database:
            return dict(database.execute("SELECT key, value FROM about"))

    def _create(self, about: Mapping[str, str]) -> dict[str, str]:
        """Creates the tables; if another process was faster, its facts stay."""
        with self._open(write=True) as database:
            for table in _TABLES:
                database.execute(table)
            database.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", list(about.items()))
        return self._about()

    @contextlib.contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Opens the database for one transaction, which is undone if it raises."""
        database = sqlite3.connect(self.path, timeout=_WAIT, isolation_level=None)
        try:
            # IMMEDIATE: what is read before a write stays true until the end.
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield database
            except BaseException:
                database.execute("ROLLBACK")
                raise
            database.execute("COMMIT")
        finally:
            database.close()


def standard_error(cosine: float, size: int) -> float:
    """Returns the standard error of a cosine estimated from sketches.

    It is ``(1 - cosine^2) / sqrt(size)``, that of the correlation of ``size`` normal pairs.

    Args:
      cosine: the cosine.
      size: numbers per sketch.
    """
    return (1 - min(cosine * cosine, 1.0)) / float(np.sqrt(size))


def directions(sketches: Float32[np.ndarray, "models size"]) -> Float32[np.ndarray, "models size"]:
    """Returns sketches divided by their lengths; one of length 0 stays 0."""
    lengths: Float64[np.ndarray, " models"] = np.linalg.norm(sketches.astype(np.float64), axis=1)
    return (sketches / np.where(lengths > 0, lengths, 1.0)[:, None]).astype(np.float32)
