"""A surface over all mixtures of three things, such as the loss in the convex hull of three models."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from wsr.report.canvas import Canvas, fit
from wsr.report.kinds.surface import color_bar, contour_levels, dots, draw_marks, paint, told
from wsr.report.style import INK, MUTED, SMALL_SIZE, WIDTH, number

SIDE = 330.0
HEIGHT = SIDE * 3**0.5 / 2
LEFT, TOP = (WIDTH - SIDE) / 2, 34.0
# Lower left, lower right, top; the side is 1.
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
TICKS = (0.25, 0.5, 0.75)


def plot_triangle(data: Mapping[str, Any]) -> Canvas:
    """Draws the bands over an equilateral triangle whose corners are the three things themselves."""
    coefficients = np.array(data["coefficients"], float).reshape(-1, 3)
    values = np.array(data["values"], float)
    positions = coefficients @ CORNERS
    canvas = Canvas(TOP + HEIGHT + 100)
    axes = canvas.axes(LEFT, TOP, SIDE, HEIGHT)
    axes.set(xlim=(0, 1), ylim=(0, 3**0.5 / 2), xticks=[], yticks=[])
    axes.spines["bottom"].set_visible(False)
    levels = contour_levels(values)
    shown = np.isfinite(values)
    x, y = positions[shown].T
    if _spans(positions[shown]):
        paint(axes, x, y, values[shown], levels)
    titles = [
        told(f"{' + '.join(number(part) for part in row)}", float(value))
        for row, value in zip(coefficients[shown], values[shown], strict=True)
    ]
    dots(canvas, axes, x, y, titles)
    axes.plot(*np.append(CORNERS, CORNERS[:1], axis=0).T, color=MUTED, linewidth=0.8, clip_on=False)
    marks = [mark | dict(zip("xy", _position(mark["coefficients"]), strict=True)) for mark in data.get("marks") or []]
    draw_marks(canvas, axes, marks)
    _name_corners(canvas, data["corners"])
    _ticks(axes)
    note = "along an edge: the coefficient of the corner that the numbers grow towards"
    canvas.text(WIDTH / 2, TOP + HEIGHT + 48, note, ha="center", color=MUTED, size=SMALL_SIZE)
    color_bar(canvas, levels, data["value_label"], TOP + HEIGHT + 66)
    return canvas


def _position(coefficients: list[float | None]) -> tuple[float | None, float | None]:
    if len(coefficients) != 3 or any(value is None for value in coefficients):
        return None, None
    x, y = np.array(coefficients, float) @ CORNERS
    return float(x), float(y)


def _spans(positions: Float[np.ndarray, "points 2"]) -> bool:
    """Whether there is a triangle between some of the points."""
    return len(positions) > 2 and bool(np.linalg.matrix_rank(positions - positions[0], tol=1e-9) == 2)


def _name_corners(canvas: Canvas, corners: list[str]) -> None:
    left, right, top = corners
    room = WIDTH / 2 - 10
    below = TOP + HEIGHT + 30
    canvas.text(2, below, fit(left, room, SMALL_SIZE), color=INK, size=SMALL_SIZE)
    canvas.text(WIDTH - 2, below, fit(right, room, SMALL_SIZE), ha="right", color=INK, size=SMALL_SIZE)
    canvas.text(WIDTH / 2, 14, fit(top, WIDTH - 4, SMALL_SIZE), ha="center", color=INK, size=SMALL_SIZE)


def _ticks(axes: Any) -> None:
    """Writes each corner's coefficient along the edge that leads to it, counter-clockwise."""
    for corner, shift, align in ((1, (0, -13), "center"), (2, (7, 2), "left"), (0, (-7, 2), "right")):
        start, end = CORNERS[corner - 1], CORNERS[corner]
        for share in TICKS:
            axes.annotate(
                f"{share:g}",
                (1 - share) * start + share * end,
                shift,
                textcoords="offset points",
                ha=align,
                size=SMALL_SIZE,
                color=MUTED,
            )
