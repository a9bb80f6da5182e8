"""The outputs of test texts as polynomials in the coefficients: a whole hull without a model at hand.

``evaluate_hull`` interpolates features and fits a probe at each point. Where no probe can be fitted, as in a page of
``wsr explore``, the logits themselves are interpolated. All probes share one penalty, because logits jump where
cross-validation chooses another. Loss and score follow from the logits, so a score changes in steps of one text, as it
does in an exact evaluation. For decoders, the log-likelihoods of texts and answers take the place of logits
(``wsr.engine.objective``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Int

from wsr.data.dataset import Dataset
from wsr.engine.cross_validation import FOLDS, GRID, MARGIN, folds_of
from wsr.engine.evaluate import Protocol, fit_draws
from wsr.engine.held_out import ErrorBound, error_bound
from wsr.engine.lattice import Interpolation, basis, sparse_lattice
from wsr.engine.objective import Objective, evaluate_decoder, objective_of
from wsr.engine.probe import linear_probe
from wsr.engine.region_features import region_features
from wsr.engine.scoring import key_of, score_points
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.geometry.linear_head import logits
from wsr.geometry.sampling import centroid
from wsr.region.exposure import Target
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.types import AnyArray

Points: TypeAlias = Float[np.ndarray, "points members"]

SHARE = 0.05
"""Share of the points drawn like the held-out ones whose error may exceed its bound."""
CONFIDENCE = 0.95
"""Probability that no larger share exceeds it."""
HIGHEST_DEGREE = 6
_DRAWN = 59
# Held-out points drawn at random: the fewest whose largest ratio of error to remainder is a limit for that share with
# that confidence, because 0.95^59 < 0.05 (Wilks, Determination of sample sizes for setting tolerance limits, 1941).
_FURTHEST = 2  # held-out points far from the nodes
_TOGETHER = 256  # points whose logits are in memory at a time
_POOL = 8000  # points that stand for the hull
_SLACK = 1.02  # the furthest point of the hull is a little further than that of the pool


class Design(NamedTuple):
    """The points of a hull that are scored exactly, whatever the dataset."""

    degree: int
    """Highest degree that the nodes determine."""
    nodes: Points
    """The lattice of that degree, or a part of that of degree 2; the members are among its points."""
    drawn: Points
    """Held-out points drawn at random on lines, in triangles and in hulls of more members."""
    far: Points
    """Held-out points far from the nodes."""
    pool: Points
    """Points drawn by the same law, which are not scored; they give the usual remainder."""

    @property
    def held(self) -> Points:
        """All held-out points; those drawn at random come first."""
        return np.concatenate([self.drawn, self.far])

    @property
    def points(self) -> Points:
        """All points that are scored: nodes, held-out points, the centroid and the base."""
        members = self.nodes.shape[1]
        return np.concatenate([self.nodes, self.held, centroid(members), np.zeros((1, members))])

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each of ``points`` is: ``member``, ``node``, ``held out``, ``centroid`` or ``base``."""
        nodes = ["member" if row.max() == 1 else "node" for row in self.nodes]
        return (*nodes, *["held out"] * len(self.held), "centroid", "base")


def design_of(members: int, *, points: int, seed: int = 0) -> Design:
    """Chooses the points of a hull that are scored exactly.

    The nodes are the finest lattice that is small enough. If the lattice of degree 2 is too large, they are a part of
    it, see ``wsr.engine.lattice.sparse_lattice``.

    Args:
      members: number of members.
      points: largest number of points.
      seed: seed of the held-out points.

    Raises:
      WsrError: if there are fewer than two members, or too few points for a polynomial of degree 1.

    Example:
      >>> from wsr.engine.hull_polynomial import design_of
      >>> design = design_of(3, points=100)
      >>> design.degree, len(design.nodes), len(design.points)
      (6, 28, 91)
      >>> many = design_of(30, points=300)
      >>> many.degree, len(many.nodes), len(many.points)
      (2, 237, 300)
    """
    others = _DRAWN + _FURTHEST + 2
    if members < 2:
        raise WsrError(f"a hull needs at least two members, found {members}")
    if members + others > points:
        raise WsrError(
            f"{members} members need at least {members + others} points, found {points}; allow more points or choose "
            "fewer members"
        )
    nodes, degree = sparse_lattice(members, points - others, HIGHEST_DEGREE)
    generator = seeds.generator(seed, "held out of a hull", str(members))
    drawn, pool = (draw_faces(generator, number, members) for number in (_DRAWN, _POOL))
    far = pool[Interpolation.through(nodes, degree).furthest(pool, _FURTHEST)]
    return Design(degree, nodes, drawn, far, pool)


