"""Methods of mergekit that fuse two models, or copy one: NuSLERP, nearswap, Arcee Fusion, passthrough."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64

from wsr.merging.averages import members_weights, mixing
from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, at_least, one_of, option, weights

Numbers = np.ndarray | np.floating
COLINEAR = float(np.finfo(np.float32).eps) / 2
"""Largest squared sine of the angle between vectors that count as parallel or opposite: 0 in mergekit's float32."""


@dataclass(frozen=True)
class NuSlerp(OfWeights):
    """NuSLERP: SLERP of two models by weights: ``(sin((1 - t) a) v_1 + sin(t a) v_2) / sin(a)``, ``t = w_2 / sum w``.

    ``a`` is the angle between the vectors. Parallel and opposite vectors are interpolated along a straight line. If the
    weights sum to 0, ``t`` is 0.5.

    Source: nuslerp of mergekit 0.1.5.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(2), wsr.merging.NuSlerp(weights=(0.7, 0.3)))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    wide: ClassVar = True
    based: ClassVar = False
    members: ClassVar = (2, 2)

    weights: tuple[float, ...] | None = weights()
    scope: str = one_of(
        "leaf",
        "What is one vector: leaf, each leaf; output, the weights of each output unit or table row; input, those of "
        "each input unit or table column.",
        "leaf",
        "output",
        "input",
    )
    around: str = one_of(
        "base",
        "Where vectors begin: zero, so that they are the weights; base, so that they are task vectors.",
        "zero",
        "base",
    )

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf, which it reads twice; vectors within a leaf are read whole."""
        first, second = members_weights(self.weights, ingredients)
        t = 0.5 if abs(first + second) < 1e-6 else second / (first + second)

        def fill(leaf: Leaf, out: Out) -> None:
            leaf = leaf.within(around=self.around)
            if self.scope == "leaf" or len(leaf.shape) < 2:
                gram = leaf.gram()
                mixing(_arc(t, gram[0, 0], gram[1, 1], gram[0, 1]))(leaf, out)
                return
            axis = -1 if (self.scope == "output") != leaf.inputs_lead else 0
            for block in leaf.within(piece=leaf.size).blocks():
                ends = block.vectors.reshape(2, *leaf.shape)
                squares = np.square(ends, dtype=np.float64).sum(axis=axis if axis < 0 else 1, keepdims=True)
                product = np.multiply(*ends, dtype=np.float64).sum(axis=axis, keepdims=True)
                row = _arc(t, squares[0], squares[1], product)
                block.put(out, block.base + (row * ends).sum(axis=0).reshape(-1))

        return fill


def _arc(t: float, first: Numbers, second: Numbers, product: Numbers) -> Float64[np.ndarray, "2 ..."]:
    """Returns the coefficients of the two vectors with these squared lengths and this inner product."""
    lengths = np.maximum(np.sqrt(first), 1e-7) * np.maximum(np.sqrt(second), 1e-7)
    cosine = np.clip(product / lengths, -1, 1)
    straight = 1 - cosine**2 <= COLINEAR
    angle = np.arccos(np.where(straight, 0.0, cosine))
    return np.stack([np.where(straight, share, np.sin(share * angle) / np.sin(angle)) for share in (1 - t, t)])


@dataclass(frozen=True)
class NearSwap(OfWeights):
    """Nearswap: moves the base towards one model, where the two are close: ``base + min(1, t / |tau|) tau``.

    No entry moves by more than ``t``.

    Source: nearswap of mergekit 0.1.5, after alchemonaut's QuartetAnemoi-70B-t0.0001, whose ``t`` is the default.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(1), wsr.merging.NearSwap(t=0.001))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    members: ClassVar = (1, 1)

    t: float = at_least(0.0, 1e-4, "Largest distance that an entry of the base moves.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf."""

        def fill(leaf: Leaf, out: Out) -> None:
            for block in leaf.blocks():
                vector = block.vectors[0]
                share = np.minimum(np.float32(self.t) / np.maximum(np.abs(vector), np.float32(1e-6)), np.float32(1))
                block.put(out, block.base + share * vector)

        return fill


@dataclass(frozen=True)
class ArceeFusion(OfWeights):
    """Arcee Fusion: takes from one model the entries that matter most, all others from the base.

    The importance of an entry is ``|tau| KL(p || q)``, where ``p`` and ``q`` are the softmax of the weights of its
    output unit in the model and in the base, plus 1e-8 each. Entries at or above ``median + 1.5 (q3 - q1)`` of the
    leaf's importances are taken; ``q1`` and ``q3`` are quartiles.

    Source: arcee_fusion of mergekit 0.1.5, which estimates the quartiles of a leaf of more than a million entries from
    a random sample. Here they are exact.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(1), wsr.merging.ArceeFusion())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    members: ClassVar = (1, 1)

    spread: float = at_least(0.0, 1.5, "Distance of the threshold from the median, in distances between the quartiles.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the merge of one leaf, which is read whole."""

        def fill(leaf: Leaf, out: Out) -> None:
            axis = 0 if leaf.inputs_lead else -1
            for block in leaf.within(piece=max(leaf.size, 1)).blocks():
                base, vector = block.base.reshape(leaf.shape), block.vectors[0].reshape(leaf.shape)
                importance = (np.abs(vector) * _divergence(base + vector, base, axis)).reshape(-1)
                ordered = np.sort(importance)
                first, median, third = ordered[[int(share * (leaf.size - 1)) for share in (0.25, 0.5, 0.75)]]
                taken = importance >= median + self.spread * (third - first)
                block.put(out, block.base + block.vectors[0] * taken)

        return fill


def _divergence(weights: np.ndarray, base: np.ndarray, axis: int) -> Float64[np.ndarray, "..."]:
    p, q = (_softmax(own.astype(np.float64), axis) + 1e-8 for own in (weights, base))
    return (p * np.log(p / q)).sum(axis=axis, keepdims=True)


def _softmax(numbers: np.ndarray, axis: int) -> np.ndarray:
    raised = np.exp(numbers - numbers.max(axis=axis, keepdims=True))
    return raised / raised.sum(axis=axis, keepdims=True)


@dataclass(frozen=True)
class Passthrough(OfWeights):
    """Passthrough: copies one model, ``scale theta``.

    Source: passthrough of mergekit 0.1.5.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(1), wsr.merging.Passthrough())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    wide: ClassVar = True
    based: ClassVar = False
    members: ClassVar = (1, 1)

    scale: float = option(1.0, "Factor of the weights.")

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Returns the copy of one leaf."""
        fill = mixing(np.array([self.scale]))
        return lambda leaf, out: fill(leaf.within(around="zero"), out)
