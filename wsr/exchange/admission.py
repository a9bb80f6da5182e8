"""How a model from outside becomes a member of a store: its name, its dataset, its record."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsr.data.table import find, registered
from wsr.errors import WsrError
from wsr.exchange.member import Incoming
from wsr.store import MemberRecord, Store
from wsr.store.record import check_name

IMPORTED = "imported"
"""The ``mode`` of members that others trained."""
RESERVED = ("base", "centroid")
"""Points of a store that are no members."""


def names_of(paths: Sequence[str]) -> list[str]:
    """Returns a member's name for each folder or hub name: its last part, with those before it where two are alike."""
    parts = [[_safe(part) for part in Path(path).parts if _safe(part)] or ["model"] for path in paths]
    used = [1] * len(paths)
    while True:
        names = ["-".join(own[-count:]) for own, count in zip(parts, used, strict=True)]
        # The checkpoints that a training loop leaves are all called alike: what it trained is the folder's name.
        poor = {number for number, name in enumerate(names) if re.fullmatch(r"checkpoint-\d+", name)}
        poor |= {number for number, name in enumerate(names) if Counter(names)[name] > 1}
        more = [number for number in poor if used[number] < len(parts[number])]
        if not more:
            return names
        for number in more:
            used[number] += 1


def dataset_of(name: str) -> str:
    """Returns the longest name of a registered dataset that is a part of ``name``, or else ``name``."""
    words = f"_{_words(name)}_"
    found = [dataset for dataset in registered() if f"_{_words(dataset)}_" in words]
    return max(found, key=len, default=name)


def family_of(dataset: str) -> str:
    """Returns the family of a registered dataset, or "unknown"."""
    return find(dataset).family if dataset in registered() else "unknown"


def admit(
    store: Store, incoming: Incoming, *, name: str, dataset: str, family: str | None, source: str
) -> tuple[bool, tuple[str, ...]]:
    """Stores a model as the member ``name``; one that is there with the same content stays as it is.

    Returns:
        Whether it is new, and what else a reader should know.

    Raises:
        WsrError: another member has the name; the model cannot be stored.
    """
    check_name(name)
    if name in RESERVED:
        raise WsrError(f"member name {name!r} stands for another point of a store; choose another with --names")
    record = MemberRecord(
        name=name,
        dataset=dataset,
        family=family or family_of(dataset),
        seed=0,
        mode=IMPORTED,
        size=0,
        hyperparameters={"source": source, **incoming.about},
        metrics={},
        jaxlib="",
        device_kind="",
        threads=0,
        group_size=1,
    )
    there = store.record(name) if name in store else None
    if there is not None:  # the same content from another place is the same member
        record = replace(record, hyperparameters=there.hyperparameters)
    try:
        if incoming.low_rank is not None:
            saved = store.save_low_rank(record, incoming.low_rank, incoming.head)
        else:
            saved = store.save(record, incoming.params, incoming.head)
    except WsrError as error:
        if there is None:
            raise
        before = there.hyperparameters.get("source", "training")
        raise WsrError(
            f"{error}; {name!r} came from {before}, this is {source}: choose another with --names"
        ) from error
    same = [
        other.name for other in store.records() if other.name != name and other.content_sha256 == saved.content_sha256
    ]
    return there is None, (f"the same weights as {', '.join(same)}",) if same else ()


def _safe(part: str) -> str:
    # "," and "=" separate points on the command line.
    return re.sub(r"[^\w.+@-]+|\.{2,}", "-", part).strip("-.+@")[:100]


def _words(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
