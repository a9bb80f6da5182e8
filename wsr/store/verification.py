"""Verifies everything in a store's folder; damaged parts can be moved aside and are never deleted."""

import datetime
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from wsr.errors import WsrError
from wsr.runtime import strict_json
from wsr.runtime.buckets import folder_of
from wsr.runtime.cores import usable_cores
from wsr.runtime.progress import Counter
from wsr.store import checkpoint
from wsr.store.gram_file import GramFile
from wsr.store.member import member_folders, read_member
from wsr.store.record import read_quarantined
from wsr.store.results import read_point, read_sealed_rows

DAMAGED = "damaged"
"""Name of the folder for parts that were set aside."""


class Part(NamedTuple):
    """A part of a store that can be verified and set aside by itself."""

    name: str
    path: Path
    check: Callable[[], object]
    """Raises WsrError if the part is damaged."""
    remedy: str
    """How to restore the part once it is set aside."""


def verify(path: str | Path) -> list[tuple[str, str]]:
    """Reads everything in a store and returns its damaged parts.

    Args:
      path: the store: a folder or a URL.

    Returns:
      The name of each damaged part and what is wrong with it; an empty list if nothing is damaged.

    Raises:
      WsrError: if there is no store at ``path``.

    Example:
      >>> import tempfile, wsr
      >>> store = wsr.Store.create_for(tempfile.mkdtemp() + "/store", wsr.load("tiny"))
      >>> wsr.verify(store.path)
      []
    """
    return [(part.name, problem) for part, problem in damaged_parts(parts_of(folder_of(path)))]


def parts_of(store: Path) -> list[Part]:
    """Returns all parts of a store, the base first; also works if the base cannot be read.

    Args:
      store: the folder of the store.

    Raises:
      WsrError: if the folder is not a store.
    """
    base, folders = store / "base", member_folders(store)
    if not base.is_dir() and not folders:
        raise WsrError(f"{store} is not a store: it has no folder base/")
    about = _about_base(base)
    base_sha256 = about["base_sha256"] if about else None
    parts = [Part("base", base, partial(checkpoint.check, base), f"{_bring_back(store, about)} writes it again")]
    if about:
        told = partial(_check_summary, store / "store.json", about)
        parts.append(Part("store.json", store / "store.json", told, "it was written again from the base"))
    again = "wsr train (with the same data and recipe) or wsr import (from the same folder) writes it again"
    parts += [Part(f"member {own.name}", own, partial(_check_member, own, base_sha256), again) for own in folders]
    quarantine = sorted((store / "quarantine").glob("*.json"))
    parts += [Part(f"quarantine of {p.stem}", p, partial(read_quarantined, p), "train it again") for p in quarantine]
    gram = GramFile(store / "gram.json", base_sha256 or "", store / "writing")
    worked_out = "its content is computed again when it is needed"
    parts.append(Part("gram.json", gram.path, gram.check, worked_out))
    points = sorted((store / "points").glob("*.npz"))
    parts += [Part(f"point {p.stem}", p, partial(read_point, p), worked_out) for p in points]
    scores = store / "scores.jsonl"
    if scores.exists():
        parts.append(Part("scores.jsonl", scores, partial(read_sealed_rows, scores), "wsr evaluate writes it again"))
    return parts


def damaged_parts(parts: Sequence[Part], counter: Counter | None = None) -> list[tuple[Part, str]]:
    """Returns the damaged parts, each with one line that says what is wrong.

    Each thread holds at most one piece of a leaf in memory.

    Args:
      parts: the parts to verify.
      counter: counts the verified parts; None shows nothing.
    """
    found = []
    with ThreadPoolExecutor(usable_cores()) as threads:
        for part, problem in zip(parts, threads.map(_problem_of, parts), strict=True):
            if problem:
                found.append((part, problem))
            if counter:
                counter.advance(1, part.name)
    return found


def set_aside(store: Path, parts: Iterable[Part]) -> list[Path]:
    """Moves parts to ``damaged/<name>-<time>`` in the store.

    Args:
      store: the folder of the store.
      parts: the parts to move; parts that do not exist are skipped.

    Returns:
      The new paths.

    Raises:
      WsrError: if a part cannot be moved.
    """
    when = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    places = []
    for part in parts:
        if os.path.lexists(part.path):
            place = _free(store / DAMAGED / f"{part.path.name}-{when}")
            try:
                place.parent.mkdir(exist_ok=True)
                os.rename(part.path, place)
            except OSError as error:
                raise WsrError(f"{part.path} could not be moved to {place}: {error.strerror}") from error
            places.append(place)
    return places


def _about_base(base: Path) -> dict[str, Any] | None:
    try:
        return checkpoint.read_about(base)[0]
    except WsrError:
        return None


def _bring_back(store: Path, about: dict[str, Any] | None) -> str:
    try:
        told = about or strict_json.parse((store / "store.json").read_text(encoding="utf-8"))
        name = str(told["base_name"])
    except (OSError, ValueError, KeyError, TypeError):
        name = "THE_ORIGINAL_BASE"
    return f"wsr train or wsr import with --base={name}"


def _check_summary(path: Path, about: dict[str, Any]) -> None:
    try:
        found = strict_json.parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WsrError(f"{path} cannot be read ({type(error).__name__}: {error})") from error
    if found != summary_of(about):
        raise WsrError(f"{path} does not match base/")


def summary_of(about: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of store.json for a base with these facts."""
    return {"format": checkpoint.FORMAT, **about}


def _check_member(folder: Path, base_sha256: str | None) -> None:
    read_member(folder, base_sha256)
    checkpoint.check(folder)


def _problem_of(part: Part) -> str | None:
    try:
        part.check()
    except WsrError as error:
        return str(error)
    return None


def _free(place: Path) -> Path:
    number, free = 1, place
    while os.path.lexists(free):
        number += 1
        free = place.with_name(f"{place.name}-{number}")
    return free
