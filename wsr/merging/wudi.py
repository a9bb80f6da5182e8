"""WUDI: a merged task matrix that interferes least with the tasks, by gradient steps without data."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from wsr.merging.ingredients import Leaf
from wsr.merging.method import at_least, positive
from wsr.merging.task_matrices import Matrix, OfMatrices, each_task, summed

Rows = Float32[np.ndarray, "rows inputs"]
Square = Float32[np.ndarray, "inputs inputs"]

ROWS = 128
"""Rows of a matrix that take all steps together."""


@dataclass(frozen=True)
class Wudi(OfMatrices):
    """WUDI: the matrix ``M`` that minimises ``sum_k |(M - M_k) M_k^T|^2 / |M_k|^2``, by Adam from ``sum_k M_k``.

    The rows of a task matrix ``M_k`` stand for the inputs of its layer. The gradient is ``2 (M A - B)`` with ``A =
    sum_k M_k^T M_k / |M_k|^2`` and ``B = sum_k M_k M_k^T M_k / |M_k|^2``, so a step costs one product, whatever the
    number of members.

    Source: Cheng et al., Whoever started the interference should end it: guiding data-free model merging via task
    vectors, 2025.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Wudi(steps=10))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    steps: int = at_least(0, 300, "Number of steps of Adam.")
    learning_rate: float = positive(1e-5, "Step size of Adam.")

    def matrix(self, leaf: Leaf) -> Matrix:
        """Returns the matrix after all steps, which are taken in float32."""
        start = summed(leaf)
        outputs, inputs = start.shape
        left, right = np.zeros((inputs, inputs)), np.zeros((outputs, inputs))
        for task in each_task(leaf):
            gram = task.T @ task
            if square := np.trace(gram):
                left += gram / square
                right += task @ (gram / square)
        merged = np.empty(start.shape, np.float32)
        a, b = left.astype(np.float32), right.astype(np.float32)
        # A row's steps need no other row, so a few rows take all steps while they are in the processor's cache.
        for first in range(0, outputs, ROWS):
            rows = slice(first, first + ROWS)
            merged[rows] = self._stepped(start[rows].astype(np.float32), a, b[rows])
        return merged.astype(np.float64)

    def _stepped(self, merged: Rows, a: Square, b: Rows) -> Rows:
        """Returns rows of the matrix after all steps of Adam, in float32."""
        mean, variance = np.zeros((2, *merged.shape), np.float32)
        for step in range(1, self.steps + 1):
            gradient = 2 * (merged @ a - b)
            mean = 0.9 * mean + 0.1 * gradient
            variance = 0.999 * variance + 0.001 * gradient**2
            rate = self.learning_rate / (1 - 0.9**step)
            merged = merged - rate * mean / (np.sqrt(variance / (1 - 0.999**step)) + 1e-8)
        return merged
