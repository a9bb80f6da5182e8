"""What errors at held-out points say about the errors elsewhere.

The rule is that of split conformal prediction (Vovk and others, Algorithmic Learning in a Random World, 2005). A
point's error is divided by the remainder of the polynomial there and compared with the same ratio at held-out points.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from wsr.engine.lattice import Interpolation


@dataclass(frozen=True)
class ErrorBound:
    """A bound on the error of a polynomial at a point, as a function of its remainder there."""

    ratio: float
    """Largest ratio of error to remainder, at the level asked for."""
    usual: float
    """Root mean square of the remainder; a smaller remainder counts as this one."""
    furthest: float
    """Largest remainder of a held-out point; beyond it nothing was measured and the bound is infinite."""

    def at(self, remainders: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Returns the bound at points of some remainders."""
        return np.where(remainders <= self.furthest, self.ratio * np.maximum(remainders, self.usual), np.inf)


def error_bounds(
    polynomial: Interpolation,
    held: Float[np.ndarray, "held members"],
    errors: Float[np.ndarray, " held"],
    rest: Float[np.ndarray, "rest members"],
    *,
    drawn: int,
    level: float,
) -> Float[np.ndarray, " rest"]:
    """Returns a bound on the error of a polynomial at each of the other points.

    A bound is proportional to the remainder of the polynomial at the point, but no smaller than at a point of usual
    remainder: rounding and jumps of a probe are no smaller near a node. It is infinite where the remainder exceeds that
    of every held-out point, because nothing was measured so far from the nodes.

    If there are too few held-out points for the level, their largest ratio is multiplied by ``1 / (level * (drawn +
    1))``. This assumes that the law of the ratios has a tail no heavier than 1 / x beyond the largest.

    Args:
      polynomial: answers the other points.
      held: held-out points; those drawn at random come first.
      errors: absolute errors there.
      rest: the other points.
      drawn: number of held-out points that were drawn at random.
      level: probability that the error at one of the other points, drawn at random, exceeds its bound.
    """
    at_held, at_rest = polynomial.remainders(held), polynomial.remainders(rest)
    return error_bound(at_held, errors, at_rest, drawn=drawn, level=level).at(at_rest)


def error_bound(
    at_held: Float[np.ndarray, " held"],
    errors: Float[np.ndarray, " held"],
    at_rest: Float[np.ndarray, " rest"],
    *,
    drawn: int,
    level: float,
) -> ErrorBound:
    """Returns the bound of ``error_bounds`` as a function of the remainder.

    Args:
      at_held: remainders at the held-out points; those drawn at random come first.
      errors: absolute errors there.
      at_rest: remainders at other points, for the usual remainder.
      drawn: number of held-out points that were drawn at random.
      level: probability that the error at a point drawn at random exceeds its bound.
    """
    usual = np.sqrt(np.square(np.concatenate([at_held[:drawn], at_rest])).mean()) + np.finfo(np.float32).tiny
    ratios = np.where(np.isfinite(errors), errors / np.maximum(at_held, usual), np.inf)
    rank = int(np.ceil((1 - level) * (drawn + 1)))
    ratio = np.sort(ratios[:drawn])[rank - 1] if rank <= drawn else ratios[:drawn].max() / (level * (drawn + 1))
    return ErrorBound(float(max(ratio, ratios[drawn:].max(initial=0.0))), float(usual), float(at_held.max()))
