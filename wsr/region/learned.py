"""Which members learned their dataset, and the region that they span."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.store import MemberRecord, Store


def learned(record: MemberRecord) -> bool:
    """Whether a member did better than chance: two standard errors above the most frequent class of its test split.

    A member that did not learn has a short task vector in no particular direction and belongs to no region. One without
    scores, which others trained, cannot be judged by them and counts as a member; ``wsr check`` looks at its weights.
    """
    if not record.metrics:
        return True
    chance, texts = record.metrics["chance"], record.metrics["test_texts"]
    # Of a share the standard error is that of coin tosses; of a correlation, whose chance is 0, it is 1 / sqrt(texts).
    spread = np.sqrt(chance * (1 - chance)) if chance > 0 else 1.0
    return bool(record.metrics["test_score"] > chance + 2 * spread / np.sqrt(texts))


def open_region(path: str | Path) -> Region:
    """Returns the region of a store's members that learned their dataset; prints which were left out.

    Args:
      path: the store, a folder or a URL.

    Raises:
      WsrError: there is no store at ``path``, or none of its members learned.
    """
    return learned_region(Store.open(path))


def learned_region(
    store: Store, records: Sequence[MemberRecord] | None = None, *, model: Model | None = None
) -> Region:
    """Returns the region of the members that learned their dataset; prints which were left out.

    Args:
      store: the population.
      records: its members that may belong to the region; None: all of them.
      model: see ``Region.from_store``.

    Raises:
      WsrError: none of the members learned.
    """
    records = store.records() if records is None else records
    names = [record.name for record in records if learned(record)]
    out = [record.name for record in records if not learned(record)]
    if out:
        print(f"left out, not better than chance: {', '.join(out)}", flush=True)
    if records and not names:
        raise WsrError(
            f"{store.path}: none of {len(records)} members did better than chance; there is no region: train longer or "
            "with more texts"
        )
    return Region.from_store(store, model, names=names)
