"""Groups of models side by side: a dot for each model, a tick at the mean."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from wsr.report.canvas import Canvas, fit, text_width
from wsr.report.style import (
    GRID,
    INK,
    LABEL_LETTERS,
    MUTED,
    SMALL_SIZE,
    WIDTH,
    color,
    number,
    places,
    shape,
    shorten,
)

ACROSS, GAP, HEAD, HEIGHT, FOOT = 3, 44.0, 38.0, 130.0, 28.0


def plot_groups(data: Mapping[str, Any]) -> Canvas:
    """Draws a panel for each thing tested and a column for each group; each panel has its own scale."""
    panels = data["panels"]
    place = places(group["name"] for panel in panels for group in panel["groups"])
    most = max(len(panel["groups"]) for panel in panels)
    widest = max(text_width(shorten(name, LABEL_LETTERS), SMALL_SIZE) for name in place)
    # As many panels in a line as leave room for the names below; where not even one does, the names are tilted.
    roomy = [n for n in range(1, ACROSS + 1) if (WIDTH / n - GAP) / most >= widest + 4]
    tilted = not roomy
    across = min(max(roomy, default=2), len(panels))
    gap = max(GAP, widest * 0.82 - (WIDTH / across - GAP) / most / 2) if tilted else GAP
    width = WIDTH / across - gap
    pitch = HEAD + HEIGHT + FOOT + (widest * 0.58 if tilted else 0)
    canvas = Canvas(16 + math.ceil(len(panels) / across) * pitch)
    canvas.text(2, 12, fit(data["y_label"], WIDTH - 4, SMALL_SIZE), color=MUTED, size=SMALL_SIZE)
    for count, panel in enumerate(panels):
        line, column = divmod(count, across)
        left, top = gap - 6 + column * (width + gap), 16 + line * pitch + HEAD
        title = fit(panel["title"], (width + gap) * 0.86)  # bold is wider
        canvas.text(left - gap + 8, top - 13, title, weight="bold")
        axes = canvas.axes(left, top, width, HEIGHT)
        for position, group in enumerate(panel["groups"]):
            _column(canvas, axes, position, group, place[group["name"]])
        names = [shorten(group["name"], LABEL_LETTERS) for group in panel["groups"]]
        tilt = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if tilted else {}
        axes.set_xticks(range(len(names)), names, **tilt)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.tick_params(axis="x", length=0)
        axes.locator_params(axis="y", nbins=4)
        axes.margins(y=0.12)
        axes.grid(axis="y", color=GRID, linewidth=0.6, alpha=0.7)
    return canvas


def _column(canvas: Canvas, axes: Any, position: int, group: Mapping[str, Any], place: int) -> None:
    names = group.get("names") or [group["name"]] * len(group["values"])
    shown = sorted((value, name) for value, name in zip(group["values"], names, strict=True) if value is not None)
    if not shown:
        return
    values = [value for value, _ in shown]
    # Neighbours in value stand apart: a fixed walk from side to side, the same in every drawing.
    offsets = [((k * 0.618034) % 1.0 - 0.5) * 0.5 if len(shown) > 1 else 0.0 for k in range(len(shown))]
    dots = axes.scatter(
        np.array(offsets) + position,
        values,
        s=24,
        marker=shape(place),
        facecolors=color(place),
        linewidths=0,
        alpha=0.75,
        zorder=3,
    )
    canvas.hover(dots, [f"{name}: {number(value)}" for value, name in shown])
    mean = float(np.mean(values))
    (line,) = axes.plot([position - 0.34, position + 0.34], [mean, mean], color=INK, linewidth=1.6, zorder=4)
    canvas.hover(line, [f"mean of {group['name']}: {number(mean)} (n = {len(values)})"])
