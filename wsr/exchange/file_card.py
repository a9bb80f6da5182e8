"""The README.md of a merge of files: its parents with their hashes and licences, and the command. JAX is not needed."""

import hashlib
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wsr import __version__
from wsr.exchange.card_parts import TAG, code, front_matter, licence_section, made_by, plain, table
from wsr.exchange.licences import Licences, card_of_folder, licence_of, on_hub
from wsr.runtime.cores import usable_cores
from wsr.runtime.model_folder import transformer_folder

LONGEST_HASHED_BYTES = 2**31
"""Files above this size are not hashed, because reading them again would take as long as the merge."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def licences_of_files(parents: Sequence[str], given: str | None = None) -> Licences:
    """Returns the licence of a merge of files; see ``wsr.exchange.licences``.

    Args:
      parents: folders, files or hub names, the base among them.
      given: the licence that the user names.

    Raises:
      WsrError: if the licence is unclear or the parents' licences differ, and none is given.
    """
    return Licences.of({name: licence_of(name) for name in parents}, given)


def card_of_files(
    members: Sequence[str],
    parents: Sequence[tuple[str, Path]],
    licences: Licences,
    *,
    title: str,
    made: str,
    command: str,
) -> str:
    """Returns the card of a merge of files.

    Args:
      members: the merged models: folders, files or hub names.
      parents: name and place of each model that was read, the base among them.
      licences: the licence of the merge and those of its parents.
      title: title of the card.
      made: how it was made in a few words, such as "ties merge of 2 models".
      command: command that writes the folder again; empty if there is none.
    """
    about: dict[str, Any] = {"library_name": "transformers"}
    if of_hub := [name for name in dict.fromkeys(members) if on_hub(name)]:
        about |= {"base_model": of_hub, "base_model_relation": "merge"}
    if licences.own is not None:
        about["license"] = licences.own
    cards = [card_of_folder(place) for name, place in parents if name in members and place.is_dir()]
    if datasets := list(dict.fromkeys(name for card in cards if card is not None for name in card["datasets"])):
        about["datasets"] = datasets
    files = [(name, file) for name, place in parents for file in _weight_files(place)]
    with ThreadPoolExecutor(usable_cores()) as threads:
        digests = threads.map(_sha256, (file for _, file in files))
    rows = [
        (code(name), "merged" if name in members else "base", code(file.name), code(digest) if digest else "too large")
        for (name, file), digest in zip(files, digests, strict=True)
    ]
    return "\n".join(
        [
            *front_matter({**about, "tags": [TAG, "merge"]}),
            f"# {plain(title)}",
            "",
            f"{made}. Made with wsr {__version__}.",
            "",
            "## Parents",
            "",
            *table(("model", "role", "file", "sha256"), rows),
            *made_by(command),
            *licence_section(licences),
        ]
    )


def _weight_files(place: Path) -> list[Path]:
    inner = transformer_folder(place) if place.is_dir() else place
    return [inner] if inner.is_file() else sorted({*inner.glob("*.safetensors"), *inner.glob("*.msgpack")})


def _sha256(file: Path) -> str | None:
    """Returns the hash of a file; None if it is too large."""
    # The hub's cache names large files by their sha256.
    cached = Path(os.path.realpath(file)).name
    if file.is_symlink() and _SHA256.fullmatch(cached):
        return cached
    if file.stat().st_size > LONGEST_HASHED_BYTES:
        return None
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
