"""Measured scores of a store's points, saved in the store so that an export can quote them.

``scores.jsonl`` holds rows as ``wsr.engine.evaluate`` writes them, preceded by their hash. It may be deleted; the next
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
    """Saves rows; a new row replaces an old one with the same point, dataset, metric and number of texts.

    Args:
      store: the store.
      rows: rows as ``Evaluation.rows`` returns them.
    """
    write_sealed_rows(_path(store), ({_key(row): row for row in [*_kept(store), *rows]}).values())


def scores_of(store: Store, coefficients: Mapping[str, float]) -> list[Row]:
    """Returns the saved rows of one point, sorted by dataset and metric.

    Args:
      store: the store.
      coefficients: coefficients of the point, by member.
    """
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
    # Some coefficients passed through float32; six decimals identify them.
    return tuple(sorted((name, round(coefficient, 6)) for name, coefficient in pairs if coefficient))
