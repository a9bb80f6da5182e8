"""Averages and sums of task vectors: one row of coefficients for all leaves."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.merging.ingredients import Ingredients, Leaf
from wsr.merging.method import OfWeights, option, weights

Row = Float[np.ndarray, " members"]


@dataclass(frozen=True)
class Uniform(OfWeights):
    """The uniform average of all members, the region's centroid: ``theta = (1 / n) sum_k theta_k``.

    Source: Wortsman et al., Model soups, 2022.
    """

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, np.ndarray], None]:
        """The same coefficients for every leaf."""
        return mixing(np.full(len(ingredients.names), 1 / len(ingredients.names)))


@dataclass(frozen=True)
class Weighted(OfWeights):
    """A weighted average: ``theta = sum_k w_k theta_k / sum_k w_k``, or without normalising ``sum_k w_k theta_k``.

    Source: Wortsman et al., Model soups, 2022; "linear" of mergekit.
    """

    weights: tuple[float, ...] | None = weights()
    normalise: bool = option(True, "Divide by the sum of the weights.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, np.ndarray], None]:
        """The same coefficients for every leaf; without normalising the base has a share of its own, which is 0."""
        given = members_weights(self.weights, ingredients)
        if self.normalise:
            return mixing(normalised(given))
        fill = mixing(given)
        return lambda leaf, out: fill(leaf.within(around="zero"), out)


@dataclass(frozen=True)
class TaskArithmetic(OfWeights):
    """Task arithmetic: ``theta = base + scale sum_k w_k (theta_k - base)``; negative weights forget a task.

    Source: Ilharco et al., Editing models with task arithmetic, 2023.
    """

    weights: tuple[float, ...] | None = weights()
    scale: float | None = option(
        None, "Factor of the sum of task vectors.", otherwise="1 / members; 1 with --normalise=true"
    )
    normalise: bool = option(False, "Divide by the sum of the weights.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, np.ndarray], None]:
        """The same coefficients for every leaf."""
        given = members_weights(self.weights, ingredients)
        scale = default_scale(self.scale, ingredients, normalise=self.normalise)
        return mixing(scale * (normalised(given) if self.normalise else given))


def members_weights(given: tuple[float, ...] | None, ingredients: Ingredients) -> Row:
    """The weights given, or 1 each."""
    return np.ones(len(ingredients.names)) if given is None else np.asarray(given, np.float64)


def normalised(given: Row) -> Row:
    """Weights that sum to 1; where they sum to 0 there is nothing to divide by, and they stay as they are."""
    total = given.sum()
    return given / total if abs(total) >= 1e-8 else given


def default_scale(scale: float | None, ingredients: Ingredients, *, normalise: bool) -> float:
    """Of a sum of task vectors where none is given: what makes it an average."""
    if scale is not None:
        return scale
    return 1.0 if normalise else 1 / len(ingredients.names)


def mixing(row: Row) -> Callable[[Leaf, np.ndarray], None]:
    """Fills a leaf with ``base + sum_k row_k task_vector_k``: ``wsr.geometry.points.combine``, out of core.

    Sums are taken in float64.
    """

    def fill(leaf: Leaf, out: np.ndarray) -> None:
        for block in leaf.blocks():
            block.put(out, block.base + np.tensordot(row, block.vectors, axes=1))

    return fill
