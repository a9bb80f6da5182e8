"""Reads the folder of a member and checks that its record matches its name, base and content."""

from pathlib import Path

from wsr.errors import WsrError
from wsr.store import checkpoint
from wsr.store.leaves import Table, json_sha256
from wsr.store.record import MemberRecord, check_name, record_from_json


def member_folders(store: Path) -> list[Path]:
    """Returns the folders of all members, sorted by name."""
    return sorted(folder for folder in (store / "members").glob("*") if folder.is_dir() and is_name(folder.name))


def read_member(folder: Path, base_sha256: str | None) -> tuple[MemberRecord, Table]:
    """Returns the record of the member in ``folder`` and the table of its leaves.

    Args:
      folder: the member's folder.
      base_sha256: hash of the store's base; None does not compare it.

    Raises:
      WsrError: if the metadata is damaged, or the record does not match the folder, the base or the leaves.
    """
    about, table = checkpoint.read_about(folder)
    record = record_from_json(about.get("record"), str(folder))
    # A folder that was renamed or copied from another store is undamaged, but does not belong here.
    found = (record.name, record.base_sha256, record.content_sha256)
    expected = (folder.name, base_sha256 or record.base_sha256, json_sha256(table))
    if found != expected:
        raise WsrError(f"{folder}: expected the name, base and content {expected}, found {found}; remove it")
    return record, table


def is_name(name: str) -> bool:
    """Returns whether ``name`` is a valid name of a member."""
    try:
        check_name(name)
    except WsrError:
        return False
    return True
