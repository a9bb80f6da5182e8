"""Admission of an imported model to a store: its name, its dataset, its record."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wsr.data.table import find, registered
from wsr.errors import WsrError
from wsr.exchange.member import Incoming
from wsr.models.huggingface.hub import path_or_name
from wsr.runtime.model_folder import module_weights, settings_of_use
from wsr.store import MemberRecord, Store
from wsr.store.record import check_name

IMPORTED = "imported"
"""The ``mode`` of imported members."""
RESERVED = ("base", "centroid")
"""Names of points of a store that are not members."""


def names_of(paths: Sequence[str]) -> list[str]:
    """Returns a member name for each folder or hub name: its last part, with earlier parts where names would collide.

    Args:
      paths: folders or hub names.

    Example:
      >>> from wsr.exchange.admission import names_of
      >>> names_of(["runs/sst2/best", "runs/mnli/best", "owner/model"])
      ['sst2-best', 'mnli-best', 'model']
    """
    parts = [[_safe(part) for part in Path(path).parts if _safe(part)] or ["model"] for path in paths]
    used = [1] * len(paths)
    while True:
        names = ["-".join(own[-count:]) for own, count in zip(parts, used, strict=True)]
        # Training loops name all checkpoints alike; the folder above says what was trained.
        poor = {number for number, name in enumerate(names) if re.fullmatch(r"checkpoint-\d+", name)}
        poor |= {number for number, name in enumerate(names) if Counter(names)[name] > 1}
        more = [number for number in poor if used[number] < len(parts[number])]
        if not more:
            return names
        for number in more:
            used[number] += 1


def dataset_of(name: str) -> str:
    """Returns the longest name of a registered dataset that occurs in ``name``, or else ``name`` itself.

    Args:
      name: name of a member.

    Example:
      >>> from wsr.exchange.admission import dataset_of
      >>> dataset_of("bert-base-sst2"), dataset_of("my-model")
      ('sst2', 'my-model')
    """
    words = f"_{_words(name)}_"
    found = [dataset for dataset in registered() if f"_{_words(dataset)}_" in words]
    return max(found, key=len, default=name)


def family_of(dataset: str) -> str:
    """Returns the family of a registered dataset, or ``"unknown"``.

    Args:
      dataset: name of the dataset.

    Example:
      >>> from wsr.exchange.admission import family_of
      >>> family_of("sst2"), family_of("mine")
      ('sentiment', 'unknown')
    """
    return find(dataset).family if dataset in registered() else "unknown"


def admit(
    store: Store, incoming: Incoming, *, name: str, dataset: str, family: str | None, source: str
) -> tuple[bool, tuple[str, ...]]:
    """Stores a model as a member; an existing member with the same name and content stays as it is.

    Args:
      store: the store.
      incoming: the model.
      name: name of the member.
      dataset: dataset it was fine-tuned on.
      family: family of that dataset; None: that of the registered dataset, or ``"unknown"``.
      source: where the model came from, for its record.

    Returns:
      Whether the member is new, and notes for the user.

    Raises:
      WsrError: if another member has the name, the name is reserved, or the model cannot be stored.
    """
    check_name(name)
    if name in RESERVED:
        raise WsrError(f"member name {name!r} is reserved for another point of the store; choose another with --names")
    record = MemberRecord(
        name=name,
        dataset=dataset,
        family=family or family_of(dataset),
        seed=0,
        mode=IMPORTED,
        size=0,
        hyperparameters={"source": path_or_name(source), **incoming.about},
        metrics={},
        jaxlib="",
        device_kind="",
        threads=0,
        group_size=1,
    )
    there = store.record(name) if name in store else None
    if there is not None:  # the same content from another source is the same member
        record = replace(record, hyperparameters=there.hyperparameters)
    files = settings_of_use(incoming.folder) | module_weights(incoming.folder)
    try:
        if incoming.low_rank is not None:
            saved = store.save_low_rank(record, incoming.low_rank, incoming.head, companions=files)
        else:
            saved = store.save(record, incoming.params, incoming.head, companions=files)
    except WsrError as error:
        if there is None:
            raise
        before = there.hyperparameters.get("source", "training")
        raise WsrError(
            f"{error}; the stored {name!r} came from {before}, this one from {source}: choose another with --names"
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
