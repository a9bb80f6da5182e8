"""How every figure of a report looks: sizes, colours for light and dark, labels made of any name."""

import unicodedata
from collections.abc import Iterable

# Units of one CSS pixel; narrow enough that the text of a figure is still read on a phone.
WIDTH = 440.0
FONT_SIZE = 12.5
SMALL_SIZE = 11.0
LABEL_LETTERS = 24

# Begins the identifier of a group of shapes whose edges are not smoothed.
CRISP = "crisp"

# Colours as they are drawn. In a page each becomes a CSS variable (see svg.py), so that a theme may shift it.
INK = "#1f2328"
MUTED = "#6e7681"
GRID = "#d0d7de"
# Okabe and Ito, "Color Universal Design" (2008), ordered so that neighbours differ most.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b5a715", "#7f7f7f")
POSITIVE, NEGATIVE = PALETTE[0], PALETTE[1]
CSS_COLORS = {
    INK: "currentColor",
    MUTED: f"var(--wsr-muted, {MUTED})",
    GRID: f"var(--wsr-grid, {GRID})",
    **{color: f"var(--wsr-{number}, {color})" for number, color in enumerate(PALETTE, start=1)},
}
# Shapes tell families apart for whoever does not see the colours.
SHAPES = ("o", "^", "s", "D", "v", "P", "X", "*")
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))


def readable(text: str) -> str:
    """Returns ``text`` on one line without the control characters that XML forbids or that reorder a line."""
    return "".join(
        " " if letter in "\n\t\r" else "\ufffd" if unicodedata.category(letter).startswith("C") else letter
        for letter in text
    )


def shorten(text: str, letters: int) -> str:
    """Returns a label of at most ``letters`` letters; the end of a name tells more than its middle."""
    text = readable(text)
    if len(text) <= letters:
        return text
    tail = (letters - 1) // 3
    return text[: letters - 1 - tail] + "…" + text[len(text) - tail :]


def number(value: float | int | None) -> str:
    """Returns ``value`` with the digits a reader needs."""
    if value is None:
        return "–"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e6):
        text = f"{value:.2e}"
    elif abs(value) >= 100:
        text = f"{value:.1f}"
    else:
        text = f"{value:.3f}"
    return text.replace("-", "−", 1) if text.startswith("-") else text


def tick(value: float | int, _position: float | int | None = None) -> str:
    """Returns the label of an axis at ``value``."""
    return f"{value:.6g}".replace("-", "−", 1)


def places(names: Iterable[str]) -> dict[str, int]:
    """Returns for each different name, in order of appearance, its place in the cycle of colours."""
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def color(place: int) -> str:
    """Returns the colour of a place in the cycle."""
    return PALETTE[place % len(PALETTE)]


def filled(place: int) -> bool:
    """Returns whether a mark is filled: every second round of the cycle is hollow."""
    return place // len(PALETTE) % 2 == 0


def shape(place: int) -> str:
    """Returns the shape of a mark."""
    return SHAPES[place % len(SHAPES)]


def dash(place: int) -> str | tuple[float, tuple[float, ...]]:
    """Returns the dashes of a line: every round of the colours has its own."""
    return DASHES[place // len(PALETTE) % len(DASHES)]
