"""How does the centroid of a region get better with the number of its members, and of the datasets they come from?

Random subsets of the population, so many datasets and so many members of each; the generalised loss of their centroid
on a target whose own members are among them (in), or not (left out).
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from wsr.data.table import overlapping
from wsr.engine.evaluate import EXACT, Evaluation
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.difference import Difference, holm, mean_difference
from wsr.statistics.interval import Interval, mean_interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import NO_EFFECT_NATS, below, power_told, verdict

PLACES = ("left out", "in")


@dataclass(frozen=True)
class Grid:
    """Sizes of the subsets."""

    datasets: tuple[int, ...]
    members: tuple[int, ...]
    """Numbers of members of each dataset."""
    subsets: int
    """Number of subsets drawn of each size, for each target; fewer if there are not so many."""


Scored = TypeVar("Scored")
Cell = tuple[str, int, int]
"""In or left out, datasets, members of each."""
Gain = tuple[Difference, float, Cell, Cell]
"""Largest minus smallest subsets, its p-value adjusted for the number of targets, and both sizes, smallest first."""


def region_scaling(context: Context, grid: Grid) -> tuple[list[dict], Section]:
    """Scores the centroids of random subsets on each target."""
    requests: list[Request] = []
    places: list[tuple[str, Cell | None]] = []
    for target in context.targets:
        requests.append(Request("pretrained", context.region, np.zeros((1, len(context.region))), target))
        places.append((target, None))
        for cell in _cells(context.region.datasets, target, grid):
            centroids = _centroids(context, target, cell, grid.subsets)
            if len(centroids):
                requests.append(
                    Request(f"{cell[0]}, {cell[1]} datasets, {cell[2]} members", context.region, centroids, target)
                )
                places.append((target, cell))
    evaluations = score_all(context, "scaling", requests)
    rows: list[dict] = []
    pretrained: dict[str, Evaluation] = {}
    scored: dict[Cell, dict[str, Evaluation]] = {}
    for (target, size), own in zip(places, evaluations, strict=True):
        if size is None:
            pretrained[target] = own
            rows += own.rows("pretrained", study="region scaling")
        else:
            scored.setdefault(size, {})[target] = own
            rows += own.rows(size[0], study="region scaling", datasets=size[1], members_each=size[2])
    gains = _gains(context, scored)
    means = [_Means(place, own, pretrained) for place, own in comparable(scored).items()]
    rows += _gain_rows(context, gains) + [row for own in means for row in own.rows(context.region.names)]
    return rows, _section(context, means, gains)


def comparable(scored: Mapping[Cell, Mapping[str, Scored]]) -> dict[str, dict[Cell, dict[str, Scored]]]:
    """Returns, by place, the sizes that most targets have, each with the targets that have all of these.

    A dataset with few members gives no large subsets, so targets differ in their sizes; a mean over targets may be
    compared with another only if both are over the same ones.

    Args:
      scored: by size and target.
    """
    found: dict[str, dict[Cell, dict[str, Scored]]] = {}
    for place in PLACES:
        sizes: dict[str, frozenset[Cell]] = {}
        for cell, by_target in scored.items():
            for target in by_target if cell[0] == place else ():
                sizes[target] = sizes.get(target, frozenset()) | {cell}
        if sizes:
            common, _ = Counter(sizes.values()).most_common(1)[0]
            targets = [target for target, own in sizes.items() if common <= own]
            found[place] = {
                cell: {target: scored[cell][target] for target in targets} for cell in scored if cell in common
            }
    return found


def count_points(seeds: int, datasets: Sequence[str], targets: Sequence[str], grid: Grid) -> int:
    """Returns how many points ``region_scaling`` evaluates where every member learned."""
    count = len(targets)
    for target in targets:
        for place, wanted, each in _cells(datasets, target, grid):
            free = len(set(datasets) - overlapping(target)) if place == "left out" else len(set(datasets)) - 1
            choices = math.comb(free, wanted - (place == "in")) * math.comb(seeds, each) ** wanted
            count += min(grid.subsets, choices)
    return count


def draw_subsets(
    generator: np.random.Generator,
    groups: Mapping[str, Sequence[int]],
    *,
    datasets: int,
    each: int,
    with_group: str | None,
    wanted: int,
) -> list[tuple[int, ...]]:
    """Draws different subsets: ``each`` of the numbers of ``datasets`` groups, one of them ``with_group`` if named.

    Returns fewer than ``wanted`` where there are not so many.
    """
    large = sorted(name for name, numbers in groups.items() if len(numbers) >= each)
    free = [name for name in large if name != with_group]
    drawn = datasets - (with_group is not None)
    if drawn > len(free) or (with_group is not None and with_group not in large):
        return []
    found: dict[tuple[int, ...], None] = {}
    for _ in range(200 * wanted):  # a few subsets are all found, of many the first are new
        names = [free[k] for k in generator.permutation(len(free))[:drawn]] + [with_group] * (with_group is not None)
        chosen = (generator.permutation(groups[name])[:each].tolist() for name in names if name is not None)
        found[tuple(sorted(number for own in chosen for number in own))] = None
        if len(found) == wanted:
            break
    return list(found)


def _cells(datasets: Sequence[str], target: str, grid: Grid) -> Iterator[Cell]:
    for place in PLACES:
        if place == "in" and target not in datasets:
            continue
        most = len(set(datasets) - overlapping(target)) if place == "left out" else len(set(datasets))
        for wanted in dict.fromkeys(min(size, most) for size in grid.datasets):
            for each in grid.members:
                yield place, wanted, each


def _centroids(context: Context, target: str, cell: Cell, subsets: int) -> Float[np.ndarray, "subsets members"]:
    place, wanted, each = cell
    own, seen = context.region.datasets, overlapping(target)
    groups = {
        name: [k for k, of in enumerate(own) if of == name] for name in set(own) if place == "in" or name not in seen
    }
    drawn = draw_subsets(
        context.generator("scaling", target, *map(str, cell)),
        groups,
        datasets=wanted,
        each=each,
        with_group=target if place == "in" else None,
        wanted=subsets,
    )
    rows = np.zeros((len(drawn), len(own)))
    for row, numbers in zip(rows, drawn, strict=True):
        row[list(numbers)] = 1 / len(numbers)
    return rows


def _gains(context: Context, scored: Mapping[Cell, Mapping[str, Evaluation]]) -> dict[tuple[str, str], Gain]:
    """By place and target, the loss of the largest subsets minus that of the smallest; p adjusted for the targets."""
    gains: dict[tuple[str, str], Gain] = {}
    for place in PLACES:
        cells = [cell for cell in scored if cell[0] == place]
        pairs = {}
        for target in context.targets:
            sizes = sorted((cell for cell in cells if target in scored[cell]), key=_members)
            if len(sizes) > 1:
                pairs[target] = (sizes[0], sizes[-1])
        differences = {
            target: mean_difference(
                scored[largest][target].losses_by_draw,
                scored[smallest][target].losses_by_draw,
                generator=context.generator("scaling gain", place, target),
            )
            for target, (smallest, largest) in pairs.items()
        }
        adjusted = holm([own.p_value for own in differences.values()])
        for (target, own), p_holm in zip(differences.items(), adjusted, strict=True):
            gains[place, target] = (own, float(p_holm), *pairs[target])
    return gains


def _gain_rows(context: Context, gains: Mapping[tuple[str, str], Gain]) -> list[dict]:
    return [
        result_row(
            _compared(place, smallest, largest),
            target,
            "difference of losses",
            own.mean,
            texts=len(context.datasets[target].splits["test"]),
            how=EXACT,
            members=context.region.names,
            interval=(own.low, own.high),
            study="region scaling",
            p_value=own.p_value,
            p_holm=p_holm,
        )
        for (place, target), (own, p_holm, smallest, largest) in gains.items()
    ]


@dataclass(frozen=True)
class _Means:
    """Means over the targets of a place."""

    place: str
    scored: Mapping[Cell, Mapping[str, Evaluation]]
    """By size, over the same targets."""
    pretrained: Mapping[str, Evaluation]

    @property
    def targets(self) -> list[str]:
        return list(self.scored[self.smallest])

    @property
    def smallest(self) -> Cell:
        return min(self.scored, key=_members)

    @property
    def largest(self) -> Cell:
        return max(self.scored, key=_members)

    @property
    def start(self) -> float:
        """The loss of the pretrained model."""
        return float(np.mean([self.pretrained[target].generalised_loss[0] for target in self.targets]))

    @property
    def by_cell(self) -> dict[Cell, Interval]:
        """The loss of each size, and how far it moves from subset to subset."""
        means = {}
        for cell, own in self.scored.items():
            count = min(len(found.losses) for found in own.values())
            means[cell] = mean_interval(np.mean([found.generalised_loss[:count] for found in own.values()], axis=0))
        return means

    @property
    def difference(self) -> Interval:
        """The largest minus the smallest subsets; interval over targets."""
        ends = ([self.scored[cell][target] for target in self.targets] for cell in (self.largest, self.smallest))
        large, small = ([float(own.generalised_loss.mean()) for own in found] for found in ends)
        return mean_interval(np.subtract(large, small))

    def rows(self, members: Sequence[str]) -> list[dict]:
        about: dict[str, Any] = {
            "texts": sum(self.pretrained[target].losses.shape[1] for target in self.targets),
            "how": EXACT,
            "members": members,
            "study": "region scaling",
        }

        def row(group: str, metric: str, value: float, ends: Interval | None = None) -> dict:
            interval = None if ends is None else (ends.low, ends.high)
            where = f"mean of {len(self.targets)} targets"
            return result_row(group, where, metric, value, interval=interval, **about)

        loss = "mean generalised loss"
        return [
            row(f"pretrained, {self.place}", loss, self.start),
            *(
                row(self.place, loss, own.value, own) | {"datasets": cell[1], "members_each": cell[2]}
                for cell, own in self.by_cell.items()
            ),
            row(
                _compared(self.place, self.smallest, self.largest),
                "difference of losses",
                self.difference.value,
                self.difference,
            ),
        ]


def _section(context: Context, means: Sequence[_Means], gains: Mapping[tuple[str, str], Gain]) -> Section:
    measured = []
    for mean in means:
        of_place = [gain for (where, _), gain in gains.items() if where == mean.place]
        sure = sum(difference.mean < 0 and p_holm < 0.05 for difference, p_holm, *_ in of_place)
        smallest, largest = (
            f"{_told(mean.by_cell[own])} nats with {_size(own)}" for own in (mean.smallest, mean.largest)
        )
        measured.append(
            f"target {mean.place}, mean of {len(mean.targets)}: {smallest}, {largest}, pretrained {mean.start:.3f}; "
            f"largest minus smallest {_told(mean.difference, '+.3f')}; lower beyond chance (Holm) on {sure} of "
            f"{len(of_place)} targets"
        )
    left_out = next((own for own in means if own.place == "left out"), None)
    return Section(
        "The centroid improves with more models",
        "How does the gain of the centroid grow with the number of members and of datasets?",
        "Not in the paper, which averages all members but the target's.",
        "; ".join(measured),
        _verdict(gains),
        text=(
            "Subsets are drawn from one population and share members, so intervals over subsets speak of this "
            "population; the largest sizes leave few subsets, or one, which then has no interval.",
            "Means are over the targets that have all sizes that most targets have.",
        ),
        figures=tuple(
            Figure(
                "curves",
                f"Loss of the centroid, target {mean.place}",
                f"Mean over {len(mean.targets)} targets; bands: 95 % intervals over subsets (Student's t), where there "
                "are at least two.",
                {
                    "series": [_series(mean.by_cell, each) for each in sorted({cell[2] for cell in mean.scored})],
                    "x_label": "datasets",
                    "y_label": "generalised loss (nats)",
                    "x_scale": "log",
                },
            )
            for mean in means
        ),
        tables=(
            Table(
                "Generalised loss of the centroid",
                (
                    "target",
                    "datasets",
                    "members of each",
                    "subsets",
                    "mean loss",
                    INTERVAL,
                    "minus pretrained",
                ),
                tuple(
                    (
                        *cell,
                        min(len(own.losses) for own in mean.scored[cell].values()),
                        found.value,
                        interval_cell(found.low, found.high),
                        found.value - mean.start,
                    )
                    for mean in means
                    for cell, found in mean.by_cell.items()
                ),
                "Mean over targets; interval over subsets (Student's t).",
            ),
            Table(
                "Largest against smallest subsets",
                ("target", "members of the target", "largest minus smallest", INTERVAL, "p, Holm"),
                tuple(
                    (target, place, own.mean, interval_cell(own.low, own.high), p_holm)
                    for (place, target), (own, p_holm, *_) in gains.items()
                ),
                "Difference of mean losses (nats), interval over subsets and test texts; p adjusted for the targets.",
            ),
        ),
        command=context.command,
        headline=_headline(left_out),
        paper_short="not in the paper; it averages all",
        measured_short=_short(left_out),
        power=power_told({target: own for (place, target), (own, *_) in gains.items() if place == "left out"}),
    )


def _headline(left_out: _Means | None) -> str:
    if left_out is None:
        return "No subset of the population leaves the target out."
    smallest, largest = (left_out.by_cell[own].value for own in (left_out.smallest, left_out.largest))
    return (
        f"On a dataset that none of them saw, the centroid of {_size(left_out.largest)} has a loss of {largest:.3f} "
        f"nats, of {_size(left_out.smallest)} {smallest:.3f}, and the pretrained model {left_out.start:.3f}."
    )


def _short(left_out: _Means | None) -> str:
    if left_out is None:
        return "no subset"
    ends = (left_out.smallest, left_out.largest)
    return ", ".join(f"{left_out.by_cell[own].value:.3f} nats with {_members(own)}" for own in ends)


def _series(means: Mapping[Cell, Interval], each: int) -> dict:
    own = sorted((cell[1], mean) for cell, mean in means.items() if cell[2] == each)
    return {
        "name": f"{each} member{'s' * (each > 1)} of each dataset",
        "x": [size for size, _ in own],
        "y": [mean.value for _, mean in own],
        "low": [mean.low if np.isfinite(mean.low) else mean.value for _, mean in own],
        "high": [mean.high if np.isfinite(mean.high) else mean.value for _, mean in own],
    }


def _told(mean: Interval, form: str = ".3f") -> str:
    return f"{mean.value:{form}}" + (f" ({mean.low:{form}} to {mean.high:{form}})" if np.isfinite(mean.low) else "")


def _compared(place: str, smallest: Cell, largest: Cell) -> str:
    return f"{place}, {largest[1]} x {largest[2]} - {smallest[1]} x {smallest[2]}"


def _members(cell: Cell) -> int:
    return cell[1] * cell[2]


def _size(cell: Cell) -> str:
    members, datasets = _members(cell), cell[1]
    return f"{members} member{'s' * (members > 1)} of {datasets} dataset{'s' * (datasets > 1)}"


def _verdict(gains: Mapping[tuple[str, str], Gain]) -> str:
    """Whether the largest left-out subsets are better than the smallest on every target, beyond chance."""
    return verdict(
        below(difference, p=p_holm, margin=NO_EFFECT_NATS)
        for (place, _), (difference, p_holm, *_) in gains.items()
        if place == "left out"
    )
