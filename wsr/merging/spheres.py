"""Interpolation along spheres: a result is a linear combination of the vectors, found from their Gram matrix.

No vector is normalised or rotated; the operations act on rows of coefficients, which are then mixed as in any other
method. Each leaf is one vector, or the whole model is (``scope``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Float64

from wsr.errors import WsrError
from wsr.merging.averages import Row, mixing, normalised
from wsr.merging.ingredients import Ingredients, Leaf, Out
from wsr.merging.method import OfWeights, at_least, one_of, option, positive, weights
from wsr.merging.run import on_all_cores

Gram = Float64[np.ndarray, "members members"]

OPPOSITE = 1 - 1e-9
"""Two vectors whose cosine is below minus this number are opposite."""
SMALLEST_ANGLE = 1e-5
"""In radians; below it, a step along the sphere and a step along its chord are equal in floating point."""


@dataclass(frozen=True)
class _OnSphere(OfWeights):
    """Options and code shared by the methods of this file."""

    wide: ClassVar = True

    scope: str = one_of(
        "leaf", "What is one vector: leaf, each leaf of the model; whole, the whole model.", "leaf", "whole"
    )
    around: str = one_of(
        "zero",
        "Where vectors begin: zero, so that they are the weights; base, so that they are task vectors.",
        "zero",
        "base",
    )

    def row(self, gram: Gram) -> Row:
        """Returns coefficients over the vectors with this Gram matrix."""
        raise NotImplementedError

    def prepared(self, ingredients: Ingredients) -> Callable[[Leaf, Out], None]:
        """Computes the Gram matrices of all leaves in one pass and returns the merge of one leaf."""
        leaves = [leaf.within(around=self.around) for leaf in ingredients.leaves()]
        grams = dict(zip((leaf.path for leaf in leaves), on_all_cores(Leaf.gram, leaves), strict=True))
        if self.scope == "whole":
            # Summed in the order of the paths, so that the result does not depend on the threads.
            whole = np.sum([grams[path] for path in sorted(grams)], axis=0)
            grams = dict.fromkeys(grams, whole)
        else:
            # A single number has a sign and no direction: numbers count as parallel.
            grams = {leaf.path: np.abs(grams[leaf.path]) if leaf.size == 1 else grams[leaf.path] for leaf in leaves}
        rows: Mapping[str, Row] = {path: self.row(gram) for path, gram in grams.items()}
        return lambda leaf, out: mixing(rows[leaf.path])(leaf.within(around=self.around), out)


@dataclass(frozen=True)
class Slerp(_OnSphere):
    """Spherical linear interpolation of two models: ``(sin((1 - t) a) v_1 + sin(t a) v_2) / sin(a)``.

    ``a`` is the angle between the vectors, which keep their lengths. Parallel vectors are interpolated along a straight
    line. Opposite vectors have no shortest arc between them and raise ``WsrError``.

    Source: Shoemake, Animating rotation with quaternion curves, 1985.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(2), wsr.merging.Slerp(t=0.5))
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    members: ClassVar = (2, 2)
    t: float = option(0.5, "Position between the two members; 0 is the first, 1 the second.")
    linear_above: float = option(
        1 - 1e-9,
        "Cosine above which the straight line between the two members is used. mergekit uses 0.9995.",
        "a number from 0 to 1",
        lambda value: 0 <= value <= 1,
    )

    def row(self, gram: Gram) -> Row:
        """Returns the coefficients of the two vectors; raises ``WsrError`` if they are opposite."""
        cosine = float(_units(gram)[1][0, 1])
        if cosine < -OPPOSITE and 0 < self.t < 1:
            raise WsrError(
                f"slerp: the two vectors are opposite (cosine {cosine:.9f}), so no arc between them is "
                "shorter than all others; merge with the method linear, or with vectors from another origin (around)"
            )
        if cosine > self.linear_above:
            return np.array([1 - self.t, self.t])
        angle = np.arccos(cosine)
        return np.sin(np.array([1 - self.t, self.t]) * angle) / np.sin(angle)