def draw_faces(generator: np.random.Generator, points: int, members: int) -> Points:
    """Draws points as a reader looks at them: on a line, in a triangle or in a hull of any number of members.

    Each of the three is equally likely, and so is each point of a line, triangle or hull.

    Args:
      generator: source of randomness.
      points: number of points.
      members: number of members, at least 2.
    """
    rows = np.zeros((points, members))
    for row in rows:
        size = (2, min(3, members), int(generator.integers(2, members + 1)))[int(generator.integers(3))]
        row[generator.choice(members, size, replace=False)] = generator.dirichlet(np.ones(size))
    return rows


class DegreeCheck(NamedTuple):
    """Errors of the polynomials of one degree at the held-out points, in the unit of the loss."""

    degree: int
    error: float
    """Mean absolute error of the mean loss."""
    largest: float
    """Largest absolute error."""


@dataclass(frozen=True, eq=False)
class LogitPolynomial:
    """Polynomials of the outputs of test texts, or of all texts or questions of a decoder."""

    dataset: Target
    """A dataset, plain texts or questions."""
    interpolation: Interpolation
    """Nodes and degree."""
    terms: Float32[np.ndarray, "terms texts outputs"]
    """Coefficients of the Bernstein polynomials (``wsr.engine.lattice.basis``) of the outputs of each text, see
    ``wsr.engine.objective.Objective``."""

    @cached_property
    def objective(self) -> Objective:
        """The loss and the score that follow from the outputs."""
        return objective_of(self.dataset)

    @classmethod
    def through(
        cls, dataset: Target, interpolation: Interpolation, values: Float[np.ndarray, "nodes texts outputs"]
    ) -> "LogitPolynomial":
        """Returns the polynomials that take some values at the nodes of an interpolation."""
        return cls(dataset, interpolation, np.tensordot(interpolation.inverse, values, axes=1).astype(np.float32))

    def of_texts(self, texts: Int[np.ndarray, " some"]) -> "LogitPolynomial":
        """Returns the polynomials of some of the texts."""
        own = self.dataset
        some = own.with_split("test", own.splits["test"].take(texts)) if isinstance(own, Dataset) else own.take(texts)
        return LogitPolynomial(some, self.interpolation, self.terms[:, texts])

    def losses_at(self, points: Points) -> Float[np.ndarray, " points"]:
        """Returns the mean loss at points of the hull."""
        return np.concatenate([self.objective.losses(values) for values in self._values(points)])

    def at(self, points: Points) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Returns the mean loss and the score at points of the hull."""
        parts = [self.objective.losses_and_scores(values) for values in self._values(points)]
        losses, scores = zip(*parts, strict=True)
        return np.concatenate(losses), np.concatenate(scores)

    def _values(self, points: Points) -> Iterator[Float[np.ndarray, "some texts outputs"]]:
        terms = self.terms.astype(np.float64)
        for first in range(0, len(points), _TOGETHER):
            rows = basis(points[first : first + _TOGETHER], self.interpolation.degree)
            yield np.tensordot(rows, terms, axes=1)


@dataclass(frozen=True, eq=False)
class HullPolynomial(LogitPolynomial):
    """Polynomials of outputs, with a bound on the error of the loss and of the score."""

    protocol: Protocol | None
    """The classifier; its penalty is fixed. None: a decoder without one."""
    loss_bound: ErrorBound
    """Bound on the error of the mean loss."""
    score_bound: ErrorBound
    """Bound on the error of the score."""
    checks: tuple[DegreeCheck, ...]
    """One per degree tried."""
    exact_losses: Float[np.ndarray, " scored"]
    """Mean loss at each of ``Design.points``."""
    exact_scores: Float[np.ndarray, " scored"]
    """Score at each of ``Design.points``."""

    @property
    def check(self) -> DegreeCheck:
        """The errors of the degree that was chosen."""
        return next(check for check in self.checks if check.degree == self.interpolation.degree)

    def bounds_at(self, points: Points) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Returns the bounds on the errors of both; infinite where nothing was measured."""
        remainders = self.interpolation.remainders(points)
        return self.loss_bound.at(remainders), self.score_bound.at(remainders)


