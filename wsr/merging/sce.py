"""SCE: select, calculate, erase."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, at_least, share
from wsr.merging.order_statistics import order_statistics


@dataclass(frozen=True)
class Sce(OfWeights):
    """SCE: selects the entries in which members differ most, weights members by them, erases minority signs.

    In each leaf, the entries with the largest variance over members are kept. Member ``k`` has the weight ``w_k``, its
    share of the sum of squares of the kept entries. ``theta = base + sum_k w_k tau_k / sum_k w_k``, where both sums run
    over the members whose entry has the sign of ``sum_k tau_k``.

    Source: Wan et al., FuseChat, 2024.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Sce(density=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    density: float = share(1.0, "Fraction of the entries with a variance that is kept; 1 keeps all entries.")
    floor: float = at_least(
        0.0,
        0.0,
        "Smallest sum: if the mean squares of all members sum to less, members have equal weights; a sum of weights "
        "below it counts as this number. mergekit uses 1e-6.",
    )

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf, which reads the leaf up to five times."""

        def fill(leaf: Leaf, out: Out) -> None:
            bound = self._bound(leaf)
            squares = np.zeros(len(ingredients.names))
            for block in leaf.blocks():
                squares += np.square(_selected(block.vectors, bound), dtype=np.float64).sum(axis=1)
            squares /= leaf.size
            equal = squares.sum() < self.floor or not squares.any()
            given = np.full(len(squares), 1 / len(squares)) if equal else squares / squares.sum()
            for block in leaf.blocks():
                kept = _selected(block.vectors, bound)
                # Signs are those of the plain sum, before any weight.
                sign = np.where(kept.sum(axis=0) >= 0, np.float32(1), np.float32(-1))
                agrees = (kept * sign > 0).astype(np.float32)
                weight = given.astype(np.float32) @ agrees
                merged = given.astype(np.float32) @ (kept * agrees)
                merged /= np.where(weight > 0, np.maximum(weight, np.float32(self.floor)), np.float32(1))
                block.put(out, block.base + merged)

        return fill

    def _bound(self, leaf: Leaf) -> float:
        """Returns the smallest variance that is selected."""
        if self.density >= 1:
            return 0.0
        varying = sum(int(np.count_nonzero(_variance(block.vectors))) for block in leaf.blocks())
        selected = int(varying * self.density)
        if not selected:
            return np.inf
        variances = lambda: (_variance(block.vectors) for block in leaf.blocks())  # noqa: E731
        return order_statistics(variances, [leaf.size - selected])[0].value


def _variance(vectors: np.ndarray) -> np.ndarray:
    return vectors.var(axis=0)


def _selected(vectors: np.ndarray, bound: float) -> np.ndarray:
    return vectors if bound <= 0 else np.where(_variance(vectors) >= np.float32(bound), vectors, np.float32(0))
