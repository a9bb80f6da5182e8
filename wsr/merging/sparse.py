"""Sums of sparse task vectors: entries are kept by magnitude, at random, or both, with or without an election of signs.

``theta = base + scale merge_k(w_k keep_k(tau_k))``. ``merge`` is the sum over members. With an election of signs, it is
the sum of those entries that have the same sign as ``sum_k w_k keep_k(tau_k)`` at their place (a sum of 0 counts as
positive). With ``normalise``, either sum is divided by the weights that took part.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from wsr.errors import WsrError
from wsr.merging.averages import default_scale, members_weights
from wsr.merging.ingredients import Block, Ingredients, Leaf, Out
from wsr.merging.magnitudes import Cut, kept_by, magnitudes_at
from wsr.merging.method import OfWeights, at_least, one_of, option, share, weights

Factors = Float[np.ndarray, " members"]
Keep = Callable[[np.ndarray, int], np.ndarray]
"""``keep(vectors, node)`` returns the float32 factor of each entry of ``vectors [members, piece]``; ``node`` is the
number of entries that belong together. It is called on the blocks of a leaf in order."""


@dataclass(frozen=True)
class _Sparse(OfWeights):
    """Options and code shared by the methods of this file."""

    elects: ClassVar[bool] = False
    by_nodes: ClassVar[bool] = False

    density: float | tuple[float, ...] = share(0.2, "Fraction of the entries of each task vector that is kept.")
    weights: tuple[float, ...] | None = weights()
    scale: float | None = option(
        None,
        "Factor of the merged task vector that is added to the base.",
        otherwise="1 / members; 1 with --normalise=true",
    )
    normalise: bool = option(False, "Divide the sum by the sum of the weights.")
    rescale: str = one_of(
        "none",
        "Rescaling of the kept entries: chance divides each by its probability of being kept, norm restores the sum of "
        "magnitudes of each leaf, none changes nothing.",
        "chance",
        "norm",
        "none",
    )

    def keeping(self, ingredients: Ingredients) -> Callable[[Leaf], Keep]:
        """Returns ``open(leaf)``, which returns the leaf's ``keep``; may read the whole population first."""
        raise NotImplementedError

    def densities(self, ingredients: Ingredients) -> Factors:
        """Returns the density of each member."""
        return np.broadcast_to(np.asarray(self.density, np.float64), len(ingredients.names))

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf; restoring norms takes one more pass over it."""
        given = members_weights(self.weights, ingredients)
        # Divides a plain sum over members by their number; a normalised sum is an average already.
        scale = default_scale(self.scale, ingredients, normalise=self.normalise)
        open_leaf = self.keeping(ingredients)

        def fill(leaf: Leaf, out: Out) -> None:
            restoring = self.rescale == "norm"
            factors = given * _norm_factors(leaf, open_leaf(leaf), self.by_nodes) if restoring else given
            keep = open_leaf(leaf)
            for block, node in _blocks(leaf, self.by_nodes):
                kept = keep(block.vectors, node)
                kept *= block.vectors
                if (factors != 1).any():
                    kept *= factors.astype(np.float32)[:, None]
                merged = elected(kept, given, normalise=self.normalise) if self.elects else _sum(kept)
                if self.normalise and not self.elects and abs(given.sum()) >= 1e-8:
                    merged /= np.float32(given.sum())
                merged *= np.float32(scale)
                merged += block.base
                block.put(out, merged)

        return fill


@dataclass(frozen=True)
class Ties(_Sparse):
    """TIES: trims task vectors to their largest entries, elects a sign per entry, averages the entries with that sign.

    Source: Yadav et al., TIES-merging, 2023, which trims over the whole task vector; mergekit trims leaf by leaf
    (``scope``).

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Ties(density=0.3))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    elects: ClassVar = True
    scale: float | None = option(1.0, "Factor of the merged task vector that is added to the base.")
    normalise: bool = option(True, "Divide each entry by the sum of the weights of the members that contribute to it.")
    scope: str = one_of(
        "whole",
        "Where magnitudes are compared: whole, over the whole task vector; leaf, within each leaf.",
        "whole",
        "leaf",
    )
    rescale: str = one_of(
        "none",
        "Rescaling of the kept entries: norm restores the sum of magnitudes of each leaf, none changes nothing.",
        "norm",
        "none",
    )

    def keeping(self, ingredients: Ingredients) -> Callable[[Leaf], Keep]:
        """Finds the smallest magnitude that is kept, in two passes."""
        densities = self.densities(ingredients)

        def lowest(leaves: list[Leaf]) -> list[Cut]:
            size = sum(leaf.size for leaf in leaves)
            kept = [max(1, int(density * size)) if density > 0 else 0 for density in densities]
            found = magnitudes_at(leaves, [[size - own] if 0 < own < size else [] for own in kept])
            return [
                (
                    Cut(own[0].value, stop=own[0].equal - own[0].before, in_pieces=own[0].in_pieces)
                    if self.scope == "leaf"
                    else Cut(own[0].value)
                )
                if own
                else Cut(-1.0 if kept[member] else np.inf)
                for member, own in enumerate(found)
            ]

        whole = lowest(ingredients.leaves()) if self.scope == "whole" else None

        def open_leaf(leaf: Leaf) -> Keep:
            cuts = lowest([leaf]) if whole is None else whole
            return lambda vectors, node: kept_by(cuts, vectors)

        return open_leaf