def fit_hull_polynomial(
    region: Region,
    dataset: Target,
    design: Design,
    *,
    protocol: Protocol | None = None,
    settings: Settings = Settings(),
) -> HullPolynomial:
    """Scores the points of a design exactly and fits polynomials to the outputs at its nodes.

    Args:
      region: the population.
      dataset: a dataset, whose probe and test splits are used; plain texts; or questions.
      design: the points to score.
      protocol: the classifier of a dataset, one draw with a fixed penalty.
      settings: chunk size, memory, devices, precision, cache of results and counter.

    Raises:
      WsrError: if the protocol of a dataset has no fixed penalty, or several draws.
    """
    values = exact_outputs(region, design.points, dataset, protocol=protocol, settings=settings)
    return polynomial_through(values, dataset, design, protocol)


def polynomial_through(
    values: Float[np.ndarray, "points texts outputs"], dataset: Target, design: Design, protocol: Protocol | None
) -> HullPolynomial:
    """Fits polynomials to outputs at the nodes of a design and measures their errors at its held-out points.

    The degree is the one with the smallest mean error at the held-out points, up to that of the design; with more nodes
    than terms, the fit is one of least squares.

    Args:
      values: the outputs at ``design.points``, as ``exact_outputs`` returns them.
      dataset: the target.
      design: the points.
      protocol: the classifier of a dataset.
    """
    losses, scores = objective_of(dataset).losses_and_scores(values)
    nodes, held = len(design.nodes), slice(len(design.nodes), len(design.nodes) + len(design.held))
    best, checks = None, []
    for degree in range(1, design.degree + 1):
        polynomial = LogitPolynomial.through(dataset, Interpolation.through(design.nodes, degree), values[:nodes])
        guesses = polynomial.at(design.held)
        errors = [np.abs(guess - exact[held]) for guess, exact in zip(guesses, (losses, scores), strict=True)]
        checks.append(DegreeCheck(degree, float(errors[0].mean()), float(errors[0].max())))
        if checks[-1].error <= min(check.error for check in checks):
            best = polynomial, errors
    assert best is not None
    polynomial, errors = best
    interpolation = polynomial.interpolation
    at_held, at_pool = interpolation.remainders(design.held), interpolation.remainders(design.pool)
    loss_bound, score_bound = (
        error_bound(at_held, own, at_pool, drawn=_DRAWN, level=1 / (_DRAWN + 1)) for own in errors
    )
    loss_bound, score_bound = (replace(own, furthest=_SLACK * own.furthest) for own in (loss_bound, score_bound))
    if polynomial.objective.kind != "language_model":
        # A score changes in steps of about one text, so no fewer are claimed; a perplexity does not.
        one_text = 1 / (values.shape[1] * score_bound.usual)
        score_bound = replace(score_bound, ratio=max(score_bound.ratio, one_text))
    return HullPolynomial(
        dataset,
        interpolation,
        polynomial.terms,
        protocol,
        loss_bound,
        score_bound,
        tuple(checks),
        losses,
        scores,
    )


