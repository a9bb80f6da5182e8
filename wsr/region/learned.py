"""Which members learned their dataset, and the region of those that did."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsr.data.metrics import REGRESSION_METRICS
from wsr.errors import WsrError
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.store import MemberRecord, Store

LEVEL = 0.05
"""Level of the test that a member is better than chance."""


def learned(record: MemberRecord) -> bool:
    """Returns whether a member scored better than chance on its own test split, see ``better_than_chance``.

    A member that did not learn has a short task vector in no particular direction and belongs to no region. Members
    without recorded scores (imported models) count as learned; ``wsr.check`` judges those by their weights.

    Args:
      record: the member's record in its store.
    """
    if not record.metrics:
        return True
    score, chance, texts = (record.metrics[name] for name in ("test_score", "chance", "test_texts"))
    return better_than_chance(score, chance, int(texts), str(record.hyperparameters.get("metric", "accuracy")))


def better_than_chance(score: float, chance: float, texts: int, metric: str) -> bool:
    """Returns whether a score is better than chance, the score of always predicting the most frequent class.

    An accuracy is better if the exact one-sided binomial test says so at the level 0.05; another score must exceed
    chance by two standard errors. Every text right is better, whatever the test says: no constant prediction is.

    Args:
      score: the score on the test texts; one that is not finite is not better.
      chance: the score of a constant prediction; 0 for correlations.
      texts: number of test texts.
      metric: name of the metric.

    Example:
      >>> from wsr.region.learned import better_than_chance
      >>> better_than_chance(0.60, 0.5, 60, "accuracy"), better_than_chance(0.62, 0.5, 60, "accuracy")
      (False, True)
    """
    from scipy.stats import binomtest

    if not np.isfinite(score):
        return False
    # A correlation of 1 is no such sign: that of any two texts is 1 or -1.
    if metric not in REGRESSION_METRICS and score > 1 - 1e-9 and chance < 1:
        return True
    if chance > 0 and metric == "accuracy":
        return bool(binomtest(round(score * texts), texts, chance, alternative="greater").pvalue < LEVEL)
    # Standard error: binomial for a share; 1 / sqrt(texts) for a correlation, whose chance level is 0.
    spread = np.sqrt(chance * (1 - chance)) if chance > 0 else 1.0
    return bool(score > chance + 2 * spread / np.sqrt(texts))


def open_region(path: str | Path) -> Region:
    """Opens a store and returns the region of the members that learned; prints which members it leaves out, and why.

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
    """Returns the region of the members that learned; prints which members it leaves out, and why.

    Args:
      store: the store of the population.
      records: the members to choose from; None: all members of the store.
      model: the store's architecture if it is built already, see ``Region.from_store``.

    Raises:
      WsrError: if none of the members learned.
    """
    return Region.from_store(store, model, names=names_of_region(store, records))


def names_of_region(store: Store, records: Sequence[MemberRecord] | None = None) -> list[str]:
    """Returns the names of the members that learned; prints which members it leaves out, and why.

    Args:
      store: the store of the population.
      records: the members to choose from; None: all members of the store.

    Raises:
      WsrError: if there are members, and none of them learned.
    """
    records = store.records() if records is None else records
    names: list[str] = []
    unmoved: list[str] = []
    failed: list[str] = []
    for record in records:
        belongs_to = unmoved if record.mode == "head" else names if learned(record) else failed
        belongs_to.append(record.name)
    if unmoved:
        print(f"left out, only a head was trained, so their weights are the base's: {', '.join(unmoved)}", flush=True)
    if failed:
        print(f"left out, not better than chance: {', '.join(failed)}", flush=True)
    if unmoved and not names:
        raise WsrError(
            f"{store.path}: none of {len(records)} members left the base, so there is no region; train members with "
            "--mode=full, bitfit or lora"
        )
    if failed and not names:
        raise WsrError(
            f"{store.path}: none of {len(records)} members did better than chance, so there is no region; train for "
            "more steps or on more texts"
        )
    return names
