"""The loss over the triangle of three members, filled, and over the plane through them, as far as asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from wsr.engine.evaluate import Evaluation
from wsr.engine.lattice import lattice
from wsr.geometry import sampling
from wsr.region.region import Region
from wsr.report.document import Figure, Section, Table
from wsr.report.tables import INTERVAL, interval_cell
from wsr.statistics.bootstrap import bootstrap_mean
from wsr.statistics.interval import Interval
from wsr.store.row import result_row
from wsr.studies.harness.context import Context, Request, score_all
from wsr.studies.harness.verdict import above, below, power_told, verdict
from wsr.studies.lines import NO_BARRIER_NATS
from wsr.studies.pairs import KINDS


@dataclass(frozen=True, eq=False)
class Corners:
    """Three members and the dataset that the surface between them is scored on: that of one of them."""

    kind: str
    region: Region
    target: str


@dataclass(frozen=True, eq=False)
class Plane:
    """The plane through three members, with axes in units of distance between weights.

    The origin is the first member, the first axis leads to the second one, the third one lies above it.
    """

    gram: Float[np.ndarray, "3 3"]

    @property
    def sides(self) -> Float[np.ndarray, "2 2"]:
        """Positions of the second and third member."""
        steps = np.array([[-1.0, 1, 0], [-1, 0, 1]])
        return np.linalg.cholesky(steps @ self.gram @ steps.T)

    def positions(self, coefficients: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 2"]:
        """Where points of the plane lie, whose coefficients sum to 1."""
        return coefficients[:, 1:] @ self.sides

    def coefficients(
        self, x: Float[np.ndarray, " columns"], y: Float[np.ndarray, " rows"]
    ) -> Float[np.ndarray, "points 3"]:
        """The points of a rectangular grid; x runs fastest."""
        skew = np.linalg.inv(self.sides)
        rows = [sampling.plane((x * skew[0, 0] + up * skew[1, 0]).tolist(), [up * skew[1, 1]]) for up in y.tolist()]
        return np.concatenate(rows)

    def base(self) -> tuple[Float[np.ndarray, "1 2"], float]:
        """The point of the plane that is nearest to the base, and how far the base lies from it."""
        steps = np.array([[-1.0, 1, 0], [-1, 0, 1]])
        along = -(steps @ self.gram)[:, 0]  # products with the way from the first member to the base
        share = np.linalg.solve(steps @ self.gram @ steps.T, along)
        return share[None] @ self.sides, float(np.sqrt(max(self.gram[0, 0] - along @ share, 0.0)))


def landscape(context: Context, *, degree: int, grid: int, reach: float) -> tuple[list[dict], Section]:
    """Scores triangles of members of one dataset, of one family and of several families, and their planes.

    Args:
      context: the population.
      degree: steps along an edge of a triangle.
      grid: points along an edge of the square that is cut out of a plane.
      reach: how far the square goes beyond the members, in longest edges of their triangle.
    """
    drawn = draw_corners(context)
    triangle = lattice(3, degree)
    planes = [Plane(corners.region.gram) for corners in drawn]
    axes = [_square(plane, grid, reach) for plane in planes]
    requests = []
    for corners, plane, (x, y) in zip(drawn, planes, axes, strict=True):
        both = np.concatenate([np.zeros((1, 3)), sampling.centroid(3)])
        parts = (triangle, plane.coefficients(x, y), both)
        requests += [Request(corners.kind, corners.region, part, corners.target) for part in parts]
    scored = score_all(context, "landscape", requests)
    rows: list[dict] = []
    figures, cells, heights, walls = [], [], [], []
    for number, (corners, plane, square) in enumerate(zip(drawn, planes, axes, strict=True)):
        filled, around, extra = scored[3 * number : 3 * number + 3]
        for part, own in (("triangle", filled), ("plane", around), ("base and centroid", extra)):
            rows += own.rows(corners.kind, study="landscape", part=part)
        height = _interval(context, corners, "height", filled.losses_by_draw, partial(_height, triangle))
        outwards = np.concatenate([filled.losses_by_draw, around.losses_by_draw[:, _rim(grid)]], axis=1)
        wall = _interval(context, corners, "wall", outwards, partial(_wall, len(filled.losses)))
        heights.append(height)
        walls.append(wall)
        rows += [_row(corners, "barrier of the triangle", height, filled), _row(corners, "wall", wall, filled)]
        figures += [_triangle(corners, triangle, filled), _contours(corners, plane, square, around, extra, reach)]
        loss = filled.generalised_loss
        told = (
            f"{name} {value:.3f}"
            for name, value in zip(
                ("pretrained", "centroid", "lowest in the triangle"), [*extra.generalised_loss, loss.min()], strict=True
            )
        )
        cells += [
            (corners.kind, corners.target, "barrier of the triangle", *_values(height), "; ".join(told)),
            (corners.kind, corners.target, "rim of the square minus triangle", *_values(wall), ""),
        ]
    section = Section(
        "Flat between three models, steep around",
        "Is the loss low all over the triangle of three members, and higher all around it?",
        "No surface is known from the paper; by readers' notes, a basin with a flat base and steep walls.",
        "; ".join(
            f"{corners.kind}: barrier {height.value:.3f} nats (to {height.high:.3f}), rim minus triangle "
            f"{wall.value:+.3f} ({wall.low:+.3f} to {wall.high:+.3f})"
            for corners, height, wall in zip(drawn, heights, walls, strict=True)
        ),
        verdict([*(below(own, NO_BARRIER_NATS) for own in heights), *(above(own) for own in walls)]),
        text=(
            f"It counts as holding for three members when the interval of the barrier of their triangle ends at "
            f"{NO_BARRIER_NATS} nats or less and that of the rise to the rim of the square lies above 0.",
        ),
        figures=tuple(figures),
        tables=(
            Table(
                "Flat between, steep around",
                ("members of", "scored on", "quantity", "nats", INTERVAL, "losses"),
                tuple(cells),
                "Barrier: the largest rise of the loss over the plane through the losses of the corners; 0 means none, "
                "and noise alone makes it positive. Rim: mean loss on the border of the square minus that of the "
                "triangle. Intervals: bootstrap over test texts; three members are no sample to draw from.",
            ),
        ),
        command=context.command,
        headline=_headline(heights, walls),
        paper_short="a flat base and steep walls",
        measured_short=f"barriers up to {max(own.value for own in heights):.3f}, walls {_range(walls)} nats"
        if drawn
        else "no three members",
        power=power_told({f"rim, {corners.kind}": wall for corners, wall in zip(drawn, walls, strict=True)}),
    )
    return rows, section


def _headline(heights: Sequence[Interval], walls: Sequence[Interval]) -> str:
    if not heights:
        return "No three members of one target are there to span a triangle."
    return (
        f"In the triangle between three models the loss rises by at most {max(own.value for own in heights):.3f} nats "
        f"above its corners; on a square around it the loss is {_range(walls)} nats from that inside."
    )


def _range(intervals: Sequence[Interval]) -> str:
    return f"{min(own.value for own in intervals):+.3f} to {max(own.value for own in intervals):+.3f}"


def draw_corners(context: Context) -> list[Corners]:
    """Draws three members of each kind for the first target that has them; datasets differ where they can."""
    found = []
    for kind in KINDS:
        for target in context.targets:
            names = _names(context, kind, target)
            if names:
                found.append(Corners(kind, _named(context.region, names), target))
                break
    return found


def _names(context: Context, kind: str, target: str) -> list[str]:
    members = context.region.members
    order = context.generator("landscape", target).permutation(len(members))
    own = [members[k] for k in order if members[k].dataset == target]
    if not own:
        return []
    family = own[0].family
    others = [
        member
        for member in (members[k] for k in order)
        if member.dataset != target and (member.family == family) == (kind == "same family")
    ]
    # One of each dataset before a second one of any.
    seen: dict[str, int] = {}
    ranked: list[tuple[int, int, str]] = []
    for member in others:
        seen[member.dataset] = seen.get(member.dataset, 0) + 1
        ranked.append((seen[member.dataset], len(ranked), member.name))
    names = (
        [member.name for member in own] if kind == "same dataset" else [own[0].name, *(n for *_, n in sorted(ranked))]
    )
    return names[:3] if len(names) > 2 else []


def _named(region: Region, names: Sequence[str]) -> Region:
    return region.where(lambda member: member.name in names)


def _square(plane: Plane, grid: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The axes of a square around the triangle."""
    corners = plane.positions(np.eye(3))
    middle = (corners.min(axis=0) + corners.max(axis=0)) / 2
    longest = max(float(np.linalg.norm(a - b)) for a in corners for b in corners)
    half = (0.5 + reach) * longest
    x, y = (np.linspace(centre - half, centre + half, grid) for centre in middle)
    return x, y