def exact_scores(
    region: Region, points: Points, dataset: Target, *, protocol: Protocol | None, settings: Settings = Settings()
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Returns the exact mean loss and score of further points, as ``fit_hull_polynomial`` scores those of a design.

    Args:
      region: the population.
      points: one row per point.
      dataset: the target.
      protocol: the classifier of a dataset, one draw with a fixed penalty.
      settings: chunk size, memory, devices, precision, cache of results and counter.
    """
    values = exact_outputs(region, points, dataset, protocol=protocol, settings=settings)
    return objective_of(dataset).losses_and_scores(values)


def one_penalty(region: Region, dataset: Dataset, *, settings: Settings = Settings()) -> float:
    """Returns the inverse L2 penalty that cross-validation on the probe split chooses at the centroid of a region.

    The features are not standardised, so that ``Protocol(inverse_l2=...)`` means the same penalty at every point. The
    values tried, the folds and the end of the path are those of ``wsr.engine.cross_validation``.

    Args:
      region: the population.
      dataset: its probe split is used.
      settings: chunk size, memory, devices and precision.
    """
    splits = {"probe": dataset.splits["probe"]}
    ((_, found),) = region_features(region, centroid(len(region)), splits, settings=settings)
    features, labels = np.asarray(found["probe"])[:1], dataset.splits["probe"].labels
    fold_of = folds_of(labels, classes=dataset.classes)
    best, lowest = GRID[0], np.inf
    for inverse_l2 in GRID:
        loss = 0.0
        for fold in range(FOLDS):
            out = fold_of == fold
            fitted = linear_probe(
                features[:, ~out],
                labels[~out],
                features[:, out],
                labels[out],
                classes=dataset.classes,
                inverse_l2=inverse_l2,
            )
            loss += float(np.asarray(fitted.losses).sum())
        if loss < lowest:
            best, lowest = inverse_l2, loss
        elif loss > (1 + MARGIN) * lowest:
            break
    return float(f"{best:g}")  # the digits that a flag would have


def exact_outputs(
    region: Region, points: Points, dataset: Target, *, protocol: Protocol | None, settings: Settings = Settings()
) -> Float[np.ndarray, "points texts outputs"]:
    """Returns the outputs of points, from forward passes and, on a dataset, a probe at each point.

    Args:
      region: the population.
      points: one row per point.
      dataset: a dataset, whose probe and test splits are used; plain texts; or questions.
      protocol: the classifier of a dataset, one draw with a fixed penalty.
      settings: chunk size, memory, devices, precision, cache of results and counter.

    Returns:
      The outputs of each text, see ``wsr.engine.objective.Objective``.

    Raises:
      WsrError: if the protocol of a dataset has no fixed penalty, or several draws.
    """
    if not isinstance(dataset, Dataset):
        return evaluate_decoder(region, points, dataset, settings=settings).outputs
    if protocol is None or protocol.inverse_l2 is None or protocol.draws != 1:
        raise WsrError("hull polynomial: the protocol needs a fixed inverse_l2 and one draw")

    def outputs(features: Mapping[str, Float[AnyArray, "chunk _ _"]]) -> dict[str, np.ndarray]:
        (draw,) = fit_draws(features, dataset, protocol)
        values = np.asarray(logits(features["test"], draw.heads))
        relative = values if dataset.classes == 1 else values[..., 1:] - values[..., :1]
        return {"outputs": relative.astype(np.float32), "converged": np.asarray(draw.converged)[:, None]}

    what: dict[str, object] = {"dataset": dataset.content_hash, "probe": protocol.identity, "kept": "logits"}
    kept = score_points(
        region,
        points,
        [key_of(region, row, what, settings.precision) for row in points],
        {split: dataset.splits[split] for split in ("probe", "test")},
        outputs,
        settings=settings,
        note=dataset.name,
    )
    if lost := int((~kept["converged"]).sum()):
        print(f"{dataset.name}: the probes of {lost} of {len(points)} points did not converge", flush=True)
    return kept["outputs"].astype(np.float64)
