"""Models as points in a plane without units: a colour for each group, a shape for each family."""

from collections.abc import Mapping
from typing import Any

from wsr.report.canvas import Canvas, Key, legend_height
from wsr.report.style import INK, LABEL_LETTERS, SMALL_SIZE, WIDTH, color, filled, places, shape, shorten

HEIGHT = 330.0


def plot_map(data: Mapping[str, Any]) -> Canvas:
    """Draws a point for each model, and a star with its label for each mark."""
    families = data.get("families") or [""] * len(data["names"])
    owners = list(zip(families, data["groups"], strict=True))
    group_place, family_place = places(data["groups"]), places(families)
    keys = _keys(list(dict.fromkeys(owners)), group_place, family_place)
    canvas = Canvas(HEIGHT + 14 + legend_height(keys, 4))
    axes = canvas.axes(2, 2, WIDTH - 4, HEIGHT)
    axes.spines[:].set_visible(True)
    axes.set(xticks=[], yticks=[])
    for owner in dict.fromkeys(owners):
        family, group = owner
        points = [
            (x, y, name)
            for x, y, name, own in zip(data["x"], data["y"], data["names"], owners, strict=True)
            if own == owner and x is not None and y is not None
        ]
        hue = color(group_place[group])
        dots = axes.scatter(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            s=58,
            marker=shape(family_place[family]),
            facecolors=hue if filled(group_place[group]) else "none",
            edgecolors=hue,
            linewidths=1.2,
            alpha=0.9,
            zorder=3,
        )
        about = ", ".join(filter(None, owner[::-1]))
        canvas.hover(dots, [f"{name} ({about})" for _, _, name in points])
    for mark in data.get("marks") or []:
        if mark["x"] is not None and mark["y"] is not None:
            _mark(canvas, axes, mark)
    axes.margins(0.08)
    canvas.legend(keys, 4, HEIGHT + 12)
    return canvas


def _mark(canvas: Canvas, axes: Any, mark: Mapping[str, Any]) -> None:
    star = axes.scatter([mark["x"]], [mark["y"]], s=90, marker="*", color=INK, linewidths=0, zorder=4)
    canvas.hover(star, [mark["label"]])
    label = shorten(mark["label"], LABEL_LETTERS)
    where = (mark["x"], mark["y"])
    axes.annotate(label, where, (0, 8), textcoords="offset points", ha="center", size=SMALL_SIZE)


def _keys(owners: list[tuple[str, str]], group_place: Mapping[str, int], family_place: Mapping[str, int]) -> list[Key]:
    keys = []
    # A heading that only repeats the one group below it says nothing.
    said = any(family != group for family, group in owners)
    for family in family_place:
        if family and said:
            keys.append(Key(shorten(family, LABEL_LETTERS)))
        for place, group in [(group_place[group], group) for own, group in owners if own == family]:
            name = shorten(group, LABEL_LETTERS)
            keys.append(Key(name, color(place), shape(family_place[family]), filled=filled(place)))
    return keys
