"""Fronts: the best compromises of a region between datasets or styles, found on polynomials and scored exactly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from wsr.engine.evaluate import Protocol
from wsr.engine.front import front_of, hypervolume, non_dominated
from wsr.engine.hull_polynomial import (
    DegreeCheck,
    LogitPolynomial,
    Points,
    design_of,
    exact_outputs,
    exact_scores,
    fit_hull_polynomial,
)
from wsr.engine.hull_search import SUPPORT, relative, support
from wsr.engine.lattice import Interpolation
from wsr.engine.objective import AnyEvaluation, evaluate_on, objective_of, on_test, on_validation
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.region.exposure import Target
from wsr.region.population_map import map_region
from wsr.region.region import Region
from wsr.report.explorer.content import Front, content_of
from wsr.report.explorer.explore import POINTS, protocol_for
from wsr.report.explorer.page import explorer_html
from wsr.runtime.atomic import write_atomically


@dataclass(frozen=True, eq=False, repr=False)
class ParetoFront:
    """Points of a region on the front between datasets, with exact scores on texts that did not choose them."""

    region: Region
    """The population."""
    points: Points
    """One row per point of the front, from the best on the first dataset onwards."""
    evaluations: tuple[AnyEvaluation, ...]
    """One per dataset, on its test split: the points, then the members, then their centroid."""
    protocols: tuple[Protocol | None, ...]
    """The classifier on each dataset; None for what decoders are scored on."""
    checks: tuple[DegreeCheck, ...]
    """One per dataset: the errors of the polynomials of the validation loss at held-out points."""

    def __repr__(self) -> str:
        names = ", ".join(own.name for own in self.evaluations)
        kept = int(self.on_test[: len(self.points)].sum())
        return (
            f"ParetoFront of {len(self.points)} points between {names}\n"
            f"  {kept} of them on the front of the test split; hypervolume {self.volume('front'):.4g}, of members and "
            f"centroid {self.volume('members and centroid'):.4g}"
        )

    @property
    def losses(self) -> Float[np.ndarray, "scored datasets"]:
        """Test losses of the points, the members and the centroid; one column per dataset."""
        return np.stack([next(iter(own.values.values())) for own in self.evaluations], axis=1)

    @property
    def on_test(self) -> Bool[np.ndarray, " scored"]:
        """Which points, members and centroid no other of them dominates on the test split."""
        return non_dominated(self.losses)

    def volume(self, which: str) -> float:
        """Returns the hypervolume on the test split below the worst loss of members and centroid on each dataset.

        Args:
          which: ``front``, ``members``, or ``members and centroid``.
        """
        front = len(self.points)
        parts = {"front": self.losses[:front], "members": self.losses[front:-1]}
        parts["members and centroid"] = self.losses[front:]
        return hypervolume(parts[which], self.losses[front:].max(axis=0))


def pareto(
    region: Region,
    datasets: Sequence[Target],
    to: str | Path | None = None,
    *,
    front: int = 24,
    at_least: Mapping[str, float] | None = None,
    at_most: Mapping[str, float] | None = None,
    points: int = POINTS,
    inverse_l2: float | None = None,
    seed: int = 0,
    settings: Settings = Settings(),
) -> ParetoFront:
    """Finds the best compromises of a region between datasets and scores them exactly.

    Polynomials of the losses on the validation splits (``wsr.engine.hull_polynomial``) give the front
    (``wsr.engine.front``); the test splits, which played no part, give the scores. Plain texts and questions have no
    splits: a random half of them gives the front, and the other half the scores (``wsr.data.halves``). Of more than
    ``wsr.engine.hull_search.SUPPORT`` members, the front of polynomials of degree 1, which need no points but the
    members, first chooses those between which to look.

    Args:
      region: the population, at least two members.
      datasets: two or more datasets, whose probe, validation and test splits are used; or, for decoders, plain texts
        or questions.
      to: a page to write, the explorer with the front in it; None: no page.
      front: about how many points of the front to find.
      at_least: smallest score allowed on a dataset, by its name; the polynomials judge it on the validation split.
      at_most: largest score allowed on a dataset, such as the perplexity of plain texts, by its name.
      points: largest number of points to score exactly for the polynomials of each dataset, besides members that are
        only scored to choose others.
      inverse_l2: inverse of the L2 penalty of all probes; None: for each dataset chosen at the centroid.
      seed: seed of the held-out points and of the search.
      settings: chunk size, memory, devices, precision, cache of results and counter, advanced once for each point that
        is scored for the polynomials.

    Returns:
      The front, with exact scores of its points, of the members and of their centroid.

    Raises:
      WsrError: if there are fewer than two datasets or members, a limit is set on another dataset, or no point
        satisfies the limits.

    Example:
      >>> import wsr
      >>> region, tiny = wsr.made_up_region(2), wsr.load("tiny")
      >>> both = [wsr.load_dataset(name, tiny.processor, max_length=48) for name in ("made_up_a1", "made_up_b1")]
      >>> found = wsr.pareto(region, both, points=70, inverse_l2=1.0, front=5)
      >>> found.points.shape[1], found.losses.shape[1]
      (2, 2)
    """
    names = [own.name for own in datasets]
    least, most = at_least or {}, at_most or {}
    if len(datasets) < 2:
        raise WsrError(f"a front lies between datasets, at least two; found {', '.join(names) or 'none'}")
    if unknown := sorted({*least, *most} - set(names)):
        raise WsrError(f"a limit is set on {', '.join(unknown)}; expected one of the datasets {', '.join(names)}")
    design = design_of(min(len(region), SUPPORT), points=points, seed=seed)
    judged, tested = [on_validation(own) for own in datasets], [on_test(own) for own in datasets]
    protocols = tuple(protocol_for(region, own, inverse_l2, settings) for own in judged)
    searched = region
    if len(region) > SUPPORT:
        kept = _support(region, judged, protocols, front, seed, replace(settings, counter=None))
        searched = region.where(lambda member: member.name in kept)
        print(f"searched between {len(kept)} of {len(region)} members: {', '.join(searched.names)}", flush=True)
    polynomials = [
        fit_hull_polynomial(searched, own, design, protocol=protocol, settings=settings)
        for own, protocol in zip(judged, protocols, strict=True)
    ]
    limits = [{names.index(name): value for name, value in own.items()} for own in (least, most)]
    between = front_of(polynomials, points=front, at_least=limits[0], at_most=limits[1], seed=seed)
    rows = np.zeros((len(between), len(region)))
    rows[:, np.isin(region.names, searched.names)] = between
    if not len(rows):
        told = [
            f"{name} {sign} {value:g}" for sign, own in ((">=", least), ("<=", most)) for name, value in own.items()
        ]
        raise WsrError(f"no point of the hull satisfies {', '.join(told)}; loosen the limits")
    settings = replace(settings, counter=None)
    scored = np.concatenate([rows, np.eye(len(region)), region.centroid()[None]])
    found = tuple(
        evaluate_on(region, scored, own, protocol=protocol or Protocol(), settings=settings)
        for own, protocol in zip(tested, protocols, strict=True)
    )
    if to is not None:
        exact = [
            exact_scores(searched, between, own.dataset, protocol=own.protocol, settings=settings)
            for own in polynomials
        ]
        losses, scores = (np.stack(values, axis=1) for values in zip(*exact, strict=True))
        shown = [
            replace(own, dataset=replace(own.dataset, name=f"{own.dataset.name} (validation)")) for own in polynomials
        ]
        population = map_region(searched, seed=seed)
        content = content_of(searched, population, design, shown, front=Front(between, losses, scores))
        write_atomically(Path(to), explorer_html(content).encode())
    return ParetoFront(region, rows, found, protocols, tuple(own.check for own in polynomials))


def _support(
    region: Region,
    datasets: Sequence[Target],
    protocols: Sequence[Protocol | None],
    front: int,
    seed: int,
    settings: Settings,
) -> frozenset[str]:
    """Returns the names of the members that the front of polynomials of degree 1 uses most."""
    alone, losses, mixed = Interpolation.through(np.eye(len(region)), 1), [], []
    for dataset, protocol in zip(datasets, protocols, strict=True):
        rows = np.concatenate([region.centroid()[None], alone.nodes])
        values = exact_outputs(region, rows, dataset, protocol=protocol, settings=settings)
        losses.append(objective_of(dataset).losses(values))
        mixed.append(LogitPolynomial.through(dataset, alone, values[1:]))
    chosen = support(front_of(mixed, points=front, seed=seed), relative(np.stack(losses, axis=1))[1:], SUPPORT)
    return frozenset(region.names[number] for number in chosen)
