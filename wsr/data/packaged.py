"""The labelled corpora of packages on the package index (see ``wsr.runtime.assets``)."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsr.data.files import read_text
from wsr.data.records import Records
from wsr.errors import WsrError
from wsr.runtime.assets import fetch

URL = re.compile(r"https?://\S+")


@dataclass(frozen=True)
class Packaged:
    """One corpus: ``ratings`` of the VADER study, or ``topics`` and ``tweets`` of Orange's text add-on."""

    file: str
    kind: str
    minimum_rating: float = 0.0
    """Ratings nearer to zero than this are neither positive nor negative."""
    categories: tuple[str, ...] = ()
    """Prefixes of the categories that are kept; none keeps all."""

    def read(self) -> Mapping[str, Records]:
        """Returns the records by role, downloading the package the first time."""
        if self.kind == "ratings":
            return {"train": _ratings(fetch("vader") / f"{self.file}_GroundTruth.txt", self.minimum_rating)}
        folder = fetch("orange_text")
        if self.kind == "tweets":
            return {"train": _tweets(folder / f"{self.file}.tab")}
        return {role: _topics(folder / f"{self.file}-{role}.tab", self.categories) for role in ("train", "test")}


def _ratings(path: Path, minimum: float) -> Records:
    """Reads lines of id, mean rating in [-4, 4] and text; the label is the sign of the rating."""
    texts, labels, rows = [], [], []
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        _, rating, text = line.split("\t")
        if abs(float(rating)) >= minimum:
            texts.append(text)
            labels.append("positive" if float(rating) > 0 else "negative")
            rows.append(number)
    dropped = f"{len(lines) - len(rows)} of {len(lines)} snippets left out as neutral: abs(rating) < {minimum:g}"
    return Records(path.name, {"text": texts, "label": labels}, rows, notes=(f"{path.name}: {dropped}",))


def _topics(path: Path, categories: tuple[str, ...]) -> Records:
    cells, rows = _tab(path, csv.QUOTE_NONE, lambda record: not categories or record[0].startswith(categories))
    return Records(path.name, {"text": cells["Text"], "label": cells["Category"]}, rows)


def _tweets(path: Path) -> Records:
    cells, rows = _tab(path, csv.QUOTE_MINIMAL, lambda record: True)
    # Each candidate links to places of their own: with the links a model would tell the authors by the links.
    texts = [URL.sub("", text).strip() for text in cells["Content"]]
    return Records(path.name, {"text": texts, "label": cells["Author"]}, rows)


def _tab(
    path: Path, quoting: Literal[0, 3], keep: Callable[[list[str]], bool]
) -> tuple[Mapping[str, list[str]], list[int]]:
    """Reads Orange's format: names, types and flags of the columns in three lines, then the rows."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter="\t", quoting=quoting)
    names, _, _ = next(reader), next(reader), next(reader)
    records, rows = [], []
    start = reader.line_num + 1
    for record in reader:
        if record and len(record) != len(names):
            raise WsrError(f"{path}, line {start}: expected {len(names)} cells, found {len(record)}")
        if record and keep(record):
            records.append(record)
            rows.append(start)
        start = reader.line_num + 1
    return {name: [record[at] for record in records] for at, name in enumerate(names)}, rows
