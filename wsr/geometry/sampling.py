"""Ways to draw points: each function returns rows of coefficients over the members of a population.

A row that sums to 1 lies in the affine hull of the members. If it is non-negative too, it lies in their convex hull.
The row of zeros is the base.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from wsr.geometry.trees import flatten, nest
from wsr.types import Params


def line(alphas: Sequence[float] | Float[np.ndarray, " points"]) -> Float[np.ndarray, "points 2"]:
    """Returns the points ``(1 - alpha) * first + alpha * second`` on the line through two members.

    Args:
      alphas: positions on the line: 0 is the first member, 1 the second; other values outside [0, 1] extrapolate.

    Example:
      >>> import wsr
      >>> wsr.sampling.line([0.0, 0.5, 1.0]).tolist()
      [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    """
    steps = np.asarray(alphas, np.float64)
    return np.stack([1 - steps, steps], axis=1)


def extrapolation_alphas(steps: int = 10, furthest: float = 32.0) -> Float[np.ndarray, " alphas"]:
    """Returns alphas for ``line`` that extrapolate past both ends, in logarithmic steps and ascending order.

    They run from ``1 - furthest`` to 0 and from 1 to ``furthest``, so both ends of the line are among them. The
    defaults are the grid of the paper: 10 steps from 1 to 32, and as many from 0 to -31.

    Args:
      steps: number of alphas on each side.
      furthest: the largest alpha.

    Returns:
      ``2 * steps`` alphas.

    Example:
      >>> import wsr
      >>> wsr.sampling.extrapolation_alphas(3, 4.0).round(4).tolist()
      [-3.0, -1.0, 0.0, 1.0, 2.0, 4.0]
    """
    beyond = np.geomspace(1.0, furthest, steps)
    return np.concatenate([(1.0 - beyond)[::-1], beyond])


def convex_hull(
    generator: np.random.Generator, points: int, members: int, concentration: float = 1.0
) -> Float[np.ndarray, "points members"]:
    """Draws points inside the convex hull of the members from a symmetric Dirichlet distribution.

    Args:
      generator: source of the draws.
      points: number of points.
      members: number of members that span the hull.
      concentration: parameter of the Dirichlet distribution. 1 is uniform on the simplex; larger values gather near
        the centroid, smaller ones near the corners.

    Returns:
      Non-negative rows that each sum to 1.

    Example:
      >>> import numpy as np, wsr
      >>> points = wsr.sampling.convex_hull(np.random.default_rng(0), 5, 3)
      >>> points.shape, bool(np.allclose(points.sum(axis=1), 1)), bool((points >= 0).all())
      ((5, 3), True, True)
    """
    return generator.dirichlet(np.full(members, concentration), size=points)


def centroid(members: int, chosen: Sequence[int] | None = None) -> Float[np.ndarray, "1 members"]:
    """Returns the uniform average of some members as one point.

    Args:
      members: number of members of the population.
      chosen: indices of the members to average; None averages all.

    Example:
      >>> import wsr
      >>> wsr.sampling.centroid(4, [0, 2]).tolist()
      [[0.5, 0.0, 0.5, 0.0]]
    """
    indices = list(range(members)) if chosen is None else list(chosen)
    row = np.zeros((1, members))
    row[0, indices] = 1 / len(indices)
    return row


def corners(members: int) -> Float[np.ndarray, "members members"]:
    """Returns one point per member: the members themselves.

    Args:
      members: number of members.

    Example:
      >>> import wsr
      >>> wsr.sampling.corners(2).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    return np.eye(members)


def plane(horizontal: Sequence[float], vertical: Sequence[float]) -> Float[np.ndarray, "points 3"]:
    """Returns a grid of points ``first + u * (second - first) + v * (third - first)`` on the plane of three members.

    Args:
      horizontal: the values of u.
      vertical: the values of v.

    Returns:
      One row per pair of v and u; u varies fastest. Reshape a result of these points to
      ``[len(vertical), len(horizontal)]`` to plot it.

    Example:
      >>> import wsr
      >>> wsr.sampling.plane([0.0, 1.0], [0.0, 1.0]).tolist()
      [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 1.0, 1.0]]
    """
    u, v = (grid.ravel() for grid in np.meshgrid(np.asarray(horizontal), np.asarray(vertical)))
    return np.stack([1 - u - v, u, v], axis=1)


def random_direction(key: Array, base: Params, norm: float) -> Params:
    """Returns a random direction in weight space, with the relative scale of each matrix as at initialisation.

    Entries of matrices are drawn from Xavier's uniform distribution, ``U(-a, a)`` with
    ``a = sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio 2010). Biases and layer norms stay zero. The whole
    direction is then scaled to ``norm``.

    Args:
      key: JAX random key.
      base: parameters whose form the direction takes.
      norm: Euclidean length of the direction over the whole encoder.

    Returns:
      Parameters of the form of ``base``, to be added to a point.

    Example:
      >>> import jax, wsr
      >>> base = wsr.load("tiny").params
      >>> direction = wsr.sampling.random_direction(jax.random.key(0), base, norm=2.0)
      >>> length = sum((leaf**2).sum() for leaf in jax.tree.leaves(direction)) ** 0.5
      >>> round(float(length), 4)
      2.0
    """
    draws = {}
    for index, (path, leaf) in enumerate(flatten(base).items()):
        if leaf.ndim < 2:
            draws[path] = np.zeros(leaf.shape, np.float32)
            continue
        bound = float(np.sqrt(6 / (leaf.shape[-2] + leaf.shape[-1])))
        draws[path] = np.asarray(
            jax.random.uniform(jax.random.fold_in(key, index), leaf.shape, minval=-bound, maxval=bound)
        )
    length = np.sqrt(sum(float(np.square(draw, dtype=np.float64).sum()) for draw in draws.values()))
    return nest({path: draw * np.float32(norm / length) for path, draw in draws.items()})
