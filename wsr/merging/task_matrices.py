"""The base class of methods that merge task matrices, the task vectors of matrices as ``[outputs, inputs]``."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from wsr.merging.averages import mixing
from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, expression, option

Matrix = Float64[np.ndarray, "outputs inputs"]

TABLES_AND_HEADS = re.compile(
    r"embed|(^|[./_])(wte|wpe|shared|lm_head|head|classifier|score|qa_outputs|predictions|text_projection|"
    r"visual_projection|relative_attention_bias)([./]|$)"
)
"""Paths of token tables and heads, in Flax and in PyTorch."""


@dataclass(frozen=True)
class OfMatrices(OfWeights):
    """A method that merges task matrices and averages all other leaves, and token tables and heads."""

    wide: ClassVar = True
    threaded: ClassVar = True

    scale: float = option(1.0, "Factor of the merged task vector that is added to the base.")
    averaged: str | None = expression(
        "Leaves whose path it matches are averaged; leaves that are not matrices are averaged too.",
        otherwise="token tables and heads",
    )

    def matrix(self, leaf: Leaf) -> Matrix:
        """Returns the merged task matrix of a leaf."""
        raise NotImplementedError

    def merging(self, leaves: list[Leaf]) -> Callable[[Leaf], Matrix]:
        """Returns a function that merges the task matrix of a leaf; may read all leaves that are merged first."""
        return self.matrix

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf."""
        mean = mixing(np.full(len(ingredients.names), self.scale / len(ingredients.names)))
        tables = TABLES_AND_HEADS if self.averaged is None else re.compile(self.averaged)
        matrices = [leaf for leaf in ingredients.leaves() if len(leaf.shape) == 2 and not tables.search(leaf.path)]
        merge, paths = self.merging(matrices), {leaf.path for leaf in matrices}

        def fill(leaf: Leaf, out: Out) -> None:
            if leaf.path not in paths:
                mean(leaf, out)
                return
            merged = merge(leaf)
            flat = self.scale * (merged.T if leaf.inputs_lead else merged).reshape(-1)
            start = 0
            for block in leaf.blocks():
                stop = start + block.base.size
                block.put(out, block.base + flat[start:stop])
                start = stop

        return fill


def summed(leaf: Leaf) -> Matrix:
    """Returns the sum of the task matrices."""
    total = np.empty(leaf.size)
    for block in leaf.blocks():
        block.put(total, block.vectors.sum(axis=0, dtype=np.float64))
    return _matrix(leaf, total)


def each_task(leaf: Leaf) -> Iterator[Matrix]:
    """Yields the task matrix of each member."""
    for member in range(len(leaf.ingredients.names)):
        yield task(leaf, member)


def task(leaf: Leaf, member: int) -> Matrix:
    """Returns the task matrix of one member."""
    return summed(Leaf(leaf.path, leaf.shape, leaf.ingredients.alone(member)))


def task_shape(leaf: Leaf) -> tuple[int, int]:
    """Returns the shape ``[outputs, inputs]`` of a leaf's task matrices."""
    first, second = leaf.shape
    return (second, first) if leaf.inputs_lead else (first, second)


def _matrix(leaf: Leaf, flat: np.ndarray) -> Matrix:
    matrix = flat.reshape(leaf.shape)
    return matrix.T if leaf.inputs_lead else matrix
