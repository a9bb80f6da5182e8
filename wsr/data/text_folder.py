"""Reads a folder with one subfolder of text files per class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wsr.data.files import read_document
from wsr.data.records import Records
from wsr.data.roles import roles_of
from wsr.errors import WsrError


@dataclass(frozen=True)
class TextFolder:
    """Texts in ``folder/<class>/*.txt``, or in ``folder/train/<class>/*.txt`` with other splits beside ``train``."""

    folder: Path

    def read(self) -> Mapping[str, Records]:
        """Returns the texts, sorted by file name; the name of the folder is the label.

        Raises:
          WsrError: naming a file that is not UTF-8; or if no folder is the training split.
        """
        inner = sorted(place.name for place in self.folder.iterdir() if place.is_dir() and _classes(place))
        if not inner:
            return {"train": _records(self.folder)}
        found, _ = roles_of(inner, str(self.folder))
        if "train" not in found:
            raise WsrError(f"{self.folder}: found {', '.join(inner)}, but no folder train with one subfolder per class")
        return {role: _records(self.folder / names[0]) for role, names in found.items()}


def holds_text_folders(folder: Path) -> bool:
    """Returns whether ``TextFolder`` can read ``folder``: at least two classes, in it or in its folder ``train``."""
    inner = [place for place in folder.iterdir() if place.is_dir()]
    return any(len(_classes(place)) > 1 for place in (folder, *inner))


def _classes(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and any(place.glob("*.txt")))


def _records(folder: Path) -> Records:
    paths = [path for place in _classes(folder) for path in sorted(place.glob("*.txt"))]
    columns = {"text": [read_document(path) for path in paths], "label": [path.parent.name for path in paths]}
    return Records(str(folder), columns, range(1, len(paths) + 1), unit="file")
