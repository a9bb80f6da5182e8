"""PCB: members compete for each entry."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.magnitudes import magnitudes_at
from wsr.merging.method import OfWeights, option, share
from wsr.merging.order_statistics import order_statistics
from wsr.merging.run import on_all_cores

Vectors = Float[np.ndarray, "members piece"]
Bounds = Float[np.ndarray, "members 1"]


@dataclass(frozen=True)
class Pcb(OfWeights):
    """PCB-merging, parameter competition balancing: ``theta = base + scale sum_k b_k tau_k / sum_k b_k``.

    Entries compete by the score ``exp(n norm(|tau_k|)^2) tanh(tau_k sum_j tau_j)``, over the members and, with ``norm``
    mapping the smallest entry to 0 and the largest to 1, within a task vector. ``b_k`` is the score mapped so that 0 is
    the smallest of the kept scores and 1 the largest. Magnitudes outside the range of all but the ``trim`` smallest and
    largest entries are moved into it. Ranks are over the whole task vector.

    Source: Du et al., Parameter competition balancing for model merging, 2024, as in the authors' code.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Pcb(density=0.2))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    density: float = share(0.1, "Fraction of the entries of each task vector that is kept.")
    trim: float = share(1e-4, "Fraction of the entries at either end whose magnitudes are moved into the range.")
    scale: float = option(1.0, "Factor of the merged task vector that is added to the base.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Finds the ranges of magnitudes and of scores; each member's scores take two passes over all members."""
        leaves = sorted(ingredients.leaves(), key=lambda leaf: leaf.path)
        size, members = sum(leaf.size for leaf in leaves), len(ingredients.names)
        ends = [int(size * self.trim), max(int(size * (1 - self.trim) - 1), 0)]
        found = magnitudes_at(leaves, [ends] * members)
        low, high = (np.array([[own[end].value] for own in found], np.float32) for end in (0, 1))

        def range_of(member: int) -> tuple[float, float]:
            def numbers(sign: int) -> Iterator[np.ndarray]:
                for leaf in leaves:
                    for block in leaf.blocks():
                        yield (sign * _scores(block.vectors, low, high)[member]).clip(0)

            at = min(int(size * (1 - self.density)), size - 1)
            least, most = (own.value for own in order_statistics(lambda: numbers(1), [at, size - 1]))
            if least == 0:
                least = -order_statistics(lambda: numbers(-1), [size - 1 - at])[0].value
            return least, most

        ranges = np.array(on_all_cores(range_of, range(members)), np.float32)
        least, most = ranges[:, :1], ranges[:, 1:]

        def fill(leaf: Leaf, out: Out) -> None:
            for block in leaf.blocks():
                shares = (_scores(block.vectors, low, high) - least).clip(0) / np.maximum(most - least, _TINY)
                moved = np.sign(block.vectors) * _clamped(block.vectors, low, high)
                merged = (moved * shares).sum(axis=0) / np.maximum(shares.sum(axis=0), np.float32(1e-12))
                block.put(out, block.base + np.float32(self.scale) * merged)

        return fill


_TINY = np.finfo(np.float32).tiny


def _clamped(vectors: Vectors, low: Bounds, high: Bounds) -> Vectors:
    return np.abs(vectors).clip(low, high)


def _scores(vectors: Vectors, low: Bounds, high: Bounds) -> Vectors:
    """Returns the scores over ``exp(n)``, which cancels in the shares and would overflow."""
    within = (_clamped(vectors, low, high) - low) / np.maximum(high - low, _TINY)
    return np.exp(len(vectors) * (within**2 - 1)) * np.tanh(vectors * vectors.sum(axis=0))
