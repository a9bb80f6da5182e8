"""What figures of a loss surface share: filled contours, the points behind them, marks with their labels, a colour bar.

The colours are those of viridis (van der Walt and Smith 2015), whose lightness alone tells the value: they serve
whoever does not see colours, and in print. They do not follow the theme of the page: a surface has a ground of its
own, and so have labels on it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from wsr.report.canvas import Canvas, fit, text_width
from wsr.report.style import (
    CRISP,
    LABEL_LETTERS,
    MUTED,
    SMALL_SIZE,
    WIDTH,
    number,
    places,
    shape,
    shorten,
    tick,
)

COLORS = "viridis"
BANDS = 12
BAR_WIDTH, BAR_HEIGHT = 190.0, 9.0
# On the surface itself, whatever the theme.
ON_SURFACE, GROUND = "#111111", "#fdfdfd"
LABEL_HEIGHT = SMALL_SIZE + 5


def contour_levels(values: Float[np.ndarray, " values"]) -> Float[np.ndarray, " levels"]:
    """Returns round values around all finite ones, between which the bands lie."""
    from matplotlib.ticker import MaxNLocator

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if high - low < 1e-9 * max(abs(low), 1.0):
        low, high = low - 1e-3, high + 1e-3
    return np.asarray(MaxNLocator(nbins=BANDS).tick_values(low, high), float)


def paint(
    axes: Any,
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    values: Float[np.ndarray, " points"],
    levels: Float[np.ndarray, " levels"],
    triangles: Sequence[tuple[int, int, int]] | None = None,
) -> None:
    """Fills the bands over the triangles between points (by default Delaunay's); missing values leave holes."""
    from matplotlib.tri import Triangulation

    mesh = Triangulation(x, y, triangles)
    there: Bool[np.ndarray, " points"] = np.isfinite(values)
    mesh.set_mask(~there[mesh.triangles].all(axis=1))
    if not there[mesh.triangles].all(axis=1).any():
        return
    filled = np.where(there, values, levels[0])
    bands = axes.tricontourf(mesh, filled, levels=levels, cmap=COLORS)
    bands.set(edgecolor="face", linewidth=0.3)  # or the page would shine through between bands
    axes.tricontour(mesh, filled, levels=levels, colors=GROUND, linewidths=0.5, alpha=0.5)


def dots(
    canvas: Canvas,
    axes: Any,
    x: Float[np.ndarray, " points"],
    y: Float[np.ndarray, " points"],
    titles: Sequence[str],
) -> None:
    """Draws the points that the surface was evaluated at."""
    drawn = axes.scatter(x, y, s=7, color=GROUND, edgecolors=ON_SURFACE, linewidths=0.4, alpha=0.55, zorder=3)
    canvas.hover(drawn, titles)


def draw_marks(canvas: Canvas, axes: Any, marks: Sequence[Mapping[str, Any]]) -> None:
    """Draws each mark {x, y, label, group?} with its label where it hides no other; a shape for each group.

    Groups lie under those before them and reach beyond them, so that marks of one place are all seen.
    """
    marks = [mark for mark in marks if mark["x"] is not None and mark["y"] is not None]
    place = places(mark.get("group") or "" for mark in marks)
    taken: list[tuple[float, float, float, float]] = []
    to_pixels = axes.transData.transform
    at = [to_pixels((mark["x"], mark["y"])) for mark in marks]
    taken += [(x - 5, y - 5, x + 5, y + 5) for x, y in at]
    inside = axes.get_window_extent()
    for mark, (x, y) in zip(marks, at, strict=True):
        level = place[mark.get("group") or ""]
        drawn = axes.scatter(
            [mark["x"]],
            [mark["y"]],
            s=40 * 1.7**level,
            marker=shape(level),
            facecolors=GROUND,
            edgecolors=ON_SURFACE,
            linewidths=1.4,
            zorder=5 - 0.1 * level,
            clip_on=False,
        )
        canvas.hover(drawn, [mark["label"]])
        label = shorten(mark["label"], LABEL_LETTERS)
        box = _free(text_width(label, SMALL_SIZE) + 4, float(x), float(y), taken, inside)
        taken.append(box)
        axes.annotate(
            label,
            (mark["x"], mark["y"]),
            ((box[0] + box[2]) / 2 - x, (box[1] + box[3]) / 2 - y),
            textcoords="offset points",
            ha="center",
            va="center",
            size=SMALL_SIZE,
            color=ON_SURFACE,
            zorder=6,
            bbox={"facecolor": GROUND, "alpha": 0.78, "linewidth": 0, "boxstyle": "square,pad=0.15"},
        )


def color_bar(canvas: Canvas, levels: Float[np.ndarray, " levels"], label: str, top: float) -> None:
    """Draws the bands and their values beside what they are; takes 34 units."""
    axes = canvas.axes(WIDTH - BAR_WIDTH - 18, top, BAR_WIDTH, BAR_HEIGHT)
    middles = (levels[1:] + levels[:-1]) / 2
    mesh = axes.pcolormesh(levels, [0, 1], middles[None], cmap=COLORS, vmin=middles[0], vmax=middles[-1], linewidth=0)
    mesh.set_gid(CRISP)
    widest = max(text_width(tick(level), SMALL_SIZE) for level in levels) + 8
    step = max(1, int(np.ceil(len(levels) * widest / BAR_WIDTH)))
    axes.set(yticks=[], xlim=(levels[0], levels[-1]))
    axes.set_xticks(levels[::step], [tick(level) for level in levels[::step]])
    room = WIDTH - BAR_WIDTH - 34
    canvas.text(room + 4, top + BAR_HEIGHT, fit(label, room, SMALL_SIZE), ha="right", color=MUTED, size=SMALL_SIZE)


def told(name: str, value: float | None) -> str:
    """Returns the hover title of a point."""
    return f"{name}: {number(value)}"


def _free(
    width: float, x: float, y: float, taken: Sequence[tuple[float, float, float, float]], inside: Any
) -> tuple[float, float, float, float]:
    """Returns a box for a label beside a point: the first place that is free, the first of all where none is."""
    across, up = width / 2 + 8, LABEL_HEIGHT / 2 + 7
    steps = [(0, up), (0, -up), (across, 0), (-across, 0), (across, up), (-across, up), (across, -up), (-across, -up)]
    steps += [(dx * reach, dy * reach) for reach in (1.6, 2.2, 3.0) for dx, dy in steps[:8]]
    boxes = [
        (x + dx - width / 2, y + dy - LABEL_HEIGHT / 2, x + dx + width / 2, y + dy + LABEL_HEIGHT / 2)
        for dx, dy in steps
    ]

    def fits(box: tuple[float, float, float, float]) -> bool:
        within = inside.x0 <= box[0] and box[2] <= inside.x1 and inside.y0 <= box[1] and box[3] <= inside.y1
        apart = all(box[2] <= a or c <= box[0] or box[3] <= b or d <= box[1] for a, b, c, d in taken)
        return within and apart

    return next((box for box in boxes if fits(box)), boxes[0])
