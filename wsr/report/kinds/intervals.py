"""Means with their intervals, side by side for each row."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from wsr.report.canvas import Canvas, Key, fit, legend_height, text_width
from wsr.report.style import FONT_SIZE, GRID, LABEL_LETTERS, SMALL_SIZE, WIDTH, color, number, places, shape, shorten

PITCH, BETWEEN = 17.0, 11.0


def plot_intervals(data: Mapping[str, Any]) -> Canvas:
    """Draws for each row a dot with whiskers for each series, the single values below it as small dots.

    Rows of one series that has the row's name need no legend.
    """
    rows = data["rows"]
    labelled = all([entry["name"] for entry in row["series"]] == [row["name"]] for row in rows)
    place = places(entry["name"] for row in rows for entry in row["series"])
    place = dict.fromkeys(place, 0) if labelled else place
    keys = [] if labelled else [Key(shorten(name, 34), color(i), shape(i)) for name, i in place.items()]
    labels = [shorten(row["name"], LABEL_LETTERS) for row in rows]
    left = max(map(text_width, labels)) + 10
    edges = [0.0]
    for row in rows:
        edges.append(edges[-1] + PITCH * max(len(row["series"]), 1) + BETWEEN)
    top = legend_height(keys, 4) + 8
    canvas = Canvas(top + edges[-1] + 42)
    canvas.legend(keys, 4, 0)
    axes = canvas.axes(left, top, WIDTH - left - 14, edges[-1])
    for row, start in zip(rows, edges, strict=False):
        for count, entry in enumerate(row["series"]):
            y = start + BETWEEN / 2 + PITCH * (count + 0.5)
            _interval(canvas, axes, y, f"{row['name']}, {entry['name']}", entry, place[entry["name"]])
    for edge in edges[1:-1]:
        axes.axhline(edge, color=GRID, linewidth=0.6, alpha=0.7)
    axes.set_ylim(edges[-1], 0)
    axes.set_yticks([(a + b) / 2 for a, b in pairwise(edges)], labels)
    axes.tick_params(axis="y", labelsize=FONT_SIZE)
    axes.grid(axis="x", color=GRID, linewidth=0.6, alpha=0.7)
    axes.margins(x=0.05)
    axes.set_xlabel(fit(data["x_label"], WIDTH - left), size=SMALL_SIZE)
    return canvas


def _interval(canvas: Canvas, axes: Any, y: float, name: str, entry: Mapping[str, Any], place: int) -> None:
    hue, mean, low, high = color(place), entry["mean"], entry.get("low"), entry.get("high")
    values = [value for value in entry.get("values") or [] if value is not None]
    if values:
        rings = axes.scatter(values, [y + 5] * len(values), s=7, color=hue, alpha=0.5, linewidths=0, zorder=2)
        canvas.hover(rings, [f"{name}: {number(value)}" for value in values])
    if mean is None:
        return
    about = f"{name}: {number(mean)}"
    if low is not None and high is not None:
        about += f" ({number(low)} to {number(high)})"
        (whisker,) = axes.plot([low, high], [y, y], color=hue, linewidth=1.8, zorder=3)
        canvas.hover(whisker, [about])
    dot = axes.scatter([mean], [y], s=40, marker=shape(place), color=hue, linewidths=0, zorder=4)
    canvas.hover(dot, [about])
