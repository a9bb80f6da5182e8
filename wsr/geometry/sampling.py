"""Ways to draw points: each returns rows of coefficients over the members of a population.

A row that sums to 1 lies in the affine hull of the members; rows that are non-negative as well lie in their convex
hull. The base is the row of zeros.
"""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from wsr.geometry.trees import flatten, nest
from wsr.types import Params


def line(alphas: Sequence[float] | Float[np.ndarray, " points"]) -> Float[np.ndarray, "points 2"]:
    """Points ``(1 - alpha) * first + alpha * second``; alphas outside [0, 1] extrapolate."""
    steps = np.asarray(alphas, np.float64)
    return np.stack([1 - steps, steps], axis=1)


def extrapolation_alphas(steps: int = 10, furthest: float = 32.0) -> Float[np.ndarray, " alphas"]:
    """Alphas past both ends of a line, ``1 .. furthest`` and ``0 .. 1 - furthest``, in logarithmic steps, ascending.

    The paper's grid: 10 steps to 32 on one side and to -31 on the other. Both ends of the line are among them.
    """
    beyond = np.geomspace(1.0, furthest, steps)
    return np.concatenate([(1.0 - beyond)[::-1], beyond])


def convex_hull(
    generator: np.random.Generator, points: int, members: int, concentration: float = 1.0
) -> Float[np.ndarray, "points members"]:
    """Points inside the convex hull, Dirichlet distributed; ``concentration`` 1 is uniform on the simplex."""
    return generator.dirichlet(np.full(members, concentration), size=points)


def centroid(members: int, chosen: Sequence[int] | None = None) -> Float[np.ndarray, "1 members"]:
    """The uniform average of the chosen members (all by default)."""
    indices = list(range(members)) if chosen is None else list(chosen)
    row = np.zeros((1, members))
    row[0, indices] = 1 / len(indices)
    return row


def corners(members: int) -> Float[np.ndarray, "members members"]:
    """The members themselves."""
    return np.eye(members)


def plane(horizontal: Sequence[float], vertical: Sequence[float]) -> Float[np.ndarray, "points 3"]:
    """Points of the plane through three members: ``first + u * (second - first) + v * (third - first)``.

    Rows run over ``vertical`` first, then ``horizontal``, as ``np.meshgrid`` flattens.
    """
    u, v = (grid.ravel() for grid in np.meshgrid(np.asarray(horizontal), np.asarray(vertical)))
    return np.stack([1 - u - v, u, v], axis=1)


def random_direction(key: Array, base: Params, norm: float) -> Params:
    """A direction of weight space of the given length over the whole encoder, Xavier-distributed.

    Matrices draw from Xavier's uniform law, ``U(-a, a)`` with ``a = sqrt(6 / (fan_in + fan_out))`` (Glorot and Bengio
    2010), so that their relative scale is that of an initialisation; vectors (biases, layer norms) stay zero, as in an
    initialisation. The whole is then scaled to ``norm``.
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
