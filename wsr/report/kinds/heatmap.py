"""A matrix of models: more opaque is more, so that the page shows through where there is little."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsr.report.canvas import Canvas, fit, text_width
from wsr.report.style import (
    CRISP,
    FONT_SIZE,
    MUTED,
    NEGATIVE,
    POSITIVE,
    SMALL_SIZE,
    WIDTH,
    number,
)

STEPS = 32
FAINTEST = 0.001
# Models up to which each cell is a shape with a title of its own.
MOST_CELLS = 64
# Names of rows: at most this wide, and none in less than this height.
LABEL_WIDTH, LEAST = 130.0, 7.0


def plot_heatmap(data: Mapping[str, Any]) -> Canvas:
    """Draws the matrix, its rows named by runs of equal groups; the diagonal does not set the scale."""
    matrix, names, runs = np.array(data["matrix"], dtype=float), data["names"], _runs(data["groups"])
    count = len(names)
    tallest = max(stop - start for _, start, stop in runs) * (WIDTH - LABEL_WIDTH) / count
    labels = [fit(group, LABEL_WIDTH) if tallest >= LEAST else "" for group, _, _ in runs]
    left = max(map(text_width, labels)) + 10
    side = WIDTH - left - 2
    canvas = Canvas(side + 46)
    axes = canvas.axes(left, 4, side, side)
    low, high = _scale(data, matrix)
    cells = _paint(axes, _shades(matrix, low, high), np.arange(count + 1), np.arange(count + 1))
    if count <= MOST_CELLS:
        titles = [
            f"{a} and {b}: {number(None if math.isnan(value) else value)}"
            for a, row in zip(names, matrix, strict=True)
            for b, value in zip(names, row, strict=True)
        ]
        canvas.hover(cells, titles, crisp=True)
    else:
        canvas.hover(cells, [f"{count} models; {number(low)} to {number(high)} off the diagonal"])
    holes = np.argwhere(np.isnan(matrix))
    axes.plot(holes[:, 1] + 0.5, holes[:, 0] + 0.5, "x", color=MUTED, markersize=6, linestyle="none")
    for start in _borders(runs, side / count):
        axes.axhline(start, color=MUTED, linewidth=0.6)
        axes.axvline(start, color=MUTED, linewidth=0.6)
    axes.set(xlim=(0, count), ylim=(count, 0), xticks=[])
    _name_rows(axes, runs, labels, side / count)
    axes.spines["bottom"].set_visible(False)
    _legend(canvas, data.get("value_label") or "", low, high, side + 14, smooth=count > MOST_CELLS)
    return canvas


def _name_rows(axes: Any, runs: Sequence[tuple[str, int, int]], labels: Sequence[str], pitch: float) -> None:
    """Writes the labels beside their runs, as large as the thinnest of them allows; none where they would touch."""
    heights = [(stop - start) * pitch for _, start, stop in runs]
    size = min(FONT_SIZE, 0.95 * min(height for height in heights if height >= LEAST or height == max(heights)))
    shown = [
        ((start + stop) / 2, label)
        for (_, start, stop), label, height in zip(runs, labels, heights, strict=True)
        if height >= LEAST
    ]
    axes.set_yticks([middle for middle, _ in shown], [label for _, label in shown])
    axes.tick_params(labelsize=size)


def _borders(runs: Sequence[tuple[str, int, int]], pitch: float) -> list[int]:
    """Returns where a line is drawn between two runs; nowhere where the lines would hide the cells."""
    thinnest = min(stop - start for _, start, stop in runs) * pitch
    return [start for _, start, _ in runs[1:]] if thinnest >= LEAST else []


def _scale(data: Mapping[str, Any], matrix: np.ndarray) -> tuple[float, float]:
    finite = np.isfinite(matrix)
    rest = matrix[finite & ~np.eye(len(matrix), dtype=bool)]
    rest = rest if rest.size else matrix[finite]
    low, high = data.get("vmin"), data.get("vmax")
    low, high = float(rest.min() if low is None else low), float(rest.max() if high is None else high)
    return low if low < high else high - 1.0, high


def _shades(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns the colours [..., 4] of ``values``; where the scale holds negative values two colours meet at zero."""
    from matplotlib.colors import to_rgb

    values = np.nan_to_num(values)
    share = values / max(-low, high) if low < 0 else np.maximum((values - low) / (high - low), 0.0)
    # Never quite clear: a shape without any colour has no hover title.
    opacity = np.clip(np.abs(share), FAINTEST, 1.0).round(3)
    colors = np.where((share < 0)[..., None], to_rgb(NEGATIVE), to_rgb(POSITIVE))
    return np.concatenate([colors, opacity[..., None]], axis=-1)


def _paint(axes: Any, shades: np.ndarray, x: np.ndarray, y: np.ndarray, smooth: bool = False) -> Any:
    """Fills the cells between the edges x and y: shapes that follow the theme, or one picture where they are many."""
    if smooth or len(x) - 1 > MOST_CELLS:  # shapes would make a page of many megabytes
        extent = (x[0], x[-1], y[-1], y[0])
        return axes.imshow(shades, extent=extent, interpolation="none", aspect="auto")
    mesh = axes.pcolormesh(x, y, np.zeros(shades.shape[:2]), linewidth=0)
    mesh.set_array(None)
    mesh.set_facecolor(shades.reshape(-1, 4))
    return mesh


def _legend(canvas: Canvas, label: str, low: float, high: float, top: float, *, smooth: bool) -> None:
    steps = np.linspace(low, high, STEPS + 1)
    width = 150.0
    axes = canvas.axes(WIDTH - width - 14, top, width, 9)
    shades = _shades((steps[1:] + steps[:-1])[None] / 2, low, high)
    _paint(axes, shades, steps, np.arange(2), smooth).set_gid(CRISP)
    axes.set(yticks=[], xlim=(low, high))
    axes.locator_params(axis="x", nbins=4)
    room = WIDTH - width - 30
    canvas.text(room + 4, top + 9, fit(label, room, SMALL_SIZE), ha="right", color=MUTED, size=SMALL_SIZE)


def _runs(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Returns (name, start, stop) of each run of equal neighbours."""
    runs: list[tuple[str, int, int]] = []
    for place, name in enumerate(names):
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1], place + 1)
        else:
            runs.append((name, place, place + 1))
    return runs