def _rim(grid: int) -> Int[np.ndarray, " points"]:
    inner = np.zeros((grid, grid))
    inner[1:-1, 1:-1] = 1
    return np.flatnonzero(inner.ravel() == 0)


def _height(triangle: np.ndarray, losses: Float[np.ndarray, "points draws"]) -> Float[np.ndarray, " draws"]:
    """The largest rise over the plane through the corners; the corners themselves are on it."""
    corners = [int(np.flatnonzero(row == 1)[0]) for row in triangle.T]
    return np.maximum((losses - triangle @ losses[corners]).max(axis=0), 0.0)


def _wall(inside: int, losses: Float[np.ndarray, "points draws"]) -> Float[np.ndarray, " draws"]:
    return losses[inside:].mean(axis=0) - losses[:inside].mean(axis=0)


def _interval(context: Context, corners: Corners, what: str, losses: np.ndarray, statistic: partial) -> Interval:
    generator = context.generator("landscape", corners.kind, what)
    return bootstrap_mean([losses], [corners.target], statistic, generator=generator)


def _triangle(corners: Corners, triangle: np.ndarray, filled: Evaluation) -> Figure:
    return Figure(
        "triangle",
        f"Between three members, {corners.kind}",
        f"Generalised loss on {corners.target}; a dot for each point that was evaluated.",
        {
            "corners": list(corners.region.names),
            "coefficients": triangle,
            "values": filled.generalised_loss,
            "value_label": "generalised loss (nats)",
            "marks": [{"coefficients": [1 / 3] * 3, "label": "centroid"}],
        },
    )


