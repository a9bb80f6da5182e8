"""A surface over a plane with two axes, such as the loss in the plane through three models."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from wsr.report.canvas import Canvas, fit
from wsr.report.kinds.surface import GROUND, color_bar, contour_levels, dots, draw_marks, paint, told
from wsr.report.style import MUTED, SMALL_SIZE, WIDTH, tick

LEFT, RIGHT, LOWEST, HIGHEST = 46.0, 14.0, 180.0, 460.0


def plot_contours(data: Mapping[str, Any]) -> Canvas:
    """Draws the bands of the values over x and y, both in one scale unless that would be too flat or too tall."""
    x, y = (np.array(data[axis], float) for axis in "xy")
    values = np.array(data["values"], float).reshape(len(y), len(x))
    width = WIDTH - LEFT - RIGHT
    ratio = float(np.ptp(y) / np.ptp(x)) if np.ptp(x) > 0 else 1.0
    height = float(np.clip(width * ratio, LOWEST, HIGHEST))
    canvas = Canvas(24 + height + 88)
    axes = canvas.axes(LEFT, 24, width, height)
    levels = contour_levels(values.ravel())
    across, up = (grid.ravel() for grid in np.meshgrid(x, y))
    axes.set(xlim=(x.min(), x.max()), ylim=(y.min(), y.max()))
    paint(axes, across, up, values.ravel(), levels, _halves(len(x), len(y)))
    shown = np.isfinite(values.ravel())
    titles = [
        told(f"at {tick(round(a, 3))}, {tick(round(b, 3))}", float(value))
        for a, b, value in zip(across[shown], up[shown], values.ravel()[shown], strict=True)
    ]
    dots(canvas, axes, across[shown], up[shown], titles)
    for outline in data.get("outlines") or []:
        axes.plot(outline["x"], outline["y"], color=GROUND, linewidth=1.0, linestyle=(0, (4, 3)), zorder=4)
    draw_marks(canvas, axes, data.get("marks") or [])
    axes.set_xlabel(fit(data["x_label"], width), size=SMALL_SIZE)
    axes.tick_params(axis="y", pad=3)
    canvas.text(2, 12, fit(data["y_label"], WIDTH - 4, SMALL_SIZE), color=MUTED, size=SMALL_SIZE)
    color_bar(canvas, levels, data["value_label"], 24 + height + 54)
    return canvas


def _halves(columns: int, rows: int) -> list[tuple[int, int, int]]:
    """Two triangles for each cell of the grid."""
    corners = [row * columns + column for row in range(rows - 1) for column in range(columns - 1)]
    lower = [(k, k + 1, k + columns) for k in corners]
    return lower + [(k + 1, k + columns + 1, k + columns) for k in corners]
