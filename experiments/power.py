"""The power of each claim at several numbers of targets, from the variances of the rows kept in docs/results.

Command:  python -m experiments.power            (compares docs/power.md with the rows; --write writes it)
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsr.cli.flags import Flag, Group, Page, Values
from wsr.cli.program import call
from wsr.runtime.atomic import write_atomically
from wsr.statistics.power import power, smallest_effect, units_needed
from wsr.studies.harness.results import load_kept, markdown_table

OPENING, CLOSING = "<!-- power -->\n", "<!-- end -->"
DESIGNS = (4, 8, 14)
"""Numbers of targets."""

PAGE = Page(
    "power",
    "python -m experiments.power [options]",
    "Compare the table of docs/power.md with the kept rows, or write it again.",
    ("python -m experiments.power", "python -m experiments.power --write"),
    (
        Group(
            "What is compared",
            (
                Flag("page", "The page.", "docs/power.md", value="FILE"),
                Flag("kept", "Folder written by experiments.collect.", "docs/results", value="FOLDER"),
                Flag("write", "Write the page instead of comparing it.", False),
            ),
        ),
    ),
)

Rows = Sequence[Mapping]
ByTarget = Mapping[str, float]


@dataclass(frozen=True)
class Quantity:
    """What a claim is about: a number for each target, whose mean over targets the claim is."""

    claim: str
    study: str
    what: str
    of_targets: Callable[[Rows], ByTarget]


def means(rows: Rows, metric: str, **chosen: object) -> ByTarget:
    """Returns the mean value for each target over the rows with a metric and other values."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["metric"] == metric and row["dataset"] and all(row.get(name) == value for name, value in chosen.items()):
            found.setdefault(row["dataset"], []).append(row["value"])
    return {target: float(np.mean(values)) for target, values in found.items() if " " not in target}


def values(metric: str, **chosen: object) -> Callable[[Rows], ByTarget]:
    """Returns a function to the mean value for each target."""
    return lambda rows: means(rows, metric, **chosen)


def loss_difference(first: str, second: str, **chosen: object) -> Callable[[Rows], ByTarget]:
    """Returns a function to the mean loss of one group minus that of another, for each target."""

    def difference(rows: Rows) -> ByTarget:
        a, b = (means(rows, "generalised_loss", group=group, **chosen) for group in (first, second))
        return {target: a[target] - b[target] for target in a if target in b}

    return difference


def below_the_chord(level: str) -> Callable[[Rows], ByTarget]:
    """Returns a function to the mean of L(sum_k c_k member_k) - sum_k c_k L(member_k) over the points of a level."""

    def difference(rows: Rows) -> ByTarget:
        own = [row for row in rows if row["metric"] == "generalised_loss" and row.get("level") == level]
        members = {(row["dataset"], row["members"][0]): row["value"] for row in own if row["group"] == "member"}
        found: dict[str, list[float]] = {}
        for row in own:
            if row["group"] == "interior":
                corners = [members[row["dataset"], name] for name in row["members"]]
                found.setdefault(row["dataset"], []).append(row["value"] - float(np.dot(row["coefficients"], corners)))
        return {target: float(np.mean(values)) for target, values in found.items()}

    return difference


def rise_past_the_ends(group: str, alpha: float) -> Callable[[Rows], ByTarget]:
    """Returns a function to the mean loss at the first point past ``alpha`` minus that at the member, ``alpha`` 1."""

    def difference(rows: Rows) -> ByTarget:
        own = [row for row in rows if row["metric"] == "generalised_loss" and row["group"] == group]
        past = min(row["alpha"] for row in own if row["alpha"] >= alpha)
        a, b = (means(own, "generalised_loss", alpha=place) for place in (past, 1.0))
        return {target: a[target] - b[target] for target in a if target in b}

    return difference


LEVELS = ("dataset", "family", "general")
QUANTITIES = (
    *(
        Quantity(
            "5. No barrier",
            "interpolation",
            f"barrier, {kind}",
            values("barrier", group=kind),
        )
        for kind in ("same dataset", "same family", "across families")
    ),
    *(
        Quantity("6. In' beats In", "convex_hull", f"point minus chord, {level}", below_the_chord(level))
        for level in LEVELS
    ),
    *(
        Quantity(
            f"6. {better[1]} beats Ex",
            "convex_hull",
            f"mean loss, {level}",
            loss_difference(better[0], "exterior", level=level),
        )
        for better in (("interior", "In'"), ("member", "In"))
        for level in LEVELS
    ),
    *(
        Quantity(
            "7. Loss rises past the models", "extrapolation", f"rise at alpha 4, {kind}", rise_past_the_ends(kind, 4.0)
        )
        for kind in ("same dataset", "same family")
    ),
    *(
        Quantity(
            "8. A random step is worse",
            "random_directions",
            f"rise at {radii} radii",
            values(f"rise at {radii} radii", group="random direction"),
        )
        for radii in (1, 16)
    ),
    *(
        Quantity(
            "9. The centroid starts better",
            "centroid_start",
            f"gain, {mode}",
            values("gain", group=f"gain, {mode}"),
        )
        for mode in ("bitfit", "head")
    ),
    *(
        Quantity(
            "10. Likewise with few examples",
            "few_shot",
            f"gain on {examples}, {mode}",
            values("gain", group=f"gain, {mode}", examples=examples),
        )
        for examples in (32, 96, 256)
        for mode in ("bitfit", "head")
    ),
    Quantity(
        "15. More data make a better centroid",
        "region_scaling",
        "all against one, left out",
        values("difference of losses", group="left out, 7 x 5 - 1 x 1"),
    ),
)


def table(folder: Path) -> str:
    """Returns the table of powers, with a line for each quantity."""
    kept = load_kept(folder)
    header = ["claim", "quantity", "targets", "mean", "standard deviation", "standard error"]
    header += [f"power, {design} targets" for design in DESIGNS]
    header += [f"smallest effect, {DESIGNS[-1]} targets", "targets for 80 %"]
    lines = []
    for quantity in QUANTITIES:
        found = np.array(list(quantity.of_targets(kept[quantity.study].rows).values()))
        effect, deviation = float(found.mean()), float(found.std(ddof=1))
        needed = units_needed(effect, deviation) if deviation else None
        lines.append(
            [
                quantity.claim,
                quantity.what,
                str(len(found)),
                f"{effect:+.3f}",
                f"{deviation:.3f}",
                f"{deviation / np.sqrt(len(found)):.3f}",
                # Equal values at all targets allow no power to be computed.
                *(f"{100 * power(effect, deviation, design):.0f} %" if deviation else "-" for design in DESIGNS),
                f"{smallest_effect(deviation, DESIGNS[-1]):.3f}" if deviation else "-",
                f"{needed:,}" if needed else "over 10,000" if deviation else "-",
            ]
        )
    return markdown_table(header, lines)


def main(flags: Values, positional: Sequence[str]) -> int:
    """Returns 1, after a line, if the page is not what the rows say."""
    page = Path(flags.page)
    found = page.read_text(encoding="utf-8")
    before, rest = found.split(OPENING, 1)
    wanted = (
        before + OPENING + "\n" + table(Path(flags.kept)).strip("\n") + "\n\n" + CLOSING + rest.split(CLOSING, 1)[1]
    )
    if flags.write:
        write_atomically(page, wanted.encode())
        print(f"page: {page}")
    elif wanted != found:
        print(
            f"{page} is not what the rows in {flags.kept} say; write it again with python -m experiments.power --write"
        )
        return 1
    else:
        print("no difference")
    return 0


if __name__ == "__main__":
    sys.exit(call(PAGE, main, sys.argv[1:]))
