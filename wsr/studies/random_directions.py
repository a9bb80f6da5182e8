"""What lies around a centroid: random directions get worse, the way to the origin does not.

Two centroids are left: that of the target's own members, as in the paper (there of MNLI's), and that of all members.
The origin may be the zero vector or the pretrained model; which of them the paper means is not known here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from wsr.engine.evaluate import Evaluation
from wsr.geometry.trees import flatten
from wsr.region.region import Region
from wsr.report.document import Cell, Figure, Section, Table
from wsr.report.tables import interval_cell
from wsr.statistics.bootstrap import bootstrap_mean
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import Part, above, all_of, below, power_told, verdict
from wsr.studies.lines import NO_BARRIER_NATS
from wsr.types import Params

HOMEWARD_STEPS = 4
"""Points on the way from a centroid to the pretrained model, the latter among them."""


@dataclass(frozen=True, eq=False)
class Start:
    """A centroid to leave."""

    context: Context
    region: Region
    """The members it is the average of."""
    members: str
    """These members in words."""
    suffix: str
    """Ends the names of groups of points."""
    origin: str
    """Identifies the centroid in the hash of a point."""
    radii: tuple[float, ...]
    directions: int

    @cached_property
    def radius(self) -> float:
        """Mean distance of the members from the centroid."""
        return self.region.radius()

    @cached_property
    def params(self) -> Params:
        """Parameters of the centroid."""
        return self.region.params(self.region.centroid())

    @cached_property
    def length(self) -> float:
        """Distance of the centroid from the zero vector."""
        return float(np.linalg.norm([np.linalg.norm(leaf) for leaf in flatten(self.params).values()]))

    @property
    def to_pretrained(self) -> Float[np.ndarray, " steps"]:
        """Distances from the centroid of the points on the way to the pretrained model, in radii."""
        centre = self.region.centroid()
        away = float(np.sqrt(centre @ self.region.gram @ centre))
        return (1 - np.linspace(0.75, 0.0, HOMEWARD_STEPS)) * away / self.radius

    @property
    def to_zero(self) -> Float[np.ndarray, " steps"]:
        """Distances of the points on the way to the zero vector, in radii; none is past it."""
        return np.minimum(self.radii, self.length / self.radius)

    def requests(self, target: str) -> list[Request]:
        """Returns the centroid, the walks in random directions, and the ways to the zero vector and the base."""
        region, centre = self.region, self.region.centroid()
        nobody, corners = region.emptied(), np.eye(len(self.radii))
        requests = [Request(f"centroid{self.suffix}", region, centre[None], target)]
        for number in range(self.directions):
            steps = (
                self.context.random_member(number, radius * self.radius, lambda: self.params, self.origin)
                for radius in self.radii
            )
            requests.append(Request(f"random direction{self.suffix}", nobody.joined(steps), corners, target))
        shrunk = (
            self.context.scaled_member(1 - distance * self.radius / self.length, lambda: self.params, self.origin)
            for distance in self.to_zero
        )
        requests.append(Request(f"towards the zero vector{self.suffix}", nobody.joined(shrunk), corners, target))
        # The pretrained model is where the centroid's own coefficients have shrunk to nothing.
        home = np.linspace(0.75, 0.0, HOMEWARD_STEPS)[:, None] * centre
        requests.append(Request(f"towards the pretrained model{self.suffix}", region, home, target))
        return requests


@dataclass(frozen=True, eq=False)
class Left:
    """A centroid and how the loss changes on the ways from it."""

    start: Start
    centre: Evaluation
    walks: Sequence[Evaluation]
    shrunk: Evaluation
    home: Evaluation
    rises: Sequence[Interval]
    """What a random step of each length adds."""
    zero_rises: Sequence[Interval]
    """What a step towards the zero vector of each length adds."""
    home_rise: Interval
    """What the points before the pretrained model add on average."""

    @property
    def past(self) -> int:
        """Index of the first length past the radius, or of the last length."""
        return next((k for k, radius in enumerate(self.start.radii) if radius > 1), len(self.start.radii) - 1)

    @property
    def risen(self) -> list[float]:
        """Lengths of random steps that add to the loss beyond chance."""
        return [radius for radius, rise in zip(self.start.radii, self.rises, strict=True) if rise.low > 0]


def random_directions(
    context: Context, *, radii: tuple[float, ...], directions: int, targets: int = 1
) -> tuple[list[dict], Section]:
    """Walks away from the centroids of the target's members and of all members.

    Args:
      context: the population; the first target is scored.
      radii: distances from a centroid, in units of its members' mean distance from it; ascending.
      directions: random directions to walk.
      targets: how many are asked the same question: all their intervals hold together.
    """
    region, target = context.region, context.targets[0]
    starts = [Start(context, region, f"all {len(region)} members", "", "centroid", radii, directions)]
    own = region.where(lambda member: member.dataset == target)
    if 1 < len(own) < len(region):
        told = f"the {len(own)} members of {target}"
        starts.insert(0, Start(context, own, told, ", own members", f"centroid of {target}", radii, directions))
    requests = [start.requests(target) for start in starts]
    corners = Request("member", region, np.eye(len(region)), target)
    *scored, members = score_all(context, "directions", [*(one for each in requests for one in each), corners])
    each = directions + 3
    confidence = 1 - 0.05 / (targets * (2 * len(radii) + 1))
    left = [_left(start, scored[k * each : (k + 1) * each], target, confidence) for k, start in enumerate(starts)]
    rows = [
        row
        for request, own_points in zip(
            [*(one for of in requests for one in of), corners], [*scored, members], strict=True
        )
        for row in own_points.rows(request.group, study="directions")
    ]
    for one in left:
        rows += _interval_rows(target, one)
    section = Section(
        f"A random step hurts, on {target}",
        "Does a random step from the centroid, as long as the members are away from it, make the model worse?",
        "A random direction of the same length from the centroid of MNLI's models degrades past the fine-tuned radius; "
        "the direction towards the origin does not, even far beyond the region.",
        "; ".join(_measured(one) for one in left),
        verdict(
            judged(one.rises[one.past], one.zero_rises[one.past], None if one.start.suffix else one.home_rise)
            for one in left
        ),
        text=_text(left, target, members),
        figures=tuple(_curve(one, target) for one in left),
        tables=tuple(_table(one, targets) for one in left),
        command=context.command,
        headline=_headline(left[0], target),
        paper_short="past the radius; not towards the origin",
        measured_short=_short(left[0]),
        power=power_told(
            {f"a step of {radii[one.past]:g} radii from the centroid of {one.start.members}": one.rises[one.past]
             for one in left},
            confidence=confidence,
        ),
    )  # fmt: skip
    return rows, section


def judged(rise: Interval, zero: Interval, home: Interval | None = None) -> Part:
    """Returns whether a random step past the radius hurts while an equally long one towards the zero vector does not.

    The second alone says nothing: if no step of this length hurts, neither does that one.

    Args:
      rise: what the random step adds to the loss.
      zero: what the step towards the zero vector adds.
      home: what the way to the pretrained model adds; None from the centroid of the target's own members, where it
        gives up what they learned.
    """
    ways = [zero] if home is None else [zero, home]
    return all_of([above(rise, NO_BARRIER_NATS), *(below(way, NO_BARRIER_NATS) for way in ways)])


def _left(start: Start, scored: Sequence[Evaluation], target: str, confidence: float) -> Left:
    centre, *walks, shrunk, home = scored

    def rise(what: str, steps: Sequence[np.ndarray]) -> Interval:
        """What points add to the loss of the centroid, mean over walks."""
        return bootstrap_mean(
            [np.stack([step, centre.losses_by_draw[:, 0]], axis=1) for step in steps],
            [target] * len(steps),
            _added,
            generator=start.context.generator("rise", target, f"{what}{start.suffix}"),
            confidence=confidence,
            resamples=10_000,
        )

    lengths = list(enumerate(start.radii))
    return Left(
        start,
        centre,
        walks,
        shrunk,
        home,
        [rise(repr(radius), [walk.losses_by_draw[:, step] for walk in walks]) for step, radius in lengths],
        [rise(f"zero {radius!r}", [shrunk.losses_by_draw[:, step]]) for step, radius in lengths],
        rise("home", [home.losses_by_draw[:, :-1].mean(axis=1)]),
    )


def _added(losses: Float[np.ndarray, "points draws"]) -> Float[np.ndarray, " draws"]:
    """What the first point has above the second."""
    return losses[0] - losses[1]


def _interval_rows(target: str, left: Left) -> list[dict]:
    suffix, radii = left.start.suffix, left.start.radii
    found = [
        (f"random direction{suffix}", f"rise at {r:g} radii", own) for r, own in zip(radii, left.rises, strict=True)
    ]
    found += [
        (f"towards the zero vector{suffix}", f"rise at {r:g} radii", own)
        for r, own in zip(left.start.to_zero, left.zero_rises, strict=True)
    ]
    found.append((f"towards the pretrained model{suffix}", "mean rise on the way", left.home_rise))
    return [
        result_row(
            group,
            target,
            metric,
            rise.value,
            texts=left.centre.losses.shape[1],
            how=left.centre.how[0],
            members=left.start.region.names,
            interval=(rise.low, rise.high),
            study="directions",
        )
        for group, metric, rise in found
    ]


def _curve(left: Left, target: str) -> Figure:
    start, radii = float(left.centre.generalised_loss[0]), left.start.radii
    ways = {
        "towards the zero vector": (left.start.to_zero, left.shrunk),
        "towards the pretrained model": (left.start.to_pretrained, left.home),
    }
    series = [
        {
            "name": f"random direction {n}",
            "group": "random direction",
            "x": [0.0, *radii],
            "y": [start, *walk.generalised_loss],
        }
        for n, walk in enumerate(left.walks)
    ]
    series += [
        {"name": way, "group": way, "x": [0.0, *distances], "y": [start, *points.generalised_loss]}
        for way, (distances, points) in ways.items()
    ]
    return Figure(
        "curves",
        f"Leaving the centroid of {left.start.members}, scored on {target}",
        "Distance in units of the members' mean distance from the centroid (its radius).",
        {
            "series": series,
            "x_label": "distance from the centroid (radii)",
            "y_label": "generalised loss (nats)",
            "marks": [{"x": 1.0, "label": "radius of the members"}],
        },
    )


def _table(left: Left, targets: int) -> Table:
    lines: list[tuple[Cell, ...]] = [
        (radius, own.value, interval_cell(own.low, own.high), zero.value, interval_cell(zero.low, zero.high))
        for radius, own, zero in zip(left.start.radii, left.rises, left.zero_rises, strict=True)
    ]
    together = targets * (2 * len(left.start.radii) + 1)
    return Table(
        f"What a step from the centroid of {left.start.members} adds to the loss",
        ("length (radii)", "random direction (nats)", "interval", "towards the zero vector (nats)", "interval of it"),
        tuple(lines),
        f"Loss at the centroid {float(left.centre.generalised_loss[0]):.3f}; at the pretrained model "
        f"{float(left.home.generalised_loss[-1]):.3f}. No step goes past the zero vector, which is "
        f"{left.start.length / left.start.radius:.3g} radii away. Intervals: bootstrap over directions and test texts, "
        f"paired over the texts; 95 % for all {together} intervals of {targets} "
        f"{'target' if targets == 1 else 'targets'} together (Bonferroni).",
    )


def _text(left: Sequence[Left], target: str, members: Evaluation) -> tuple[str, ...]:
    text = [
        f"The mean distance of {one.start.members} from their centroid, one radius, is {one.start.radius:.2f}, which "
        f"is {100 * one.start.radius / one.start.length:.1f} % of the length of its own weights "
        f"({one.start.length:.0f}): a random step of that length, spread over all of them, is small for each."
        for one in left
    ]
    if len(left) == 1:
        text.append(f"Fewer than two members of {target} learned it, so there is no centroid of theirs to leave.")
    text.append(
        f"Both readings of the origin are shown. The way to the pretrained model gives up what the members of {target} "
        "learned; it counts for the verdict only from the centroid of all members."
    )
    text.append(f"Loss at the members: {float(members.generalised_loss.mean()):.3f} on average.")
    return tuple(text)


def _measured(left: Left) -> str:
    radii, past, home = left.start.radii, left.past, left.home_rise
    onset = f"from {left.risen[0]:g} radii on" if left.risen else f"at no length up to {radii[-1]:g} radii"
    return (
        f"from the centroid of {left.start.members}, random steps add to the loss {onset} ({left.rises[0].value:+.3f} "
        f"nats at {radii[0]:g}, {left.rises[-1].value:+.3f} at {radii[-1]:g}); a step of {radii[past]:g} radii towards "
        f"the zero vector adds {left.zero_rises[past].value:+.3f}, the way to the pretrained model {home.value:+.3f} "
        f"({home.low:+.3f} to {home.high:+.3f})"
    )


def _headline(left: Left, target: str) -> str:
    radii = left.start.radii
    if left.risen:
        times = "the models' distance" if left.risen[0] == 1 else f"{left.risen[0]:g} times the models' distance"
        hurts = f"raises the loss on {target} from {times} on"
    else:
        hurts = f"raises no loss on {target} beyond doubt, up to {radii[-1]:g} times the models' distance"
    return (
        f"A random step from the centroid of {left.start.members} {hurts}; the way to the pretrained model adds "
        f"{left.home_rise.value:+.3f} nats."
    )


def _short(left: Left) -> str:
    if left.risen:
        onset = f"from {left.risen[0]:g} {'radius' if left.risen[0] == 1 else 'radii'} on"
    else:
        onset = f"not up to {left.start.radii[-1]:g} radii"
    zero = left.zero_rises[left.past].value
    return f"{onset}; zero {zero:+.3f}, base {left.home_rise.value:+.3f}"
