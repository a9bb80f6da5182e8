"""The record of a member: how it was trained, without its weights."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.store.seal import unsealed

LONGEST_NAME_BYTES = 200
_LATER = frozenset(("data", "pieces", "rematerialised", "shared_by"))
"""Fields that records of earlier versions lack."""


@dataclass(frozen=True, kw_only=True)
class MemberRecord:
    """How a member was trained. The store fills in the fields with a default; if you give them, they must agree.

    The same seed gives the same bits only for equal ``jaxlib``, ``device_kind``, ``threads``, ``group_size``,
    ``pieces``, ``rematerialised`` and ``shared_by``.

    Example:
      >>> from wsr.store.record import MemberRecord
      >>> MemberRecord(
      ...     name="mnli-0", dataset="mnli", family="nli", seed=0, mode="full", size=500,
      ...     hyperparameters={"epochs": 3}, metrics={"accuracy": 0.71},
      ...     jaxlib="0.9.0", device_kind="cpu", threads=2, group_size=1,
      ... ).name
      'mnli-0'
    """

    name: str
    dataset: str
    family: str
    """Task family of the dataset."""
    seed: int
    mode: str
    """``full``, ``bitfit``, ``lora`` or ``head``."""
    size: int
    """Number of fine-tuning examples."""
    hyperparameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    jaxlib: str
    """Version of jaxlib."""
    device_kind: str
    threads: int
    group_size: int
    """Number of members that were trained in one program."""
    pieces: int = 1
    """Number of pieces into which each batch was cut to fit the memory."""
    rematerialised: bool = False
    """Whether the backward pass computed the activations of each block again to fit the memory."""
    shared_by: int = 1
    """Number of devices that shared it to fit the memory. Records of earlier versions do not say."""
    base_sha256: str = ""
    architecture: str = ""
    config_sha256: str = ""
    content_sha256: str = ""
    """sha256 over the SHA-256 of all leaves on disk."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """What it was trained on, see ``wsr.data.Dataset.about``: the sketch of its texts, the names of its classes and the
    length at which its texts were cut. Empty for imported members and in records of earlier versions."""


@dataclass(frozen=True)
class Quarantined:
    """A member whose training became non-finite: its record, without weights."""

    record: MemberRecord
    step: int
    """The training step at which it became non-finite."""
    reason: str


def record_to_json(record: MemberRecord) -> dict[str, Any]:
    """Returns a record as plain JSON values: mappings become dicts, tuples lists, NumPy scalars numbers."""
    content = {one.name: getattr(record, one.name) for one in fields(record)}
    return to_plain_json(content, f"record of member {record.name!r}")


def record_from_json(content: Any, where: str) -> MemberRecord:
    """Returns the record that ``record_to_json`` wrote.

    Args:
      content: the JSON.
      where: where it came from, for error messages.

    Raises:
      WsrError: if the content does not have exactly the fields of a record; those that records of earlier versions
        lack may be missing.
    """
    known = {one.name for one in fields(MemberRecord)}
    if not isinstance(content, dict) or set(content) | _LATER != known:
        found = sorted(content) if isinstance(content, dict) else content
        raise WsrError(f"{where}: not the record of a member: expected the fields {sorted(known)}, found {found}")
    return MemberRecord(**content)


def read_quarantined(path: Path) -> Quarantined:
    """Returns the entry that ``Store.quarantine`` wrote.

    Raises:
      WsrError: if the file is damaged.
    """
    content = unsealed(path, "remove it", before_seals=frozenset(("record", "step", "reason")))
    try:
        found = Quarantined(record_from_json(content["record"], str(path)), content["step"], content["reason"])
    except KeyError as error:
        raise WsrError(f"{path} cannot be read (KeyError: {error}); remove it") from error
    if found.record.name != path.stem:
        raise WsrError(f"{path}: name expected {path.stem!r}, found {found.record.name!r}; remove it")
    return found


def to_plain_json(value: Any, what: str) -> Any:
    """Returns a value after a round trip through JSON, so that stored and given values can be compared.

    Raises:
      WsrError: if the value cannot be written as JSON.
    """
    try:
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError) as error:
        raise WsrError(f"{what} cannot be written as JSON: {error}; use numbers, strings, lists and dicts") from error


def check_name(name: str) -> None:
    """Checks that a name is a safe file name on any system.

    Raises:
      WsrError: if it is not.
    """
    safe = re.fullmatch(r"\w[\w.+=,@-]*", name) and ".." not in name and "orbax-checkpoint-tmp" not in name
    if not safe or len(name.encode()) > LONGEST_NAME_BYTES:
        raise WsrError(
            f"member name {name!r} is not a safe file name: start with a letter, digit or _, continue with these or"
            f" . + = , @ - but not '..', and use at most {LONGEST_NAME_BYTES} bytes"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"it contains a {type(value).__name__}")
