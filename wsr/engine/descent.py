"""Gradient descent inside a hull, on polynomials of the outputs: many searches at once, and no forward pass.

A search moves the logarithms of the coefficients by Adam, so it never leaves the hull.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations_with_replacement

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from wsr.engine.hull_polynomial import LogitPolynomial, Points
from wsr.engine.lattice import basis
from wsr.engine.objective import Kind, text_losses
from wsr.geometry import linear_head
from wsr.types import AnyArray

Height = Callable[[Float[Array, " datasets"], Float[Array, " datasets"]], Float[Array, ""]]
"""Turns the scaled losses of a point and the weights of the datasets into what a search minimises."""

STEPS = 200
_LEARNING_RATE = 0.1
_LEAST = 1e-3  # coefficients below are left out


def descend(
    polynomials: Sequence[LogitPolynomial],
    starts: Points,
    weights: Float[np.ndarray, "starts datasets"],
    height: Height,
    *,
    ideal: Float[np.ndarray, " datasets"],
    span: Float[np.ndarray, " datasets"],
) -> Points:
    """Descends from each start with its own weights, all at once.

    Args:
      polynomials: one per dataset, of one region.
      starts: where each search starts.
      weights: weights of the datasets in each search.
      height: what is minimised, a function of ``(losses - ideal) / span`` and the weights; a function of a module, so
        that one compiled program serves all calls.
      ideal: the loss of each dataset that counts as 0.
      span: the difference of losses that counts as 1.

    Returns:
      The end of each search.
    """
    found = _descend(
        *(jnp.asarray(own, jnp.float32) for own in (starts, weights, ideal, span)),
        tuple(jnp.asarray(own.terms) for own in polynomials),
        tuple(jnp.asarray(own.objective.labels) for own in polynomials),
        height=height,
        degrees=tuple(own.interpolation.degree for own in polynomials),
        kinds=tuple(own.objective.kind for own in polynomials),
    )
    ends = np.asarray(found, np.float64)
    ends[ends < _LEAST] = 0
    return ends / ends.sum(axis=1, keepdims=True)


def mean_loss(
    point: Float[Array, " members"],
    terms: Float[Array, "terms texts outputs"],
    labels: AnyArray,
    *,
    degree: int,
    kind: Kind,
) -> Float[Array, ""]:
    """Returns the mean loss of a polynomial of the outputs at a point, as a function that JAX can differentiate.

    Args:
      point: the coefficients.
      terms: coefficients of the Bernstein polynomials.
      labels: labels of the objective.
      degree: degree of the polynomials.
      kind: kind of the objective.
    """
    members = len(point)
    chosen = np.array(list(combinations_with_replacement(range(members), degree)))
    # The Bernstein polynomials at a point are their multiplicities times the products of coefficients.
    products = jnp.asarray(basis(np.ones((1, members)), degree)[0], jnp.float32)
    for position in range(degree):
        products = products * point[chosen[:, position]]
    values = linear_head.matmul(products, terms.reshape(len(terms), -1)).reshape(terms.shape[1:])
    return text_losses(kind, values, labels).mean()


@partial(jax.jit, static_argnames=("height", "degrees", "kinds"))
def _descend(
    starts: Float[Array, "starts members"],
    weights: Float[Array, "starts datasets"],
    ideal: Float[Array, " datasets"],
    span: Float[Array, " datasets"],
    terms: tuple[Array, ...],
    labels: tuple[Array, ...],
    *,
    height: Height,
    degrees: tuple[int, ...],
    kinds: tuple[Kind, ...],
) -> Float[Array, "starts members"]:
    optimizer = optax.adam(_LEARNING_RATE)

    def lift(variables: Array, own_weights: Array) -> Array:
        point = jax.nn.softmax(variables)
        losses = [
            mean_loss(point, own, known, degree=degree, kind=kind)
            for own, known, degree, kind in zip(terms, labels, degrees, kinds, strict=True)
        ]
        return height((jnp.stack(losses) - ideal) / span, own_weights)

    def search(start: Array, own_weights: Array) -> Array:
        def step(_: Array, carry: tuple) -> tuple:
            variables, moments = carry
            updates, moments = optimizer.update(jax.grad(lift)(variables, own_weights), moments)
            return optax.apply_updates(variables, updates), moments

        variables = jnp.log(jnp.maximum(start, _LEAST))
        return jax.nn.softmax(jax.lax.fori_loop(0, STEPS, step, (variables, optimizer.init(variables)))[0])

    return jax.vmap(search)(starts, weights)
