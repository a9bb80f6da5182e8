"""The front of a hull between datasets: points at which no dataset's loss falls without another's rising.

Polynomials of the outputs (``wsr.engine.hull_polynomial``) make the losses and their gradients cheap, so the front is
searched from many directions at once: each minimises the largest weighted distance of the losses from their ideals
(Tchebycheff; Miettinen, Nonlinear Multiobjective Optimization, 1999), smoothed, by gradient descent
(``wsr.engine.descent``).
"""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Bool, Float

from wsr.engine.descent import descend
from wsr.engine.hull_polynomial import LogitPolynomial, Points, draw_faces
from wsr.engine.lattice import count, lattice
from wsr.runtime import seeds

Losses = Float[np.ndarray, "points datasets"]
Weights = Float[np.ndarray, "directions datasets"]

_POOL = 4000  # points among which the searches start
_SHARPNESS = 50.0  # of the smoothed maximum


def front_of(
    polynomials: Sequence[LogitPolynomial],
    *,
    points: int = 24,
    at_least: Mapping[int, float] | None = None,
    at_most: Mapping[int, float] | None = None,
    seed: int = 0,
) -> Points:
    """Returns points of the hull on the front of the polynomials' losses, from the best on the first dataset onwards.

    Args:
      polynomials: one per dataset, of one region.
      points: about how many points to return; one for each direction between the datasets, without duplicates.
      at_least: smallest score allowed on a dataset, by its number.
      at_most: largest score allowed on a dataset, such as a perplexity, by its number.
      seed: seed of the points among which the searches start.
    """
    members = polynomials[0].interpolation.nodes.shape[1]
    pool = np.concatenate(
        [polynomials[0].interpolation.nodes, draw_faces(seeds.generator(seed, "front"), _POOL, members)]
    )
    directions = _directions(len(polynomials), points)
    losses = _losses(polynomials, pool)
    ideal, span = losses.min(axis=0), np.ptp(losses, axis=0) + 1e-12
    limits = at_least or {}, at_most or {}
    allowed = _allowed(polynomials, pool, *limits)
    starts = pool[[np.where(allowed, own, np.inf).argmin() for own in _heights(losses, directions, ideal, span)]]
    found = descend(polynomials, starts, directions, _height, ideal=ideal, span=span)
    candidates = np.concatenate([found, starts])
    losses, allowed = _losses(polynomials, candidates), _allowed(polynomials, candidates, *limits)
    chosen = {int(np.where(allowed, own, np.inf).argmin()) for own in _heights(losses, directions, ideal, span)}
    kept = np.array(sorted(number for number in chosen if allowed[number]), int)
    kept = kept[non_dominated(losses[kept])]
    return candidates[kept[np.argsort(losses[kept, 0])]]


def non_dominated(losses: Losses) -> Bool[np.ndarray, " points"]:
    """Returns which points no other is better than on one dataset without being worse on another.

    Args:
      losses: one row per point, one column per dataset.

    Example:
      >>> import numpy as np
      >>> from wsr.engine.front import non_dominated
      >>> non_dominated(np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])).tolist()
      [True, True, False]
    """
    no_worse = (losses[:, None] <= losses[None]).all(axis=-1)
    better = (losses[:, None] < losses[None]).any(axis=-1)
    return np.logical_not((no_worse & better).any(axis=0))


def hypervolume(losses: Losses, reference: Float[np.ndarray, " datasets"]) -> float:
    """Returns the volume that points dominate below a reference (Zitzler and Thiele, 1998), by slices.

    Args:
      losses: one row per point, one column per dataset.
      reference: the worst losses that count.

    Example:
      >>> import numpy as np
      >>> from wsr.engine.front import hypervolume
      >>> hypervolume(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 2.0]))
      3.0
    """
    inside = losses[(losses < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    order = inside[np.argsort(inside[:, 0])]
    widths = np.diff(np.append(order[:, 0], reference[0]))
    return float(
        sum(width * hypervolume(order[: k + 1, 1:], reference[1:]) for k, width in enumerate(widths) if width > 0)
    )


def _directions(datasets: int, points: int) -> Weights:
    """Weights of the datasets, spread evenly; none is zero, because then nothing would break ties."""
    degree = next(own for own in range(1, points + 2) if count(datasets, own) >= points)
    return np.maximum(lattice(datasets, degree), 1e-3)


def _heights(
    losses: Losses, directions: Weights, ideal: Float[np.ndarray, " datasets"], span: Float[np.ndarray, " datasets"]
) -> Float[np.ndarray, "directions points"]:
    scaled = (losses - ideal) / span
    return (directions[:, None] * scaled[None]).max(axis=-1) + 1e-3 * (directions @ scaled.T)


def _height(scaled: Float[Array, " datasets"], weights: Float[Array, " datasets"]) -> Float[Array, ""]:
    """What a search minimises: ``_heights`` with a smooth maximum."""
    return jax.nn.logsumexp(_SHARPNESS * weights * scaled) / _SHARPNESS + 1e-3 * weights @ scaled


def _losses(polynomials: Sequence[LogitPolynomial], points: Points) -> Losses:
    return np.stack([own.losses_at(points) for own in polynomials], axis=1)


def _allowed(
    polynomials: Sequence[LogitPolynomial],
    points: Points,
    at_least: Mapping[int, float],
    at_most: Mapping[int, float],
) -> Bool[np.ndarray, " points"]:
    allowed = np.ones(len(points), bool)
    for number in {*at_least, *at_most}:
        scores = polynomials[number].at(points)[1]
        allowed &= (scores >= at_least.get(number, -np.inf)) & (scores <= at_most.get(number, np.inf))
    return allowed
