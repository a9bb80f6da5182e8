"""The members of a store as rows: how each was made, and how well it learned."""

from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.region.learned import learned
from wsr.store import MemberRecord, Store


def ls(path: str | Path) -> list[dict[str, Any]]:
    """Returns one row per member of a store: how it was made, its score, its size on disk.

    Args:
      path: the store, a folder or a URL.

    Raises:
      WsrError: if there is no store at ``path``, or a member is damaged (see ``wsr.verify``).

    Example:
      >>> import tempfile, wsr
      >>> store = wsr.Store.create_for(tempfile.mkdtemp() + "/store", wsr.load("tiny"))
      >>> wsr.ls(store.path)
      []
    """
    rows, damaged = listed(Store.open(path))
    if damaged:
        raise WsrError(f"{path}: damaged: {'; '.join(damaged)}")
    return rows


def listed(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns one row per readable member of a store, and one error message per damaged member."""
    rows, damaged = [], []
    for name in store.names():
        try:
            record, (kept, size) = store.record(name), store.kept_as(name)
        except WsrError as error:
            damaged.append(str(error))
            continue
        rows.append(
            {
                "member": record.name,
                "dataset": record.dataset,
                "family": record.family,
                "mode": record.mode,
                "seed": record.seed,
                "examples": record.size,
                "score": record.metrics.get("test_score"),
                "chance": record.metrics.get("chance"),
                "learned": learned(record) if record.metrics else None,
                "kept as": kept,
                "MB": size / 1e6,
                "made on": _made_on(record),
            }
        )
    return rows, damaged


def _made_on(record: MemberRecord) -> str:
    if "source" in record.hyperparameters:  # an imported model
        return str(record.hyperparameters.get("source"))
    return f"{record.device_kind}, {record.threads} threads, jaxlib {record.jaxlib}, group of {record.group_size}"
