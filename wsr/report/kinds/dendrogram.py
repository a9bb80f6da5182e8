"""The tree of a clustering: models as rows, branches that join where they are as far apart as the axis says."""

from collections.abc import Mapping
from typing import Any

from wsr.report.canvas import Canvas, Key, fit, legend_height, text_width
from wsr.report.style import (
    FONT_SIZE,
    GRID,
    INK,
    LABEL_LETTERS,
    MUTED,
    SMALL_SIZE,
    WIDTH,
    color,
    dash,
    filled,
    number,
    places,
    shape,
    shorten,
)

PITCH, NAMED = 17.0, 8.0
"""Height of a row, and that below which no names are written."""
TALLEST, TALLEST_UNNAMED = 1000.0, 640.0
LABEL_WIDTH = 150.0
MOST_IN_TITLE = 6


def plot_dendrogram(data: Mapping[str, Any]) -> Canvas:
    """Draws a row for each model and an elbow for each merge; a branch of one group has the group's colour."""
    names, groups, merges = data["names"], data["groups"], data["merges"]
    place = places(groups)
    order, inside = _order(len(names), merges)
    pitch = min(PITCH, TALLEST / len(names))
    if pitch < NAMED:
        pitch = TALLEST_UNNAMED / len(names)
    size = min(FONT_SIZE, 0.75 * pitch)
    labels = [fit(names[model], LABEL_WIDTH, size) if pitch >= NAMED else "" for model in order]
    left = max(text_width(label, size) for label in labels) + 22
    keys = [Key(shorten(name, LABEL_LETTERS), color(i), shape(i), filled=filled(i)) for name, i in place.items()]
    top = legend_height(keys, 4) + 10
    canvas = Canvas(top + pitch * len(names) + 44)
    canvas.legend(keys, 4, 0)
    axes = canvas.axes(left, top, WIDTH - left - 12, pitch * len(names))
    start, end = _span(data)
    row = {model: position + 0.5 for position, model in enumerate(order)}
    at = dict.fromkeys(row, start)
    for merge, models in zip(merges, inside, strict=True):
        branch, height = len(at), merge["height"]
        row[branch] = (row[merge["left"]] + row[merge["right"]]) / 2
        at[branch] = at[merge["left"]] if height is None else height
        if height is not None:
            owners = {groups[model] for model in models}
            owner = place[owners.pop()] if len(owners) == 1 else None
            ends = [(at[merge[side]], row[merge[side]]) for side in ("left", "right")]
            _elbow(canvas, axes, height, ends, owner, _about(height, [names[model] for model in models]))
    for model in order:
        own = place[groups[model]]
        dot = axes.scatter(
            [start],
            [row[model]],
            s=min(34.0, 2.4 * pitch),
            marker=shape(own),
            facecolors=color(own) if filled(own) else "none",
            edgecolors=color(own),
            linewidths=1.0,
            zorder=4,
            clip_on=False,
        )
        canvas.hover(dot, [f"{names[model]} ({groups[model]})"])
    if data.get("cut") is not None:
        axes.axvline(data["cut"], color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=2)
    axes.set(xlim=(start, end), ylim=(len(names), 0))
    axes.set_yticks([row[model] for model in order], labels)
    axes.tick_params(axis="y", labelsize=size, pad=9)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x", color=GRID, linewidth=0.6, alpha=0.7)
    axes.set_xlabel(fit(data["height_label"], WIDTH - left, SMALL_SIZE), size=SMALL_SIZE)
    return canvas


def _elbow(
    canvas: Canvas, axes: Any, height: float, ends: list[tuple[float, float]], owner: int | None, about: str
) -> None:
    (low, first), (high, second) = ends
    (line,) = axes.plot(
        [low, height, height, high],
        [first, first, second, second],
        color=MUTED if owner is None else color(owner),
        linestyle="solid" if owner is None else dash(owner),
        linewidth=1.6,
        zorder=3,
    )
    canvas.hover(line, [about])


def _order(count: int, merges: list[Mapping[str, Any]]) -> tuple[list[int], list[list[int]]]:
    """Returns the models from top to bottom, and those inside each merge."""
    inside: list[list[int]] = []
    of = lambda branch: [branch] if branch < count else inside[branch - count]  # noqa: E731
    for merge in merges:
        inside.append([*of(int(merge["left"])), *of(int(merge["right"]))])
    return (inside[-1] if inside else list(range(count))), inside


def _span(data: Mapping[str, Any]) -> tuple[float, float]:
    """The ends of the axis: where all merges are far from zero it starts shortly before the first of them."""
    heights = [merge["height"] for merge in data["merges"] if merge["height"] is not None]
    cut = data.get("cut")
    low, high = min(heights), max([*heights, *([] if cut is None else [cut])])
    room = 0.25 * (high - low) or 0.1 * high or 1.0
    return (low - room if low > 2 * room else 0.0), high + 0.12 * room


def _about(height: float, models: list[str]) -> str:
    more = f" and {len(models) - MOST_IN_TITLE} more" if len(models) > MOST_IN_TITLE else ""
    return f"{number(height)}: {', '.join(models[:MOST_IN_TITLE])}{more}"
