"""What a store refuses: another base, another member of the same name, leaves of another form, a folder of others."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wsr.errors import WsrError
from wsr.geometry.low_rank import LowRank
from wsr.store import checkpoint
from wsr.store.leaves import Table, json_sha256, table_differences
from wsr.store.member import member_folders
from wsr.store.record import MemberRecord, record_to_json
from wsr.store.verification import DAMAGED

if TYPE_CHECKING:
    from wsr.store.store import Store


def refuse_foreign_folder(path: Path) -> None:
    """Raises ``WsrError`` if a folder holds something other than a store."""
    files = {"store.json", "gram.json", "scores.jsonl"}
    ours = files | {"base", "members", "quarantine", "sketches", "points", "writing", DAMAGED}
    if path.exists() and not path.is_dir():
        raise WsrError(f"{path} is a file; a store is a folder")
    foreign = sorted(entry.name for entry in path.iterdir() if entry.name not in ours) if path.exists() else []
    if foreign:
        raise WsrError(f"{path} is neither empty nor a store: it holds {', '.join(foreign)}")


def refuse_other_members(path: Path, base_sha256: str) -> None:
    """Raises ``WsrError`` if a folder holds members of another base.

    If the base was removed by hand, it may be written again, but no other base may take its place.
    """
    for folder in member_folders(path):
        found = checkpoint.read_about(folder)[0]["record"]["base_sha256"]
        if found != base_sha256:
            raise WsrError(f"{folder}: expected the base {base_sha256}, found {found}: not the base of these members")


def refuse_other_base(store: "Store", base_table: Table, about: Mapping[str, Any], table: Table) -> None:
    """Raises ``WsrError`` if a store has another base than the one described.

    Args:
      store: the store.
      base_table: shapes and hashes of the leaves of its base.
      about: the architecture, config and tokenizer of the base that is asked for.
      table: shapes and hashes of its leaves.
    """
    problems = []
    if store.model_name != about["model_name"]:
        problems.append(f"architecture {store.model_name!r} in the store, {about['model_name']!r} here")
    there, here = dict(store.model_config), dict(about["model_config"])
    for key in sorted(there.keys() | here.keys()):
        if (key in there, there.get(key)) != (key in here, here.get(key)):
            problems.append(f"config {key}: {there.get(key)!r} in the store, {here.get(key)!r} here")
    own = about["tokenizer"]
    problems += [f"tokenizer: another {key}" for key in own if store.tokenizer.get(key, own[key]) != own[key]]
    problems += table_differences(table, base_table)
    if problems:
        raise WsrError(f"{store.path} holds the population of another base: {'; '.join(problems)}")


def refuse_other_member(path: Path, stored: MemberRecord, wanted: MemberRecord) -> None:
    """Raises ``WsrError`` if the member of a store differs from one of the same name that is to be saved."""
    there, here = record_to_json(stored), record_to_json(wanted)
    problems = [
        f"{field} is {there[field]!r} in the store, {here[field]!r} here"
        for field in here
        # As JSON: a metric that is NaN equals itself.
        if json_sha256(there[field]) != json_sha256(here[field])
    ]
    if problems:
        raise WsrError(f"{path} has another member {wanted.name!r}, members never change: {'; '.join(problems)}")


def refuse_other_form(path: Path, name: str, problems: Sequence[str]) -> None:
    """Raises ``WsrError`` if there are problems with the form of a member's leaves."""
    if problems:
        raise WsrError(f"member {name!r} does not have the form of the base of {path}: {'; '.join(problems)}")


def misfits(task_vector: LowRank, base_table: Table) -> list[str]:
    """Returns in what the factors of a task vector do not fit the leaves of the base, one line each."""
    problems = [] if task_vector else ["no leaf has factors"]
    for path, (a, b) in task_vector.items():
        if path not in base_table:
            problems.append(f"leaf {path} is unexpected")
            continue
        shape = base_table[path]["shape"]
        matrix = [1, *shape] if len(shape) == 1 else shape  # the change of a vector has one row
        if not (a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] and [a.shape[0], b.shape[1]] == matrix):
            problems.append(f"leaf {path}: factors of {shape} expected, found {[*a.shape]} and {[*b.shape]}")
    return problems
