"""Figures drawn: inline SVG for a page, or a file of their own."""

import io
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.report.canvas import RC, Canvas
from wsr.report.document import Document, Figure
from wsr.report.kinds import PLOTS
from wsr.report.style import MUTED, WIDTH
from wsr.report.svg import for_file, for_page
from wsr.runtime.atomic import write_atomically

# Which keys of the data hold the numbers that are drawn; labels and scales aside.
_NUMBERS = frozenset({"matrix", "x", "y", "values", "mean", "height"})


def draw(figure: Figure, prefix: str = "") -> str:
    """Returns the figure as an inline SVG: transparent, coloured by CSS variables, a hover title on each mark.

    The same figure gives the same text. ``prefix`` begins every identifier; by default it is made of the data.
    """
    with _settings():
        canvas = _plot(figure)
        text = _rendered(canvas, "svg").decode()
    prefix = prefix or f"wsr{zlib.crc32(f'{figure.kind}{figure.data}'.encode()):08x}-"
    return for_page(text, canvas.titles, label=figure.title, prefix=prefix)


def save(figure: Figure, path: str | Path) -> None:
    """Writes the figure on white to ``path``, whose suffix says how: .svg, .pdf or .png."""
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in ("svg", "pdf", "png"):
        raise WsrError(f"{path}: a figure is written as .svg, .pdf or .png, not {path.suffix!r}")
    with _settings():
        canvas = _plot(figure)
        content = _rendered(canvas, kind)
    if kind == "svg":
        content = for_file(content.decode(), canvas.titles, label=figure.title).encode()
    write_atomically(path, content)


def save_all(document: Document, folder: Path) -> list[Path]:
    """Writes every figure of a document into ``folder`` as SVG and as PDF, named by section and figure; returns all."""
    written = []
    for place, section in enumerate(document.sections, start=1):
        for number, figure in enumerate(section.figures, start=1):
            for suffix in ("svg", "pdf"):
                written.append(folder / f"{place:02d}-{number}-{_slug(figure.title)}.{suffix}")
                save(figure, written[-1])
    return written


def missing(figure: Figure) -> str:
    """Returns a sentence on the values that are not drawn; empty where all are."""
    count = _count(figure.data)[1]
    values = "value is" if count == 1 else "values are"
    return f"{count} {values} missing or not finite, and not drawn." if count else ""


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60].rstrip("-") or "figure"


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(RC), warnings.catch_warnings():
        # The font measures the labels and is replaced in the page: a letter that it lacks is no problem.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _plot(figure: Figure) -> Canvas:
    present, absent = _count(figure.data)
    if not present:
        what = "every value is missing or not a finite number" if absent else "there are no values"
        return _message(f"Nothing to draw: {what}.")
    return PLOTS[figure.kind](figure.data)


def _count(data: Any, key: str = "") -> tuple[int, int]:
    """Returns how many numbers of the data are there and how many are missing."""
    if isinstance(data, Mapping):
        counts = [_count(value, name) for name, value in data.items() if isinstance(value, list) or name in _NUMBERS]
    elif isinstance(data, list):
        counts = [_count(value, key) for value in data]
    else:
        counts = [(int(data is not None), int(data is None))] if key in _NUMBERS else []
    return sum(present for present, _ in counts), sum(absent for _, absent in counts)


def _message(text: str) -> Canvas:
    canvas = Canvas(72)
    canvas.text(WIDTH / 2, 40, text, ha="center", color=MUTED)
    return canvas


def _rendered(canvas: Canvas, kind: str) -> bytes:
    stream = io.BytesIO()
    metadata: Mapping[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    canvas.figure.patch.set(visible=kind != "svg", facecolor="white")
    canvas.figure.savefig(stream, format=kind, metadata=metadata, dpi=216 if kind == "png" else 72)
    return stream.getvalue()