def _contours(
    corners: Corners,
    plane: Plane,
    square: tuple[np.ndarray, np.ndarray],
    around: Evaluation,
    extra: Evaluation,
    reach: float,
) -> Figure:
    x, y = square
    places = plane.positions(np.eye(3))
    centre = plane.positions(sampling.centroid(3))[0]
    (base,), off = plane.base()
    pretrained = float(extra.generalised_loss[0])
    closed = [*places, places[0]]
    marks: Sequence[tuple[np.ndarray, str, str]] = [
        *((place, name, "members") for place, name in zip(places, corners.region.names, strict=True)),
        (centre, "centroid", "centroid"),
        (base, "pretrained", "base"),
    ]
    return Figure(
        "contours",
        f"The plane through three members, {corners.kind}",
        f"Generalised loss on {corners.target}, to {reach:g} edges of the triangle beyond it; a dot for each point "
        f"that was evaluated. The pretrained model lies {off:.2f} away from the plane and is shown at its foot; its "
        f"own loss is {pretrained:.3f}.",
        {
            "x": x,
            "y": y,
            "values": around.generalised_loss.reshape(len(y), len(x)),
            "x_label": "towards the second member (L2 distance of weights)",
            "y_label": "away from that line (L2 distance of weights)",
            "value_label": "generalised loss (nats)",
            "outlines": [{"x": [float(p[0]) for p in closed], "y": [float(p[1]) for p in closed]}],
            "marks": [
                {"x": float(place[0]), "y": float(place[1]), "label": label, "group": group}
                for place, label, group in marks
            ],
        },
    )


def _values(interval: Interval) -> tuple[float, str | None]:
    return interval.value, interval_cell(interval.low, interval.high)


def _row(corners: Corners, metric: str, interval: Interval, evaluation: Evaluation) -> dict:
    return result_row(
        corners.kind,
        corners.target,
        metric,
        interval.value,
        texts=evaluation.losses.shape[1],
        how=evaluation.how[0],
        members=corners.region.names,
        interval=(interval.low, interval.high),
        study="landscape",
    )