@dataclass(frozen=True)
class MultiSlerp(_OnSphere):
    """SLERP of many models: the weighted mean of their unit vectors, scaled to the weighted mean of their lengths.

    ``v = (sum_k w_k |v_k|) u / |u|`` with ``u = sum_k w_k v_k / |v_k|``.

    Source: multislerp of mergekit; its step in the tangent space at ``u / |u|`` has length 0, because the tangent parts
    of the unit vectors cancel there.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.MultiSlerp())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    weights: tuple[float, ...] | None = weights()
    around: str = one_of(
        "base",
        "Where vectors begin: zero, so that they are the weights; base, so that they are task vectors.",
        "zero",
        "base",
    )
    normalise: bool = option(True, "Divide the weights by their sum.")

    def row(self, gram: Gram) -> Row:
        """Returns the coefficients; raises ``WsrError`` if the unit vectors cancel, as opposite ones do."""
        lengths, cosines = _units(gram)
        given = np.ones(len(gram)) if self.weights is None else np.asarray(self.weights, np.float64)
        given = normalised(given) if self.normalise else given
        if not lengths.any():
            return given
        square = given @ cosines @ given
        if square < 1e-14:
            raise WsrError(
                "multislerp: the weighted unit vectors cancel, so there is no direction; choose other weights"
            )
        return _over(given / np.sqrt(square), lengths) * (given @ lengths)


@dataclass(frozen=True)
class Karcher(_OnSphere):
    """The Karcher mean of the directions, with the mean length: the direction with the least sum of squared angles.

    Fixed-point steps ``m <- exp_m(sum_k a_k log_m(u_k))`` from the mean of the unit vectors, with ``log_m(u) = (x / sin
    x) (u - m cos x)``, ``x`` the angle between ``u`` and ``m``, and ``exp_m(d) = m cos|d| + d sin|d| / |d|``.

    Source: Karcher, Riemannian center of mass and mollifier smoothing, 1977.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.Karcher())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    weights: tuple[float, ...] | None = weights()
    steps: int = at_least(1, 100, "Largest number of steps. mergekit uses 10.")
    tolerance: float = positive(
        1e-10, "Length below which a step ends the iteration, and below which a vector has no direction."
    )

    def row(self, gram: Gram) -> Row:
        """Returns the coefficients; vectors of length 0 count in the mean length but not in the direction."""
        lengths, cosines = _units(gram)
        shares = normalised(np.ones(len(gram)) if self.weights is None else np.asarray(self.weights, np.float64))
        there = lengths > self.tolerance
        if not there.any():
            return shares
        given = normalised(np.where(there, shares, 0.0))
        square = given @ cosines @ given
        mean = np.eye(len(gram))[np.flatnonzero(there)[0]] if square < self.tolerance**2 else given / np.sqrt(square)
        for _ in range(self.steps):
            towards = np.clip(cosines @ mean, -1, 1)
            angles = np.arccos(towards)
            stretch = np.where(angles < SMALLEST_ANGLE, 0.0, given * angles / np.where(angles > 0, np.sin(angles), 1.0))
            step = stretch - (stretch @ towards) * mean
            length = np.sqrt(max(step @ cosines @ step, 0.0))
            if length < self.tolerance:
                break
            mean = np.cos(length) * mean + np.sin(length) * step / length
            mean = mean / np.sqrt(mean @ cosines @ mean)
        return _over(mean, lengths) * (shares @ lengths)


@dataclass(frozen=True)
class ModelStock(_OnSphere):
    """Model Stock: ``theta = t mean_k theta_k + (1 - t) base`` with ``t = n c / (1 + (n - 1) c)``.

    ``c`` is the mean cosine between two task vectors.

    Source: Jang et al., Model Stock: all we need is just a few fine-tuned models, 2024, which treats each layer
    separately.

    Example:
      >>> import wsr
      >>> merged = wsr.merge(wsr.made_up_region(3), wsr.merging.ModelStock())
      >>> sorted(merged)
      ['embeddings', 'layers']
    """

    members: ClassVar = (2, None)
    around: str = one_of("base", "Where vectors begin: base, so that the cosines are those of task vectors.", "base")
    least_product: float = at_least(
        0.0, 0.0, "Smallest product of two lengths; smaller products count as this number. mergekit uses 1e-6."
    )

    def row(self, gram: Gram) -> Row:
        """Returns the coefficients; if the task vectors cancel, the result is the base."""
        count = len(gram)
        lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
        products = np.maximum(np.outer(lengths, lengths), max(self.least_product, np.finfo(float).tiny))
        cosine = float(np.clip(gram / products, -1, 1)[np.triu_indices(count, 1)].mean())
        denominator = 1 + (count - 1) * cosine
        share = 0.0 if abs(denominator) < 1e-6 else count * cosine / denominator
        return np.full(count, share / count)


def _units(gram: Gram) -> tuple[Float[np.ndarray, " members"], Gram]:
    """Returns the lengths and the Gram matrix of the unit vectors; a vector of length 0 has no direction."""
    lengths = np.sqrt(np.maximum(np.diag(gram), 0.0))
    inverse = np.where(lengths > 0, 1 / np.where(lengths > 0, lengths, 1.0), 0.0)
    return lengths, np.clip(gram * np.outer(inverse, inverse), -1, 1)


def _over(row: Row, lengths: Float[np.ndarray, " members"]) -> Row:
    """Returns coefficients over the vectors from those over their unit vectors."""
    return np.where(lengths > 0, row / np.where(lengths > 0, lengths, 1.0), 0.0)
