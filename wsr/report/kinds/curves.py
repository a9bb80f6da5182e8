"""Lines over a common axis, such as the loss between two models."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wsr.report.canvas import Canvas, Key, fit, legend_height, text_width
from wsr.report.style import GRID, MUTED, SMALL_SIZE, WIDTH, color, dash, number, places, shorten, tick

LEFT, HEIGHT = 44.0, 240.0
MARK_LINE = 15.0


def plot_curves(data: Mapping[str, Any]) -> Canvas:
    """Draws the lines in the colours of their groups; also the mean of three or more that share their x."""
    series = data["series"]
    owners = [line.get("group") or line["name"] for line in series]
    place = places(owners)
    crowded = len(series) > len(place)
    means = {name: _mean([s for s, own in zip(series, owners, strict=True) if own == name]) for name in place}
    keys = [Key(_key_name(name, owners), color(i), line=dash(i)) for name, i in place.items()]
    keys = keys if len(series) > 1 else []
    marks = _lay_out(data)
    top = 24 + MARK_LINE * (1 + max((level for *_, level in marks), default=-1))
    canvas = Canvas(top + HEIGHT + 46 + legend_height(keys, LEFT))
    axes = canvas.axes(LEFT, top, WIDTH - LEFT - 12, HEIGHT)
    for owner, line in zip(owners, series, strict=True):
        _curve(canvas, axes, line, place[owner], faint=crowded)
    for name, mean in means.items():
        if mean is not None:
            (drawn,) = axes.plot(*mean, color=color(place[name]), linestyle=dash(place[name]), linewidth=2.6, zorder=4)
            canvas.hover(drawn, [f"mean of {name}"])
    _scale(axes, data)
    axes.margins(x=0.02)
    axes.grid(axis="y", color=GRID, linewidth=0.6, alpha=0.7)
    axes.set_xlabel(fit(data["x_label"], WIDTH - LEFT), size=SMALL_SIZE)
    note = " (thin: single lines, thick: their mean)" if any(mean is not None for mean in means.values()) else ""
    room = WIDTH - 4 - text_width(note, SMALL_SIZE)
    canvas.text(2, 12, fit(data["y_label"], room, SMALL_SIZE) + note, color=MUTED, size=SMALL_SIZE)
    for x, label, align, level in marks:
        axes.axvline(x, color=MUTED, linewidth=0.8, linestyle=(0, (3, 3)), zorder=1)
        axes.annotate(
            label,
            (x, 1),
            (0, 4 + MARK_LINE * level),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=align,
            size=SMALL_SIZE,
            color=MUTED,
        )
    canvas.legend(keys, LEFT, top + HEIGHT + 44)
    return canvas


def _curve(canvas: Canvas, axes: Any, line: Mapping[str, Any], place: int, *, faint: bool) -> None:
    x, y = _floats(line["x"]), _floats(line["y"])
    hue = color(place)
    if line.get("low") is not None and line.get("high") is not None:
        axes.fill_between(x, _floats(line["low"]), _floats(line["high"]), color=hue, alpha=0.16, linewidth=0)
    (drawn,) = axes.plot(
        x, y, color=hue, linestyle=dash(place), linewidth=0.9 if faint else 1.8, alpha=0.5 if faint else 1.0
    )
    shown = np.isfinite(x) & np.isfinite(y)
    if not shown.any():
        return
    canvas.hover(drawn, [line["name"]])
    dots = axes.scatter(x[shown], y[shown], s=6 if faint else 14, color=hue, linewidths=0, alpha=0.6 if faint else 1.0)
    titles = [f"{line['name']}: {number(b)} at {tick(a)}" for a, b in zip(x[shown], y[shown], strict=True)]
    canvas.hover(dots, titles)


def _mean(lines: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns the mean of three lines or more that share their x; None where there is no such mean."""
    if len(lines) < 3 or any(line["x"] != lines[0]["x"] for line in lines):
        return None
    x, mean = _floats(lines[0]["x"]), np.mean([_floats(line["y"]) for line in lines], axis=0)
    return (x, mean) if np.isfinite(x).all() and np.isfinite(mean).all() and len(x) else None


def _key_name(name: str, owners: Sequence[str]) -> str:
    count = owners.count(name)
    return shorten(name, 34) + (f" ({count})" if count > 1 else "")


def _scale(axes: Any, data: Mapping[str, Any]) -> None:
    scale = data.get("x_scale") or "linear"
    if scale == "linear":
        return
    axes.set_xscale(scale, **({"linthresh": 1.0} if scale == "symlog" else {}))
    steps = [m * 10.0**e for e in range(-9, 10) for m in (1, 2, 5)]
    steps = [step for step in steps if scale == "log" or step >= 1]
    steps = steps if scale == "log" else [-step for step in steps[::-1]] + [0.0, *steps]
    low, high = axes.get_xlim()
    shown = [step for step in steps if low <= step <= high]
    if len(shown) > 9:  # whole decades are enough
        shown = [step for step in shown if step == 0 or str(f"{abs(step):e}").startswith("1.0")]
    axes.set_xticks(shown)
    axes.minorticks_off()
    axes.xaxis.set_major_formatter(tick)


def _lay_out(data: Mapping[str, Any]) -> list[tuple[float, str, str, int]]:
    """Returns (x, label, alignment, level) of each mark, the level raised where labels would touch."""
    marks = sorted((mark for mark in data.get("marks") or [] if mark["x"] is not None), key=lambda mark: mark["x"])
    xs = [x for line in data["series"] for x in line["x"] if x is not None] + [mark["x"] for mark in marks]
    scale = {
        "linear": float,
        "log": lambda x: float(np.log(max(x, 1e-9))),
        "symlog": lambda x: float(np.arcsinh(x)),
    }
    warp = scale[data.get("x_scale") or "linear"]
    low, high = (warp(min(xs)), warp(max(xs))) if xs else (0.0, 1.0)
    ends: list[float] = []  # of each level, where its last label ends
    placed = []
    for mark in marks:
        label = shorten(mark["label"], 30)
        share = (warp(mark["x"]) - low) / ((high - low) or 1.0)
        align = "left" if share < 0.12 else "right" if share > 0.88 else "center"
        width = text_width(label, SMALL_SIZE) + 8
        start = share * (WIDTH - LEFT - 12) - width * {"left": 0.0, "right": 1.0, "center": 0.5}[align]
        level = next((n for n, end in enumerate(ends) if end <= start), len(ends))
        ends[level : level + 1] = [start + width]
        placed.append((float(mark["x"]), label, align, level))
    return placed


def _floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array(values, dtype=float)
