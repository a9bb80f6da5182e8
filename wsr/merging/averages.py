"""Averages and sums of task vectors: one row of coefficients for all leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, option, weights

Row = Float[np.ndarray, " members"]


@dataclass(frozen=True)
class Uniform(OfWeights):
    """The uniform average of all members, the region's centroid: ``theta = (1 / n) sum_k theta_k``.

    Source: Wortsman et al., Model soups, 2022.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Uniform())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    wide: ClassVar = True
    based: ClassVar = False

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns a function that mixes every leaf with the same coefficients."""
        return mixing(np.full(len(ingredients.names), 1 / len(ingredients.names)))


@dataclass(frozen=True)
class Weighted(OfWeights):
    """A weighted average: ``theta = sum_k w_k theta_k / sum_k w_k``, without ``normalise`` ``sum_k w_k theta_k``.

    Source: Wortsman et al., Model soups, 2022; ``linear`` in mergekit.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(2), wsr.merging.Weighted(weights=(0.7, 0.3)))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    wide: ClassVar = True
    based: ClassVar = False

    weights: tuple[float, ...] | None = weights()
    normalise: bool = option(True, "Divide by the sum of the weights.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns a function that mixes every leaf with the same coefficients; the base has none."""
        given = members_weights(self.weights, ingredients)
        if self.normalise:
            return mixing(normalised(given))
        fill = mixing(given)
        return lambda leaf, out: fill(leaf.within(around="zero"), out)


@dataclass(frozen=True)
class TaskArithmetic(OfWeights):
    """Task arithmetic: ``theta = base + scale sum_k w_k (theta_k - base)``; a negative weight removes a task.

    Source: Ilharco et al., Editing models with task arithmetic, 2023.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.TaskArithmetic(scale=0.4))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    wide: ClassVar = True

    weights: tuple[float, ...] | None = weights()
    scale: float | None = option(
        None, "Factor of the sum of task vectors.", otherwise="1 / members; 1 with --normalise=true"
    )
    normalise: bool = option(False, "Divide by the sum of the weights.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns a function that mixes every leaf with the same coefficients."""
        given = members_weights(self.weights, ingredients)
        scale = default_scale(self.scale, ingredients, normalise=self.normalise)
        return mixing(scale * (normalised(given) if self.normalise else given))


def members_weights(given: tuple[float, ...] | None, ingredients: Ingredients) -> Row:
    """Returns the given weights, or 1 for each member.

    Args:
      given: weights of the members; None: 1 each.
      ingredients: the members.
    """
    return np.ones(len(ingredients.names)) if given is None else np.asarray(given, np.float64)


def normalised(given: Row) -> Row:
    """Returns weights divided by their sum; weights that sum to 0 are returned unchanged.

    Args:
      given: weights of the members.

    Example:
      >>> import numpy as np
      >>> from wsr.merging.averages import normalised
      >>> normalised(np.array([3.0, 1.0])).tolist()
      [0.75, 0.25]
    """
    total = given.sum()
    return given / total if abs(total) >= 1e-8 else given


def default_scale(scale: float | None, ingredients: Ingredients, *, normalise: bool) -> float:
    """Returns the given scale of a sum of task vectors, or the scale that makes the sum an average.

    Args:
      scale: the scale; None: 1 / members, or 1 if the weights are normalised.
      ingredients: the members.
      normalise: whether the weights are normalised.
    """
    if scale is not None:
        return scale
    return 1.0 if normalise else 1 / len(ingredients.names)


def mixing(row: Row) -> Callable[[Leaf, Out], None]:
    """Returns a function that fills a leaf with ``base + sum_k row_k task_vector_k``.

    This is ``wsr.geometry.points.combine`` on leaves that are read in pieces. Sums are taken in float64.

    Args:
      row: one coefficient per member.
    """

    def fill(leaf: Leaf, out: Out) -> None:
        for block in leaf.blocks():
            block.put(out, block.base + np.tensordot(row, block.vectors, axes=1))

    return fill
