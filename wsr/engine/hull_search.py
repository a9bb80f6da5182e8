"""The best point of a hull for one or several datasets: searched on polynomials, evaluated exactly.

The members, their centroid and some nodes between them are evaluated exactly. Polynomials through their logits
(``wsr.engine.hull_polynomial``) predict the loss everywhere else, and gradient descent on them proposes a winner and
its runners-up. These are evaluated exactly too and become nodes of the next polynomials, as long as that pays.

The point of lowest loss fits the validation texts better than new ones. So the answer lies between the centroid and
this point, and cross-validation over the validation texts says how far from the centroid. It runs on the polynomials
and needs no forward pass.

The probe split fits the head of a point and the validation split gives its loss; the test split is not read. Decoders
need no probe: a half of the plain texts or questions gives the loss, and the other half is not read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Array, Float, Int

from wsr.data.dataset import Dataset
from wsr.engine.cross_validation import FOLDS, dealt
from wsr.engine.descent import descend
from wsr.engine.evaluate import Protocol
from wsr.engine.hull_polynomial import (
    LogitPolynomial,
    Points,
    draw_faces,
    exact_outputs,
    one_penalty,
)
from wsr.engine.lattice import Interpolation, count, sparse_lattice
from wsr.engine.objective import objective_of, on_validation
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.sampling import centroid, corners
from wsr.region.exposure import Target
from wsr.region.region import Region
from wsr.runtime import seeds

POINTS = 100
"""Largest number of points that are evaluated besides the members, unless another is given."""
SUPPORT = 30
"""Largest number of members between which a search looks."""
HIGHEST_DEGREE = 4
_MOST_TERMS = 500
_ROUND = 8  # points that are proposed together
_WORTH = 1e-3  # share by which a round must lower the best loss
_PATIENCE = 2  # rounds in a row that may fail to
_STARTS = 32  # descents of a round
_POOL = 2000  # points among which they start
_APART = 0.05  # least sum of absolute differences between the coefficients of a runner-up and of other points
_NEW = 0.005  # the same for the winner
_SHARES = 11  # points tried between the centroid and the point of lowest loss

Outputs = Callable[[Points], Sequence[Float[np.ndarray, "points texts outputs"]]]
"""Returns the exact outputs of points, one array per dataset, see ``wsr.engine.hull_polynomial.exact_outputs``."""


@dataclass(frozen=True, eq=False, repr=False)
class HullSearch:
    """The points that a search evaluated exactly, with what was predicted of them."""

    points: Points
    """The centroid, the members, nodes, then proposed points in the order in which they were evaluated."""
    losses: Float[np.ndarray, "points datasets"]
    """Exact mean validation loss of each point."""
    predicted: Float[np.ndarray, "points datasets"]
    """What polynomials predicted before the point was evaluated; NaN for points that were not proposed by them."""
    protocols: tuple[Protocol | None, ...]
    """The classifier of each dataset; None for what decoders are scored on."""
    answer: int
    """The number of the chosen point."""
    share: float
    """How far the answer is from the centroid, as a share of the way to the point of lowest loss. Of more than
    ``SUPPORT`` members, the centroid is that of the members between which the search looked."""

    def __repr__(self) -> str:
        shown = (self.answer, self.order[0], 0)
        answer, lowest, centroid = (", ".join(f"{own:.4f}" for own in self.losses[at].tolist()) for at in shown)
        return (
            f"HullSearch: {len(self.points)} points evaluated exactly, {len(self.proposed)} of them proposed\n"
            f"  validation loss: answer {answer}, lowest {lowest}, centroid {centroid}"
        )

    @property
    def relative(self) -> Float[np.ndarray, " points"]:
        """What was minimised: the mean over datasets of the loss divided by the centroid's loss."""
        return relative(self.losses)

    @property
    def order(self) -> Int[np.ndarray, " points"]:
        """The numbers of the points, that of lowest loss first."""
        return np.argsort(self.relative, kind="stable")

    @property
    def coefficients(self) -> Float[np.ndarray, " members"]:
        """The chosen point."""
        return self.points[self.answer]

    @property
    def proposed(self) -> Int[np.ndarray, " proposed"]:
        """The numbers of the points that polynomials proposed, that of lowest loss first."""
        return self.order[np.isfinite(self.predicted[self.order, 0])]