@dataclass(frozen=True)
class _Random(_Sparse):
    """Options and code of methods that drop entries at random. Draws depend on (seed, leaf, member) and not on the
    piece size."""

    seed: int = at_least(0, 0, "Seed of the draws that decide which entries are dropped.")
    rescale: str = one_of(
        "chance",
        "Rescaling of the kept entries: chance divides each by its probability of being kept, as in the paper; norm "
        "restores the sum of magnitudes of each leaf, as mergekit does; none changes nothing.",
        "chance",
        "norm",
        "none",
    )

    def chances(self, vectors: np.ndarray, node: int, densities: np.ndarray) -> np.ndarray:
        """Returns the probability of keeping each entry; ``densities`` has the shape ``[members, 1]``."""
        return densities

    def keeping(self, ingredients: Ingredients) -> Callable[[Leaf], Keep]:
        """Opens one stream of uniform numbers for each leaf of each member."""
        from wsr.runtime import seeds

        densities = self.densities(ingredients).astype(np.float32)[:, None]

        def open_leaf(leaf: Leaf) -> Keep:
            streams = [seeds.generator(self.seed, "merge", leaf.path, name) for name in ingredients.names]

            def keep(vectors: np.ndarray, node: int) -> np.ndarray:
                chances = self.chances(vectors, node, densities)
                kept = np.empty_like(vectors)
                for stream, row in zip(streams, kept, strict=True):
                    stream.random(dtype=np.float32, out=row)
                np.less(kept, chances, out=kept)
                if self.rescale == "chance":
                    kept /= np.maximum(chances, np.finfo(np.float32).tiny)
                return kept

            return keep

        return open_leaf


@dataclass(frozen=True)
class DareLinear(_Random):
    """DARE: drops entries of each task vector at random, divides the others by the share that is kept, and adds up.

    Source: Yu et al., Language models are super Mario, 2024. mergekit 0.1.5 restores the sum of magnitudes instead
    (``rescale``).

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.DareLinear(density=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """


