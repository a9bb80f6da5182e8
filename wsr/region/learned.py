"""Which members learned their dataset, and the region of those that did."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.store import MemberRecord, Store


def learned(record: MemberRecord) -> bool:
    """Returns whether a member scored better than chance on its own test split.

    The test score must exceed the score of always predicting the most frequent class by two standard errors. A member
    that did not learn has a short task vector in no particular direction and belongs to no region. Members without
    recorded scores (imported models) count as learned; ``wsr.check`` judges those by their weights.

    Args:
      record: the member's record in its store.
    """
    if not record.metrics:
        return True
    chance, texts = record.metrics["chance"], record.metrics["test_texts"]
    # Standard error: binomial for a share; 1 / sqrt(texts) for a correlation, whose chance level is 0.
    spread = np.sqrt(chance * (1 - chance)) if chance > 0 else 1.0
    return bool(record.metrics["test_score"] > chance + 2 * spread / np.sqrt(texts))


def open_region(path: str | Path) -> Region:
    """Opens a store and returns the region of the members that learned their dataset; prints the names of the others.

    Args:
      path: the store, a folder or a URL.

    Raises:
      WsrError: if there is no store at ``path``, or none of its members learned.

    Example:
      >>> import tempfile, wsr
      >>> folder, base = tempfile.mkdtemp(), wsr.load("tiny")
      >>> fine_tuned = base.with_params(wsr.made_up_region(1).members[0].load())
      >>> wsr.export(fine_tuned, folder + "/theirs")
      >>> store = wsr.Store.create_for(folder + "/store", base)
      >>> record = wsr.import_(folder + "/theirs", store)
      >>> wsr.open(folder + "/store").names
      ('theirs',)
    """
    return learned_region(Store.open(path))


def learned_region(
    store: Store, records: Sequence[MemberRecord] | None = None, *, model: Model | None = None
) -> Region:
    """Returns the region of the members that learned their dataset; prints the names of the others.

    Args:
      store: the store of the population.
      records: the members to choose from; None: all members of the store.
      model: the store's architecture if it is built already, see ``Region.from_store``.

    Raises:
      WsrError: if none of the members learned.
    """
    records = store.records() if records is None else records
    names = [record.name for record in records if learned(record)]
    out = [record.name for record in records if not learned(record)]
    if out:
        print(f"left out, not better than chance: {', '.join(out)}", flush=True)
    if records and not names:
        raise WsrError(
            f"{store.path}: none of {len(records)} members did better than chance, so there is no region; train for "
            "more steps or on more texts"
        )
    return Region.from_store(store, model, names=names)
