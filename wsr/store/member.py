"""A member's folder: what it says of itself, held to where it lies."""

from pathlib import Path

from wsr.errors import WsrError
from wsr.store import checkpoint
from wsr.store.leaves import Table, json_sha256
from wsr.store.record import MemberRecord, check_name, record_from_json


def member_folders(store: Path) -> list[Path]:
    """Returns the folders of all members, by name."""
    return sorted(folder for folder in (store / "members").glob("*") if folder.is_dir() and is_name(folder.name))


def read_member(folder: Path, base_sha256: str | None) -> tuple[MemberRecord, Table]:
    """Returns what made the member in ``folder`` and the table of its leaves; the base is not compared if None."""
    about, table = checkpoint.read_about(folder)
    record = record_from_json(about.get("record"), str(folder))
    # A folder renamed or brought from another store is whole in itself, and wrong all the same.
    found = (record.name, record.base_sha256, record.content_sha256)
    expected = (folder.name, base_sha256 or record.base_sha256, json_sha256(table))
    if found != expected:
        raise WsrError(f"{folder}: name, base and content expected {expected}, found {found}; remove it")
    return record, table


def is_name(name: str) -> bool:
    """Whether a member may be called so."""
    try:
        check_name(name)
    except WsrError:
        return False
    return True
