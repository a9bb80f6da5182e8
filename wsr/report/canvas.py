"""A sheet to draw one figure on, measured in units of one pixel from its top left."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wsr.report.style import CRISP, FONT_SIZE, GRID, INK, MUTED, SMALL_SIZE, WIDTH, readable, shorten

# What a figure is drawn with. Text is never taken for TeX: names may hold any sign.
RC = {
    "font.family": "DejaVu Sans",
    "font.size": FONT_SIZE,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.unicode_minus": True,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "svg.fonttype": "none",
    "svg.hashsalt": "wsr",
    "path.simplify": False,
}
Length = float | int
LEGEND_LINE, LEGEND_KEY, LEGEND_GAP = 20.0, 22.0, 14.0


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a name beside a marker or a line; with neither it is a heading on a new line."""

    name: str
    color: str = MUTED
    marker: str = ""
    line: Any = ""
    filled: bool = True


class Canvas:
    """A figure in the making; ``titles`` holds the hover titles of each registered artist."""

    def __init__(self, height: Length):
        from matplotlib.figure import Figure

        self.height = height
        self.titles: dict[str, list[str]] = {}
        self.figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
        self.figure.patch.set_visible(False)

    def axes(self, left: Length, top: Length, width: Length, height: Length) -> Any:
        """Returns axes in the box; only their bottom line and the grid behind the marks are drawn."""
        bottom = self.height - top - height
        axes = self.figure.add_axes((left / WIDTH, bottom / self.height, width / WIDTH, height / self.height))
        axes.patch.set_visible(False)
        axes.set_axisbelow(True)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.ticklabel_format(style="plain", useOffset=False)
        return axes

    def hover(self, artist: Any, titles: Sequence[str], *, crisp: bool = False) -> None:
        """Gives each shape of ``artist`` a hover title, in the order in which the shapes are drawn.

        ``crisp`` shapes touch one another: their edges are not smoothed, or the page would shine through.
        """
        gid = f"{CRISP if crisp else 'mark'}{len(self.titles)}"
        artist.set_gid(gid)
        self.titles[gid] = [readable(title) for title in titles]

    def text(self, x: Length, y: Length, text: str, **style: Any) -> None:
        """Writes ``text`` with its baseline at ``y`` below the top."""
        self.figure.text(x / WIDTH, 1 - y / self.height, text, **{"va": "baseline", **style})

    def legend(self, keys: Sequence[Key], left: Length, top: Length) -> None:
        """Writes the keys in lines; as high as ``legend_height`` says."""
        from matplotlib.lines import Line2D

        for key, x, line in _flow(keys, left):
            y = top + (line + 0.5) * LEGEND_LINE
            heading = not key.marker and not key.line
            self.text(
                x if heading else x + LEGEND_KEY,
                y + 3,
                key.name,
                size=SMALL_SIZE,
                color=MUTED if heading else INK,
            )
            if heading:
                continue
            middle = x + LEGEND_KEY / 2 - 2
            half = 7 if key.line else 0
            self.figure.add_artist(
                Line2D(
                    [(middle - half) / WIDTH, middle / WIDTH, (middle + half) / WIDTH],
                    [1 - y / self.height] * 3,
                    color=key.color,
                    linestyle=key.line or "none",
                    linewidth=1.8,
                    marker=key.marker or "none",
                    markevery=[1],
                    markersize=6,
                    markerfacecolor=key.color if key.filled else "none",
                )
            )


def legend_height(keys: Sequence[Key], left: Length) -> float:
    """Returns the height in units that ``Canvas.legend`` takes for the keys."""
    return LEGEND_LINE * max((line + 1 for _, _, line in _flow(keys, left)), default=0)


@functools.cache
def text_width(text: str, size: float = FONT_SIZE) -> float:
    """Returns the width of ``text`` in units, in the font that a figure is laid out with (a wide one)."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    prop = FontProperties(family="DejaVu Sans", size=size)
    return float(text_to_path.get_text_width_height_descent(text, prop, ismath=False)[0])


def fit(text: str, width: Length, size: float = FONT_SIZE) -> str:
    """Returns ``text`` on one line, shortened to ``width`` units."""
    text = shorten(text, 200)
    letters = len(text)
    while letters > 4 and text_width(text, size) > width:
        letters -= 1
        text = shorten(text, letters)
    return text


def _flow(keys: Sequence[Key], left: Length) -> list[tuple[Key, Length, int]]:
    """Returns each key with its x and its line: they flow like words beside a column of headings."""
    headings = [key for key in keys if not key.marker and not key.line]
    indent = max((text_width(key.name, SMALL_SIZE) for key in headings), default=-LEGEND_GAP) + LEGEND_GAP
    placed: list[tuple[Key, Length, int]] = []
    x, line = left + indent, 0
    for key in keys:
        if key in headings:
            line += 1 if placed else 0
            placed.append((key, left, line))
            x = left + indent
            continue
        width = LEGEND_KEY + text_width(key.name, SMALL_SIZE)
        if x + width > WIDTH and x > left + indent:
            x, line = left + indent, line + 1
        placed.append((key, x, line))
        x += width + LEGEND_GAP
    return placed