@dataclass(frozen=True)
class DareTies(_Random):
    """DARE with the election of TIES: entries are dropped at random and not by magnitude.

    Source: Yu et al., Language models are super Mario, 2024, combined with TIES.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.DareTies(density=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    elects: ClassVar = True
    scale: float | None = option(1.0, "Factor of the merged task vector that is added to the base.")
    normalise: bool = option(
        True, "Divide each entry by the sum of the weights of the members that contribute to it. mergekit does not."
    )


@dataclass(frozen=True)
class _Ranked(_Random):
    """Options and code shared by the two forms of DELLA."""

    by_nodes: ClassVar = True
    density: float | tuple[float, ...] = share(0.5, "Mean fraction of the entries of each task vector that is kept.")
    epsilon: float = share(
        0.2,
        "Difference between the probabilities of keeping the largest and the smallest entry of a node. The same effect "
        "takes half this number in mergekit.",
    )

    def __post_init__(self) -> None:
        """Raises ``WsrError`` if a probability would leave (0, 1)."""
        super().__post_init__()
        for density in np.atleast_1d(self.density).tolist():
            if 0 < density < 1 and not self.epsilon / 2 < density < 1 - self.epsilon / 2:
                raise WsrError(
                    f"della: density = {density} and epsilon = {self.epsilon:g}: expected density - epsilon / 2 above "
                    "0 and density + epsilon / 2 below 1, because both are probabilities"
                )

    def chances(self, vectors: np.ndarray, node: int, densities: np.ndarray) -> np.ndarray:
        """Returns probabilities that rise with the rank of the magnitude among the entries of a node."""
        if node == 1:
            return np.broadcast_to(densities, vectors.shape)
        nodes = np.abs(vectors).reshape(len(vectors), -1, node)
        order = np.argsort(nodes, axis=-1, kind="stable")
        rises = np.linspace(-self.epsilon / 2, self.epsilon / 2, node, dtype=np.float32)
        chances = np.empty_like(nodes)
        np.put_along_axis(chances, order, rises[None, None], axis=-1)
        chances = chances.reshape(vectors.shape)
        chances += densities
        return np.where((densities == 0) | (densities == 1), densities, chances)


@dataclass(frozen=True)
class Della(_Ranked):
    """DELLA: drops entries at random, small ones of a node more often, rescales, elects signs and averages.

    The probability of keeping an entry rises with its rank from ``density - epsilon / 2`` to ``density + epsilon / 2``;
    kept entries are divided by it.

    Source: Deep et al., DELLA-merging, 2024. mergekit 0.1.5 restores the sum of magnitudes instead (``rescale``).

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Della(density=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    elects: ClassVar = True
    scale: float | None = option(1.0, "Factor of the merged task vector that is added to the base.")
    normalise: bool = option(True, "Divide each entry by the sum of the weights of the members that contribute to it.")


@dataclass(frozen=True)
class DellaLinear(_Ranked):
    """DELLA without the election of signs: drops entries by rank and adds up the rest.

    Source: Deep et al., DELLA-merging, 2024.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.DellaLinear(density=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """


@dataclass(frozen=True)
class Breadcrumbs(_Sparse):
    """Breadcrumbs: removes the largest and the smallest entries of each leaf and adds up the rest.

    Source: Davari and Belilovsky, Model breadcrumbs, 2024.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Breadcrumbs(density=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    density: float | tuple[float, ...] = share(0.15, "Fraction of the entries of each leaf that is kept.")
    gamma: float = share(0.01, "Fraction of the entries of each leaf that is dropped because they are the largest.")
    rescale: str = one_of(
        "none",
        "Rescaling of the kept entries: norm restores the sum of magnitudes of each leaf, none changes nothing.",
        "norm",
        "none",
    )

    def keeping(self, ingredients: Ingredients) -> Callable[[Leaf], Keep]:
        """Finds two cuts for each leaf and member, in two passes; keeps large entries if the density requires it."""
        densities = self.densities(ingredients)

        def open_leaf(leaf: Leaf) -> Keep:
            kept = [int(density * leaf.size) if density < 1 else leaf.size for density in densities]
            first = [max(0, leaf.size - own - int(self.gamma * leaf.size)) for own in kept]
            # Both ends are kept: that of rank `first` and that of rank `first + kept - 1`.
            ranks = [[at, at + own - 1] if 0 < own < leaf.size else [] for at, own in zip(first, kept, strict=True)]
            found = magnitudes_at([leaf], ranks)
            low = [
                Cut(own[0].value, first=own[0].before, in_pieces=own[0].in_pieces)
                if own
                else Cut(-1.0 if kept[member] else np.inf)
                for member, own in enumerate(found)
            ]
            high = [
                Cut(own[1].value, stop=own[1].before + 1, above=False, in_pieces=own[1].in_pieces) if own else Cut(-1.0)
                for own in found
            ]
            return lambda vectors, node: kept_by(low, vectors) * kept_by(high, vectors)

        return open_leaf


@dataclass(frozen=True)
class BreadcrumbsTies(Breadcrumbs):
    """Breadcrumbs with the election of signs of TIES.

    Source: mergekit, after Davari and Belilovsky and Yadav et al.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.BreadcrumbsTies(density=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    elects: ClassVar = True
    scale: float | None = option(1.0, "Factor of the merged task vector that is added to the base.")
    normalise: bool = option(
        True, "Divide each entry by the sum of the weights of the members that contribute to it. mergekit does not."
    )


def elected(
    vectors: Float[np.ndarray, "members piece"], given: Factors, *, normalise: bool
) -> Float[np.ndarray, " piece"]:
    """Returns the sum, or weighted mean, of the entries that have the sign of their sum; overwrites ``vectors``.

    Args:
      vectors: weighted entries of each member.
      given: weight of each member.
      normalise: whether to divide by the weights of the entries that took part.
    """
    # A sum is -0 only where all entries are 0, which have no sign to elect.
    sign = _sum(vectors).view(np.uint32) & np.uint32(1 << 31)
    for bits in vectors.view(np.uint32):
        bits ^= sign  # positive where the entry has the elected sign
    np.maximum(vectors, np.zeros_like(vectors[0]), out=vectors)
    merged = _sum(vectors)
    merged.view(np.uint32)[:] ^= sign
    if normalise:
        took_part = _weights_of(vectors > 0, given)
        took_part += took_part == 0
        merged /= took_part
    return merged


def _sum(vectors: Float[np.ndarray, "members piece"]) -> Float[np.ndarray, " piece"]:
    """The sum over members; twice as fast as NumPy's over so few rows."""
    if len(vectors) == 1:
        return vectors[0].copy()
    total = np.add(vectors[0], vectors[1])
    for row in vectors[2:]:
        total += row
    return total


def _weights_of(taking_part: Bool[np.ndarray, "members piece"], given: Factors) -> Float[np.ndarray, " piece"]:
    """The sum of the weights of the members that take part; equal weights are counted, which is faster."""
    if (given != given[0]).any():
        return given.astype(np.float32) @ taking_part.astype(np.float32)
    number = taking_part.view(np.uint8).sum(axis=0, dtype=np.min_scalar_type(len(given))).astype(np.float32)
    number *= np.float32(given[0])
    return number


def _norm_factors(leaf: Leaf, keep: Keep, by_nodes: bool) -> Factors:
    """Returns the factors that restore the sum of magnitudes of each member's leaf."""
    before, after = np.zeros((2, len(leaf.ingredients.names)))
    for block, node in _blocks(leaf, by_nodes):
        kept = keep(block.vectors, node)
        before += np.abs(block.vectors).sum(axis=1, dtype=np.float64)
        after += np.abs(kept * block.vectors).sum(axis=1, dtype=np.float64)
    known = (before >= 1e-7) & (after >= 1e-7)
    return np.where(known, before / np.where(known, after, 1.0), 1.0)


def _blocks(leaf: Leaf, by_nodes: bool) -> Iterator[tuple[Block, int]]:
    return leaf.node_blocks() if by_nodes else ((block, 1) for block in leaf.blocks())