def search_hull(
    region: Region,
    datasets: Sequence[Target],
    *,
    points: int = POINTS,
    protocol: Protocol = Protocol(),
    seed: int = 0,
    settings: Settings = Settings(),
) -> HullSearch:
    """Finds a point of the convex hull with a low loss on texts like those of the validation split.

    With several datasets it minimises the mean of their losses, each divided by the centroid's loss on that dataset, so
    every dataset counts equally. Of more than ``SUPPORT`` members, a search on polynomials of degree 1, which need no
    points but the members, first chooses those between which to look.

    Args:
      region: the population.
      datasets: datasets, whose probe splits fit the heads and whose validation splits give the losses; or, for
        decoders, plain texts or questions, of which a half gives the losses.
      points: largest number of points to evaluate exactly besides the members, at least 2: the centroid and the answer.
      protocol: the classifier of datasets, the linear probe with one draw. Without ``inverse_l2`` the penalty of each
        dataset is the one that cross-validation chooses at the centroid.
      seed: seed of the points among which searches start.
      settings: chunk size, memory, devices, precision, cache of results and counter, advanced once for each point and
        dataset.

    Returns:
      All points that were evaluated exactly; ``coefficients`` is the answer.

    Raises:
      WsrError: if the region has no members, no dataset is given, ``points`` is less than 2, or the protocol is another
        one.

    Example:
      >>> import wsr
      >>> from wsr.engine.hull_search import search_hull
      >>> region = wsr.made_up_region(3)
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> found = search_hull(region, [data], points=12, protocol=wsr.Protocol(inverse_l2=1.0))
      >>> len(found.points) <= 3 + 12, found.coefficients.shape
      (True, (3,))
    """
    if not region.members:
        raise WsrError("learned coefficients: the region has no members")
    if not datasets:
        raise WsrError("learned coefficients: no dataset is given; name at least one")
    if points < 2:
        raise WsrError(f"learned coefficients: points must be at least 2, the centroid and the answer; found {points}")
    if protocol.probe != "linear" or protocol.draws != 1:
        raise WsrError(
            f"learned coefficients: expected the linear probe with 1 draw, found {protocol.probe} with {protocol.draws}"
        )
    judged = [on_validation(own) for own in datasets]
    quiet = replace(settings, counter=None)
    protocols = [
        replace(protocol, inverse_l2=protocol.inverse_l2 or one_penalty(region, own, settings=quiet))
        if isinstance(own, Dataset)
        else None
        for own in judged
    ]

    def outputs(rows: Points) -> list[Float[np.ndarray, "points texts outputs"]]:
        return [
            exact_outputs(region, rows, dataset, protocol=own, settings=settings)
            for dataset, own in zip(judged, protocols, strict=True)
        ]

    return search(outputs, judged, len(region), points=points, protocols=tuple(protocols), seed=seed)


