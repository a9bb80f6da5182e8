"""Reads one published file as a table: of a zip file in a hub repository, or of a web address."""

import hashlib
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wsr.data.delimited import Dialect
from wsr.data.files import read_file
from wsr.data.hub import from_hub
from wsr.data.records import Records
from wsr.errors import WsrError, nearest_names
from wsr.runtime.assets import cache_folder
from wsr.runtime.atomic import write_atomically
from wsr.runtime.hub_client import SILENCE


@dataclass(frozen=True)
class LabelledLines:
    """A text file in a zip file of a dataset repository, each line of which is a text, a separator and a label."""

    path: str
    """The repository, ``owner/name``."""
    archive: str
    """The zip file in the repository."""
    member: str
    """The text file in the zip file."""
    separator: str
    """The last one in a line stands before the label."""
    columns: tuple[str, str] = ("text", "label")
    encoding: str = "utf-8"
    revision: str | None = None
    """Commit, tag or branch of the repository; None is the newest commit, which a note names."""

    def read(self) -> Mapping[str, Records]:
        """Returns the texts and labels as ``train``.

        Raises:
          WsrError: if the hub does not give the file, or naming the line that is not as expected.
        """

        def load(commit: str | None) -> tuple[Path, str]:
            import huggingface_hub

            # Without a commit only the cache is read.
            place = huggingface_hub.hf_hub_download(
                self.path, self.archive, repo_type="dataset", revision=commit or self.revision
            )
            folder = Path(place).parents[len(Path(self.archive).parts) - 1]
            return Path(place), folder.name

        place, commit = from_hub(self.path, self.revision, load, scripts=True)
        origin = f"{self.path}/{self.archive}/{self.member}"
        texts, labels, rows = [], [], []
        for number, line in enumerate(self._text(place, origin).split("\n"), start=1):
            if not line.strip():
                continue
            text, found, label = line.rpartition(self.separator)
            if not found:
                raise WsrError(f"{origin}, line {number}: expected a text, {self.separator!r} and a label")
            texts.append(text)
            labels.append(label.strip())
            rows.append(number)
        notes = () if self.revision else (f"{self.path}: read at its newest commit, {commit}",)
        return {"train": Records(origin, dict(zip(self.columns, (texts, labels), strict=True)), rows, notes=notes)}

    def _text(self, place: Path, origin: str) -> str:
        try:
            with zipfile.ZipFile(place) as archive:
                names = archive.namelist()
                if self.member not in names:
                    raise WsrError(f"{origin}: not in the zip file; nearest: {nearest_names(self.member, names)}")
                return archive.read(self.member).decode(self.encoding)
        except zipfile.BadZipFile as error:
            raise WsrError(f"{self.path}/{self.archive}: not a zip file: {error}") from None
        except UnicodeDecodeError as error:
            raise WsrError(f"{origin}: byte {error.object[error.start]:#04x} is not {self.encoding}") from None


@dataclass(frozen=True)
class WebFile:
    """A delimited file at a web address, known by its hash. A file of this name in the working folder replaces it."""

    address: str
    sha256: str
    dialect: Dialect = Dialect()  # noqa: RUF009 frozen, so one default serves all

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.address.rpartition("/")[2]

    def read(self) -> Mapping[str, Records]:
        """Returns the rows as ``train``; the first call downloads the file.

        Raises:
          WsrError: if the file cannot be downloaded or is another one, or naming the line that is not as expected.
        """
        local = Path(self.name)
        if local.is_file():
            return {"train": read_file(local, self.dialect)}
        kept = cache_folder() / "files" / self.sha256[:12] / self.name
        if not kept.is_file():
            self._download(kept)
        records = read_file(kept, self.dialect)
        return {"train": replace(records, origin=self.name)}

    def _download(self, kept: Path) -> None:
        otherwise = f"put the file into the working folder as {self.name}"
        try:
            with urllib.request.urlopen(self.address, timeout=SILENCE) as answer:
                content = answer.read()
        except (OSError, urllib.error.URLError) as error:
            reason = getattr(error, "reason", None) or error
            raise WsrError(f"{self.address}: cannot be downloaded: {reason}; {otherwise}") from None
        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise WsrError(
                f"{self.address}: not the expected file: sha256 expected {self.sha256}, found {found}; {otherwise}"
            )
        write_atomically(kept, content)
