"""What made a member: the part of a member that is not weights."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.store.seal import unsealed

LONGEST_NAME_BYTES = 200


@dataclass(frozen=True, kw_only=True)
class MemberRecord:
    """The origin of a member. The store fills in the fields with a default; if given, they must agree."""

    name: str
    dataset: str
    family: str
    seed: int
    mode: str  # full, bitfit, lora or head
    size: int  # fine-tuning examples
    hyperparameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    # "Same seed, same bits" holds for one value of these four and for no more.
    jaxlib: str
    device_kind: str
    threads: int
    group_size: int
    base_sha256: str = ""
    architecture: str = ""
    config_sha256: str = ""
    content_sha256: str = ""  # over the hashes of all leaves on disk


@dataclass(frozen=True)
class Quarantined:
    """A member that became non-finite: it has a record, but no weights."""

    record: MemberRecord
    step: int
    reason: str


def record_to_json(record: MemberRecord) -> dict[str, Any]:
    """Returns ``record`` as JSON reads it back: mappings are dicts, tuples lists, NumPy scalars numbers."""
    content = {field.name: getattr(record, field.name) for field in fields(record)}
    return to_plain_json(content, f"record of member {record.name!r}")


def record_from_json(content: Any, where: str) -> MemberRecord:
    """Returns the record that ``record_to_json`` wrote; ``where`` names its place in an error."""
    known = {field.name for field in fields(MemberRecord)}
    if not isinstance(content, dict) or set(content) != known:
        found = sorted(content) if isinstance(content, dict) else content
        raise WsrError(f"{where}: not a member's record: expected the fields {sorted(known)}, found {found}")
    return MemberRecord(**content)


def read_quarantined(path: Path) -> Quarantined:
    """Returns what ``Store.quarantine`` wrote; raises WsrError where it is damaged."""
    content = unsealed(path, "remove it", before_seals=frozenset(("record", "step", "reason")))
    try:
        found = Quarantined(record_from_json(content["record"], str(path)), content["step"], content["reason"])
    except KeyError as error:
        raise WsrError(f"{path} cannot be read (KeyError: {error}); remove it") from error
    if found.record.name != path.stem:
        raise WsrError(f"{path}: name expected {path.stem!r}, found {found.record.name!r}; remove it")
    return found


def to_plain_json(value: Any, what: str) -> Any:
    """Returns ``value`` after a round trip through JSON, so that what is compared is what is stored."""
    try:
        return json.loads(json.dumps(value, default=_plain))
    except (TypeError, ValueError) as error:
        raise WsrError(f"{what} cannot be written as JSON: {error}; use numbers, texts, lists and dicts") from error


def check_name(name: str) -> None:
    """Raises unless ``name`` is safe as the name of a file on any system."""
    safe = re.fullmatch(r"\w[\w.+=,@-]*", name) and ".." not in name and "orbax-checkpoint-tmp" not in name
    if not safe or len(name.encode()) > LONGEST_NAME_BYTES:
        raise WsrError(
            f"member name {name!r} is not a safe file name: start with a letter, a digit or _, then also"
            f" . + = , @ - but not '..', at most {LONGEST_NAME_BYTES} bytes"
        )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__} is in it")
