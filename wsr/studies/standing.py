"""What is to be said of a candidate, and of each member of a store, before anything is averaged."""

from collections.abc import Mapping, Sequence

import numpy as np

from wsr.geometry.gram import cosine
from wsr.region.check import Checked
from wsr.region.standing import UNKNOWN, Population, Standing
from wsr.report.document import Figure, Section, Table
from wsr.statistics.clustering import tsne


def told(checked: Checked) -> tuple[str, ...]:
    """Says in words what was found."""
    lines = [f"Flagged: {flag.told}." for flag in checked.flags]
    if not checked.standings:
        lines.append("No region to hold it to: no other sound member has a known dataset.")
    for one in checked.standings:
        inside = any(other.level == one.level and other.verdict == "inside" for other in checked.standings)
        # Where it is inside of one region, the rim of others, which may be wide, says nothing.
        if one.verdict == "inside" or (one.verdict == "on the rim" and not inside):
            lines.append(f"{one.verdict.capitalize()} of the region of the {one.level} {one.region}: {_numbers(one)}.")
    of_datasets = [one for one in checked.standings if one.level == "dataset"]
    judged = [one for one in of_datasets if one.verdict != "too few to say"]
    if judged and not any(one.verdict in ("inside", "on the rim") for one in judged):
        lines.append(f"Outside of every dataset's region; the nearest is {judged[0].region}: {_numbers(judged[0])}.")
    few = [one.region for one in checked.standings if one.verdict == "too few to say"]
    if few:
        lines.append(f"Too few members to say of {', '.join(few)}.")
    return tuple(lines)


def candidate_section(checked: Checked, population: Population, facts: Sequence[str], command: str) -> Section:
    """Returns the section of one candidate, which is the last of the population or one of its members."""
    lines = told(checked)
    return Section(
        "Where it lies",
        f"Is {checked.name} inside a region of this population?",
        "",
        lines[0],
        "not tested",
        text=(*lines, *facts),
        figures=(population_map(population, [checked.name]),),
        tables=(standing_table(checked.standings), _nearest_table(checked)),
        command=command,
        headline=_headline(checked),
        measured_short=lines[0],
    )


def _headline(checked: Checked) -> str:
    if checked.flags:
        return f"{checked.name} is flagged: {'; '.join(flag.told for flag in checked.flags)}."
    if checked.of_a_region:
        regions = ", ".join(f"{one.verdict} of the region of {one.region}" for one in checked.of_a_region)
        return f"{checked.name} is {regions}."
    return f"{checked.name} is inside no region of this population."


def store_section(
    found: Sequence[Checked], reasons: Mapping[str, Sequence[str]], population: Population, command: str
) -> Section:
    """Returns the section on all members of a store; ``reasons`` says who should be left out of an average, and why."""
    measured = f"{len(reasons)} of {len(found)} members should be left out of an average"
    lines = [f"{measured}.", *(f"{name}: {'; '.join(why)}." for name, why in reasons.items())]
    outside = [own.name for own in found if own.name not in reasons and _is_outside(own)]
    if outside:
        lines.append(
            f"To be looked at, outside of their own dataset's region: {', '.join(outside)}. Of sound members up to 5 % "
            "are called so by chance."
        )
    return Section(
        "Who should be left out",
        "Are all members fit to be averaged?",
        "",
        f"{measured}: {', '.join(reasons)}" if reasons else measured,
        "not tested",
        text=tuple(lines),
        figures=(population_map(population, list(reasons)),),
        tables=(store_table(found, reasons),),
        command=command,
        headline=f"{measured}.",
        measured_short=measured,
    )


def store_table(found: Sequence[Checked], reasons: Mapping[str, Sequence[str]]) -> Table:
    """Returns the table of all members, each held to the others."""
    rows = []
    for own in found:
        home = own.own()
        rows.append(
            (
                own.name,
                own.dataset or None,
                own.length / own.usual_length if own.usual_length > 0 else None,
                home.cosine if home else None,
                home.relative_distance if home and np.isfinite(home.relative_distance) else None,
                home.verdict if home else None,
                "; ".join(reasons.get(own.name, ())),
            )
        )
    return Table(
        "Members, each left out in turn",
        (
            "member",
            "dataset",
            "length, of the usual",
            "cosine to its dataset's centroid",
            "distance to its hull, in radii",
            "in its dataset's region",
            "leave out because",
        ),
        tuple(rows),
        "Lengths are of task vectors, in units of the others' median.",
    )


def standing_table(found: Sequence[Standing]) -> Table:
    """Returns the table of a candidate's regions."""

    def in_radii(length: float | None, one: Standing) -> float | None:
        return length / one.radius if length is not None and one.radius > 0 else None

    return Table(
        "Regions, the nearest first",
        (
            "region",
            "level",
            "members",
            "verdict",
            "cosine to centroid",
            "usual",
            "outside below",
            "distance to hull, in radii",
            "usual ",
            "outside above",
            "leans on",
        ),
        tuple(
            (
                one.region,
                one.level,
                one.members,
                one.verdict,
                one.cosine,
                one.usual_cosine,
                one.least,
                in_radii(one.distance, one),
                in_radii(one.usual_distance, one),
                in_radii(one.furthest, one),
                ", ".join(f"{name} {weight:.2f}" for name, weight in list(one.leans_on.items())[:3]),
            )
            for one in found
        ),
        "Usual: of the region's own members (of a family: its datasets), each left out in turn. Leans on: weights of "
        "the nearest point of the hull.",
    )


def population_map(population: Population, marked: Sequence[str]) -> Figure:
    """Returns the 2-D map with some models marked."""
    positions = tsne(cosine(population.gram))
    shown = [k for k, name in enumerate(population.names) if name not in marked] or list(range(len(population)))
    labels = [label if label not in UNKNOWN else "unknown" for label in population.datasets]
    marks = [
        {"x": positions[k, 0], "y": positions[k, 1], "label": name}
        for k, name in enumerate(population.names)
        if name in marked
    ]
    return Figure(
        "map",
        "Map of the population",
        "t-SNE of 1 - cosine: who is near whom is meaningful, distances and axes are not. A star marks what the text "
        "names.",
        {
            "x": positions[shown, 0],
            "y": positions[shown, 1],
            "names": [population.names[k] for k in shown],
            "groups": [labels[k] for k in shown],
            "families": [population.families[k] if labels[k] != "unknown" else "" for k in shown],
            "marks": marks,
        },
    )


def _nearest_table(checked: Checked) -> Table:
    return Table("Nearest members", ("member", "cosine"), tuple(checked.nearest.items()))


def _is_outside(checked: Checked) -> bool:
    home = checked.own()
    return home is not None and home.verdict == "outside"


def _numbers(one: Standing) -> str:
    usual = "" if one.usual_cosine is None else f" (usual {one.usual_cosine:.3f})"
    text = f"cosine to its centroid {one.cosine:.3f}{usual}"
    if one.radius > 0:
        usual = "" if one.usual_distance is None else f" (usual {one.usual_distance / one.radius:.2f})"
        text += f", distance to its hull {one.relative_distance:.2f} radii{usual}"
    leaning = ", ".join(f"{name} {weight:.2f}" for name, weight in list(one.leans_on.items())[:3])
    return f"{text}, leaning on {leaning}"
