"""Low-rank factors of a change: of several factors together, exactly, and of a matrix, by a truncated SVD."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64

from wsr.geometry.low_rank import Factors
from wsr.types import AnyArray


def concatenated(members: Sequence[Factors], row: Sequence[float]) -> Factors:
    """Returns factors of ``sum_k row_k a_k b_k``; the ranks add up.

    Args:
      members: factors of one leaf in each member, all of a matrix or all of a vector.
      row: one coefficient for each member.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry.low_rank import Factors
      >>> from wsr.geometry.truncation import concatenated
      >>> one = Factors(np.ones((3, 2), np.float32), np.ones((2, 4), np.float32))
      >>> a, b = concatenated([one, one], [0.5, 0.25])
      >>> a.shape, (a @ b)[0].tolist()
      ((3, 4), [1.5, 1.5, 1.5, 1.5])
    """
    pairs = list(zip(members, row, strict=True))
    scaled = [np.asarray(own.b, np.float64) * coefficient for own, coefficient in pairs]
    if all(own.a.shape == (1, 1) for own in members):
        total = sum(np.asarray(own.a, np.float64) * b for own, b in zip(members, scaled, strict=True))
        return Factors(np.ones((1, 1), np.float32), np.asarray(total, np.float32))
    a = np.concatenate([np.asarray(own.a, np.float32) for own in members], axis=1)
    return Factors(a, np.concatenate(scaled, axis=0).astype(np.float32))


def truncated(
    change: Float[np.ndarray, "inputs outputs"], *, rank: int | None = None, share: float | None = None
) -> Factors | None:
    """Returns the factors of the closest matrix of a given rank, by the SVD (Eckart and Young 1936).

    The singular vectors are those of the smaller of ``change change^T`` and ``change^T change``, in float64. Each
    factor takes the square root of the singular values.

    Args:
      change: the matrix.
      rank: largest rank of the result.
      share: share of the Frobenius norm that the result keeps at least, by the smallest rank that does.

    Returns:
      Factors without singular values that are zero up to rounding; None if all are.
    """
    wide = change.shape[0] <= change.shape[1]
    matrix = np.asarray(change if wide else change.T, np.float64)
    squares, vectors = np.linalg.eigh(matrix @ matrix.T)
    squares, vectors = np.maximum(squares[::-1], 0), vectors[:, ::-1]
    count = _kept(squares, rank, share)
    if count == 0:
        return None
    roots = squares[:count] ** 0.25
    left = vectors[:, :count]
    first, second = left * roots, (left / roots).T @ matrix
    a, b = (first, second) if wide else (second.T, first.T)
    return Factors(a.astype(np.float32), b.astype(np.float32))


def lowered(factors: Factors, *, rank: int | None = None, share: float | None = None) -> Factors | None:
    """Returns ``truncated(a @ b)`` without computing the product.

    Args:
      factors: the factors of a matrix.
      rank: largest rank of the result.
      share: share of the Frobenius norm that the result keeps at least.
    """
    left, core_left = np.linalg.qr(np.asarray(factors.a, np.float64))
    right, core_right = np.linalg.qr(np.asarray(factors.b, np.float64).T)
    u, values, v = np.linalg.svd(core_left @ core_right.T)
    count = _kept(values**2, rank, share)
    if count == 0:
        return None
    roots = np.sqrt(values[:count])
    a, b = left @ (u[:, :count] * roots), (roots[:, None] * v[:count]) @ right.T
    return Factors(a.astype(np.float32), b.astype(np.float32))


def squared_distance(change: Float[AnyArray, "..."], factors: Factors) -> float:
    """Returns the squared Frobenius norm of ``change - a @ b``, in float64 and one block of rows at a time.

    Args:
      change: the change of a leaf, a matrix or a vector.
      factors: factors of its shape.
    """
    matrix = np.asarray(change).reshape(factors.a.shape[0], factors.b.shape[1])
    b = np.asarray(factors.b, np.float64)
    rows = max(1, 2**20 // max(1, b.shape[1]))
    starts = range(0, len(matrix), rows)
    return float(
        sum(
            np.square(matrix[at : at + rows] - np.asarray(factors.a[at : at + rows], np.float64) @ b).sum()
            for at in starts
        )
    )


def _kept(squares: Float64[np.ndarray, " values"], rank: int | None, share: float | None) -> int:
    """Returns how many singular values to keep, of those that are not zero up to rounding in float32."""
    if not squares.size or squares[0] <= 0:
        return 0
    count = int((squares > squares[0] * np.finfo(np.float32).eps ** 2).sum())
    if share is not None:
        reached = np.cumsum(squares) >= share**2 * squares.sum() * (1 - 1e-12)
        count = min(count, int(np.argmax(reached)) + 1)
    return count if rank is None else min(count, rank)
