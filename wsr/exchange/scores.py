"""Scores of a store's points that were measured, kept in its folder so that whoever exports a point can tell them.

``scores.jsonl`` holds rows as ``wsr.engine.evaluate`` writes them, below their hash. It may be removed: the next
evaluation writes it again.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.store import Store
from wsr.store.results import read_sealed_rows, write_sealed_rows

Row = Mapping[str, Any]


def keep_scores(store: Store, rows: Iterable[Row]) -> None:
    """Keeps rows beside those that are there; of one point, dataset, metric and count of texts the last stays."""
    write_sealed_rows(_path(store), ({_key(row): row for row in [*_kept(store), *rows]}).values())


def scores_of(store: Store, coefficients: Mapping[str, float]) -> list[Row]:
    """Returns the rows of one point, by dataset and metric."""
    point = _point(coefficients.items())
    found = [row for row in _kept(store) if _key(row)[0] == point and row["value"] is not None]
    return sorted(found, key=lambda row: (row["dataset"], row["metric"]))


def _kept(store: Store) -> Sequence[Row]:
    if not _path(store).exists():
        return ()
    try:
        return read_sealed_rows(_path(store))
    except WsrError as error:
        remedy = f"wsr verify --store={store.path} --repair sets it aside, wsr evaluate writes it again"
        raise WsrError(f"{error}; {remedy}") from None


def _path(store: Store) -> Path:
    return store.path / "scores.jsonl"


def _key(row: Row) -> tuple[Any, ...]:
    point = _point(zip(row["members"], row["coefficients"], strict=True))
    return point, row["dataset"], row["metric"], row["n"]


def _point(pairs: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    # Coefficients are float32 in some places: what they agree in is enough.
    return tuple(sorted((name, round(coefficient, 6)) for name, coefficient in pairs if coefficient))
