"""Entries merged by how many members use them, or agree on them: RAM, consensus of TALL masks, EMR."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from wsr.merging.averages import default_scale
from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, at_least, option


@dataclass(frozen=True)
class Ram(OfWeights):
    """RAM: ``theta = base + sum_k c_k tau_k / max(1, sum_k c_k)``, entry by entry; ``c_k`` is ``|tau_k| > epsilon``.

    Source: ram of mergekit 0.1.5, Reinforced Agent Merging (arXiv 2601.13572).

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Ram())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    epsilon: float = at_least(0.0, 1e-5, "Magnitude above which a member changed an entry.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf."""

        def fill(leaf: Leaf, out: Out) -> None:
            raised = self.raised(leaf).astype(np.float32)
            for block in leaf.blocks():
                changed = np.abs(block.vectors) > np.float32(self.epsilon)
                count = changed.sum(axis=0)
                total = np.where(count == 1, raised @ (block.vectors * changed), (block.vectors * changed).sum(axis=0))
                block.put(out, block.base + total / np.maximum(count, 1).astype(np.float32))

        return fill

    def raised(self, leaf: Leaf) -> np.ndarray:
        """Returns the factor of each member's entries that no other member changed."""
        return np.ones(len(leaf.ingredients.names))


@dataclass(frozen=True)
class RamPlus(Ram):
    """RAM+ within leaves: RAM that raises a member's own entries by ``1 + r min(alpha, shared_k / own_k)``.

    ``own_k`` counts the entries of a leaf that only member ``k`` changed, ``shared_k`` those that others changed too.

    Source: ramplus_tl of mergekit 0.1.5, Reinforced Agent Merging (arXiv 2601.13572).

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.RamPlus())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    r: float = at_least(0.0, 0.1, "Strength of the rise.")
    alpha: float = at_least(0.0, 0.2, "Largest ratio of shared to own entries that counts.")

    def raised(self, leaf: Leaf) -> np.ndarray:
        """Counts the entries in one more pass over the leaf."""
        own, shared = np.zeros((2, len(leaf.ingredients.names)))
        for block in leaf.blocks():
            changed = np.abs(block.vectors) > np.float32(self.epsilon)
            count = changed.sum(axis=0)
            own += (changed & (count == 1)).sum(axis=1)
            shared += (changed & (count > 1)).sum(axis=1)
        ratio = shared / np.maximum(own, 1e-5)  # a member without entries of its own has the largest ratio
        return 1 + self.r * np.minimum(ratio, self.alpha)


@dataclass(frozen=True)
class Consensus(OfWeights):
    """Consensus merging: keeps the entries of ``tau = sum_k tau_k`` that at least ``least`` members use.

    Member ``k`` uses an entry if its TALL mask has it: ``|tau_k| > threshold |tau - tau_k|``. Then ``theta = base +
    scale tau`` on these entries, and the base on all others.

    Source: Wang et al., Localizing task information for improved model merging and compression, 2024, who choose the
    threshold among 0.2, 0.3, 0.4, 0.5 and 0.6 for each task, and the scale, on validation data.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Consensus(threshold=0.3))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    threshold: float = at_least(
        0.0, 0.4, "A member uses an entry that is larger than this multiple of the sum of the other members' entries."
    )
    least: int = at_least(0, 2, "Smallest number of members that use an entry that is kept.")
    scale: float | None = option(None, "Factor of the sum of task vectors.", otherwise="1 / members")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf."""
        scale = np.float32(default_scale(self.scale, ingredients, normalise=False))

        def fill(leaf: Leaf, out: Out) -> None:
            for block in leaf.blocks():
                total = block.vectors.sum(axis=0)
                used = np.abs(block.vectors) > np.float32(self.threshold) * np.abs(total - block.vectors)
                block.put(out, block.base + scale * total * (used.sum(axis=0) >= self.least))

        return fill


@dataclass(frozen=True)
class Emr(OfWeights):
    """EMR's unified task vector: each entry has the sign of ``sum_k tau_k`` and the largest magnitude with this sign.

    A sum of 0 counts as negative. EMR rebuilds each task's model from the unified vector by a mask and a factor of the
    task. One merged model serves all tasks, so it has the unified vector alone.

    Source: Huang et al., EMR-merging: tuning-free high-performance model merging, 2024.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Emr())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    scale: float = option(1.0, "Factor of the merged task vector that is added to the base.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf."""

        def fill(leaf: Leaf, out: Out) -> None:
            for block in leaf.blocks():
                largest, smallest = block.vectors.max(axis=0).clip(0), block.vectors.min(axis=0).clip(max=0)
                unified = np.where(block.vectors.sum(axis=0) > 0, largest, smallest)
                block.put(out, block.base + np.float32(self.scale) * unified)

        return fill