def search(
    outputs: Outputs,
    datasets: Sequence[Target],
    members: int,
    *,
    points: int,
    protocols: tuple[Protocol | None, ...] = (),
    seed: int = 0,
) -> HullSearch:
    """Searches a hull whose exact outputs are given as a function of the coefficients, see ``search_hull``.

    Args:
      outputs: the exact outputs of points.
      datasets: what gives the losses; of a dataset the test split.
      members: number of members.
      points: largest number of points besides the members.
      protocols: the classifier of each dataset.
      seed: seed of the points among which searches start.
    """
    found = Evaluated(outputs, datasets, members)
    found.add(centroid(members))
    if members == 1:
        return HullSearch(found.points, found.losses, found.predicted, protocols, answer=0, share=1.0)
    found.add(corners(members))
    used = np.arange(members)
    if members > SUPPORT:
        mixed, _ = _proposed(found.polynomials(used, 1), found, used, seed)
        used = support(mixed, relative(found.losses)[1:], SUPPORT)
        found.add(centroid(members, used.tolist())[: points - 2])
    room = max(members + points - 1 - len(found.points), 0)  # one is left for the answer
    nodes, _ = sparse_lattice(len(used), len(used) + min(points // 2, room), HIGHEST_DEGREE)
    wide = _widened(nodes, used, members)
    known = np.abs(wide[:, None] - found.points[None]).max(axis=-1).min(axis=1) < 1e-9
    found.add(wide[~known])
    degree = max(own for own in range(1, HIGHEST_DEGREE + 1) if own == 1 or count(len(used), own) <= _MOST_TERMS)
    idle = 0
    while idle < _PATIENCE and (room := members + points - 1 - len(found.points)) > 0:
        best = relative(found.losses).min()
        proposals, predicted = _proposed(found.polynomials(used, degree), found, used, seed)
        found.add(proposals[:room], predicted[:room])
        idle = 0 if relative(found.losses).min() < (1 - _WORTH) * best else idle + 1
    share, answer = _answer(found, used, degree)
    return HullSearch(found.points, found.losses, found.predicted, protocols, answer=answer, share=share)


def support(points: Points, alone: Float[np.ndarray, " members"], most: int) -> Int[np.ndarray, " support"]:
    """Returns the members that good points use most and, if these are too few, those that are best alone.

    Args:
      points: good points.
      alone: the loss of each member.
      most: number of members to return.

    Returns:
      The numbers of the members, in ascending order.

    Example:
      >>> import numpy as np
      >>> from wsr.engine.hull_search import support
      >>> support(np.array([[0.1, 0.9, 0.0, 0.0]]), np.array([3.0, 2.0, 5.0, 4.0]), 3).tolist()
      [0, 1, 3]
    """
    return np.sort(np.lexsort([alone, -points.max(axis=0, initial=0.0)])[:most])


def relative(losses: Float[np.ndarray, "points datasets"]) -> Float[np.ndarray, " points"]:
    """Returns the mean over datasets of each point's loss divided by the loss of the first point, the centroid.

    Args:
      losses: one row per point, one column per dataset.
    """
    return (losses / losses[0]).mean(axis=1)


def cross_validated_share(
    polynomials: Sequence[LogitPolynomial], starts: Points, span: Float[np.ndarray, " datasets"]
) -> float:
    """Returns how far from the centroid towards the point of lowest loss the loss on other texts is lowest.

    Each fold leaves a fifth of the texts out, searches the best point for the others, and tries points between the
    centroid and that point on the texts left out. With fewer texts than folds the share is 1.

    Args:
      polynomials: one per dataset, of one region.
      starts: where the searches start; the first is the centroid.
      span: the loss of each dataset that counts as 1.
    """
    shares, total = np.linspace(0, 1, _SHARES), np.zeros(_SHARES)
    hands = [dealt(own.objective.labels, FOLDS, "validation texts") for own in polynomials]
    weights = np.ones((len(starts), len(polynomials)))
    if min(map(len, hands)) < FOLDS:
        return 1.0
    for fold in range(FOLDS):
        seen, left_out = (
            [own.of_texts(np.flatnonzero((hand == fold) == out)) for own, hand in zip(polynomials, hands, strict=True)]
            for out in (False, True)
        )
        ends = descend(seen, starts, weights, _mean, ideal=np.zeros_like(span), span=span)
        best = ends[(_losses(seen, ends) / span).mean(axis=1).argmin()]
        total += (_losses(left_out, starts[0] + shares[:, None] * (best - starts[0])) / span).mean(axis=1)
    return float(shares[total.argmin()])


class Evaluated:
    """The points that were evaluated exactly so far."""

    def __init__(self, outputs: Outputs, datasets: Sequence[Target], members: int):
        self.points = np.zeros((0, members))
        self.losses = np.zeros((0, len(datasets)))
        self.predicted = np.zeros((0, len(datasets)))
        self._outputs, self._datasets = outputs, datasets
        self._values: list[list[Float[np.ndarray, "points texts outputs"]]] = [[] for _ in datasets]

    def add(self, points: Points, predicted: Float[np.ndarray, "points datasets"] | None = None) -> None:
        """Evaluates points exactly.

        Args:
          points: one row per point.
          predicted: the losses that polynomials predict, if they proposed the points.
        """
        if not len(points):
            return
        losses = np.empty((len(points), len(self._datasets)))
        for number, (dataset, values) in enumerate(zip(self._datasets, self._outputs(points), strict=True)):
            losses[:, number] = objective_of(dataset).losses(values)
            self._values[number].append(values)
        self.points = np.concatenate([self.points, points])
        self.losses = np.concatenate([self.losses, losses])
        unknown = np.full_like(losses, np.nan)
        self.predicted = np.concatenate([self.predicted, unknown if predicted is None else predicted])

    def polynomials(self, used: Int[np.ndarray, " used"], degree: int) -> list[LogitPolynomial]:
        """Returns polynomials in the coefficients of some members, through all points between these members.

        Args:
          used: the numbers of the members.
          degree: degree of the polynomials.
        """
        between = np.isclose(self.points[:, used].sum(axis=1), 1)
        if degree == 1:  # the members alone, which determine it
            between &= self.points.max(axis=1) == 1
        interpolation = Interpolation.through(self.points[np.ix_(between, used)], degree)
        return [
            LogitPolynomial.through(dataset, interpolation, np.concatenate(values)[between])
            for dataset, values in zip(self._datasets, self._values, strict=True)
        ]


def _answer(found: Evaluated, used: Int[np.ndarray, " used"], degree: int) -> tuple[float, int]:
    """Returns the share that cross-validation chooses, and the number of its point, which is evaluated."""
    between = np.flatnonzero(np.isclose(found.points[:, used].sum(axis=1), 1))
    order = between[np.argsort(relative(found.losses)[between], kind="stable")]
    centre, polynomials = centroid(len(used)), found.polynomials(used, degree)
    starts = np.concatenate([centre, found.points[np.ix_(order[:_ROUND], used)]])
    share = cross_validated_share(polynomials, starts, found.losses[0])
    row = (1 - share) * centre + share * starts[1:2]
    wide = _widened(row, used, found.points.shape[1])
    distances = np.abs(found.points - wide).max(axis=1)
    if distances.min() > 1e-9:
        found.add(wide, _losses(polynomials, row))
        return share, len(found.points) - 1
    return share, int(distances.argmin())


def _proposed(
    polynomials: Sequence[LogitPolynomial], found: Evaluated, used: Int[np.ndarray, " used"], seed: int
) -> tuple[Points, Float[np.ndarray, "points datasets"]]:
    """Returns the points of lowest predicted loss, each at some distance from the others and from known points."""
    known = found.points[:, used]
    generator = seeds.generator(seed, "search of a hull", str(len(known)))
    inside = known[np.isclose(known.sum(axis=1), 1)]
    pool = np.concatenate([inside, draw_faces(generator, _POOL, len(used))])
    span = found.losses[0]
    starts = pool[np.argsort((_losses(polynomials, pool) / span).mean(axis=1), kind="stable")[:_STARTS]]
    weights = np.ones((len(starts), len(polynomials)))
    ends = descend(polynomials, starts, weights, _mean, ideal=np.zeros_like(span), span=span)
    candidates = np.concatenate([ends, starts])
    losses = _losses(polynomials, candidates)
    chosen: list[int] = []
    for number in np.argsort((losses / span).mean(axis=1), kind="stable").tolist():
        others = np.concatenate([known, candidates[chosen]])
        if np.abs(others - candidates[number]).sum(axis=1).min() >= (_APART if chosen else _NEW):
            chosen.append(number)
        if len(chosen) == _ROUND:
            break
    return _widened(candidates[chosen], used, found.points.shape[1]), losses[chosen]


def _losses(polynomials: Sequence[LogitPolynomial], points: Points) -> Float[np.ndarray, "points datasets"]:
    return np.stack([own.losses_at(points) for own in polynomials], axis=1)


def _mean(scaled: Float[Array, " datasets"], weights: Float[Array, " datasets"]) -> Float[Array, ""]:
    """What a search minimises."""
    return (weights * scaled).mean()


def _widened(
    points: Float[np.ndarray, "points used"], used: Int[np.ndarray, " used"], members: int
) -> Float[np.ndarray, "points _"]:
    """Returns points between some members as points between all."""
    wide = np.zeros((len(points), members))
    wide[:, used] = points
    return wide
