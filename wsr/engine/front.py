"""The front of a hull between datasets: points at which no dataset's loss falls without another's rising.

Polynomials of the logits (``wsr.engine.hull_polynomial``) make the losses and their gradients cheap, so the front is
searched from many directions at once: each minimises the largest weighted distance of the losses from their ideals
(Tchebycheff; Miettinen, Nonlinear Multiobjective Optimization, 1999), smoothed, by Adam on the logarithms of the
coefficients.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from wsr.engine.hull_polynomial import HullPolynomial, Points, draw_faces
from wsr.engine.lattice import basis, count, lattice
from wsr.geometry import linear_head
from wsr.runtime import seeds

Losses = Float[np.ndarray, "points datasets"]
Weights = Float[np.ndarray, "directions datasets"]

_POOL = 4000  # points among which the searches start
_STEPS = 200
_LEARNING_RATE = 0.1
_SHARPNESS = 50.0  # of the smoothed maximum
_LEAST = 1e-3  # coefficients below are left out


def front_of(
    polynomials: Sequence[HullPolynomial],
    *,
    points: int = 24,
    at_least: Mapping[int, float] | None = None,
    seed: int = 0,
) -> Points:
    """Returns points of the hull on the front of the polynomials' losses, from the best on the first dataset onwards.

    Args:
      polynomials: one per dataset, of one region.
      points: about how many points to return; one for each direction between the datasets, without duplicates.
      at_least: smallest score allowed on a dataset, by its number.
      seed: seed of the points among which the searches start.
    """
    members = polynomials[0].interpolation.nodes.shape[1]
    pool = np.concatenate(
        [polynomials[0].interpolation.nodes, draw_faces(seeds.generator(seed, "front"), _POOL, members)]
    )
    directions = _directions(len(polynomials), points)
    losses = _losses(polynomials, pool)
    ideal, span = losses.min(axis=0), np.ptp(losses, axis=0) + 1e-12
    allowed = _allowed(polynomials, pool, at_least or {})
    starts = pool[[np.where(allowed, own, np.inf).argmin() for own in _heights(losses, directions, ideal, span)]]
    found = _search(polynomials, starts, directions, ideal, span)
    candidates = np.concatenate([found, starts])
    losses, allowed = _losses(polynomials, candidates), _allowed(polynomials, candidates, at_least or {})
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


def _losses(polynomials: Sequence[HullPolynomial], points: Points) -> Losses:
    return np.stack([own.at(points)[0] for own in polynomials], axis=1)


def _allowed(
    polynomials: Sequence[HullPolynomial], points: Points, at_least: Mapping[int, float]
) -> Bool[np.ndarray, " points"]:
    scores = [polynomials[number].at(points)[1] >= least for number, least in at_least.items()]
    return np.all([np.ones(len(points), bool), *scores], axis=0)


def _search(
    polynomials: Sequence[HullPolynomial],
    starts: Points,
    directions: Weights,
    ideal: Float[np.ndarray, " datasets"],
    span: Float[np.ndarray, " datasets"],
) -> Points:
    """Descends from each start along its direction; all at once."""
    loss_of = [_loss_of(own) for own in polynomials]

    def height(variables: Array, weights: Array) -> Array:
        point = jax.nn.softmax(variables)
        scaled = (jnp.stack([own(point) for own in loss_of]) - ideal) / span
        return jax.nn.logsumexp(_SHARPNESS * weights * scaled) / _SHARPNESS + 1e-3 * weights @ scaled

    optimizer = optax.adam(_LEARNING_RATE)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, 0))
    def descend(start: Array, weights: Array) -> Array:
        def step(_: Array, carry: tuple) -> tuple:
            variables, moments = carry
            updates, moments = optimizer.update(jax.grad(height)(variables, weights), moments)
            return optax.apply_updates(variables, updates), moments

        variables = jnp.log(jnp.maximum(start, 1e-3))
        return jax.nn.softmax(jax.lax.fori_loop(0, _STEPS, step, (variables, optimizer.init(variables)))[0])

    found = np.asarray(descend(jnp.asarray(starts, jnp.float32), jnp.asarray(directions, jnp.float32)), np.float64)
    found[found < _LEAST] = 0
    return found / found.sum(axis=1, keepdims=True)


def _loss_of(own: HullPolynomial) -> Callable[[Array], Array]:
    """The mean loss as a function of the coefficients that JAX can differentiate."""
    members, degree = own.interpolation.nodes.shape[1], own.interpolation.degree
    chosen = np.array(list(combinations_with_replacement(range(members), degree)))
    # The Bernstein polynomials at a point are their multiplicities times the products of coefficients.
    times = basis(np.ones((1, members)), degree)[0]
    terms = jnp.asarray(own.terms.reshape(len(own.terms), -1))
    labels, texts = jnp.asarray(own.dataset.splits["test"].labels), own.terms.shape[1]

    def loss(point: Array) -> Array:
        products = jnp.asarray(times, jnp.float32)
        for position in range(degree):
            products = products * point[chosen[:, position]]
        values = linear_head.matmul(products, terms).reshape(texts, -1)
        full = values if own.dataset.classes == 1 else jnp.concatenate([jnp.zeros((texts, 1)), values], axis=-1)
        return linear_head.losses(full, labels).mean()

    return loss
