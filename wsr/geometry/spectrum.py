"""Singular values of a matrix without its singular vectors, and the ranks that follow from them."""

import numpy as np
from jaxtyping import Float, Float64

_BLOCK = 2**20  # entries that are multiplied at a time, in float64


def singular_values(matrix: Float[np.ndarray, "rows columns"]) -> Float64[np.ndarray, " values"]:
    """Returns the singular values of a matrix, the largest first.

    They are the square roots of the eigenvalues of the smaller of ``M M^T`` and ``M^T M``, summed in float64 block by
    block. Values below about 1e-8 of the largest are rounding.

    Args:
      matrix: the matrix.

    Example:
      >>> import numpy as np
      >>> from wsr.geometry.spectrum import singular_values
      >>> singular_values(np.array([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])).tolist()
      [4.0, 3.0]
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    rows, columns = tall.shape
    total = np.zeros((columns, columns))
    step = max(1, _BLOCK // max(1, columns))
    for start in range(0, rows, step):
        block = tall[start : start + step].astype(np.float64)
        total += block.T @ block
    return np.sqrt(np.maximum(np.linalg.eigvalsh(total)[::-1], 0.0))


def numerical_rank(values: Float64[np.ndarray, " values"], least: float = 1e-3) -> int:
    """Returns the number of singular values above ``least`` times the largest; 0 for a matrix of zeros.

    Args:
      values: singular values, the largest first.
      least: threshold, relative to the largest.
    """
    return int((values > least * values[0]).sum()) if values.size and values[0] > 0 else 0


def stable_rank(values: Float64[np.ndarray, " values"]) -> float:
    """Returns ``sum_i s_i^2 / s_1^2``, the squared Frobenius norm over the squared spectral norm; 0 for zeros.

    It is at most the rank, and small changes of the matrix change it little (Rudelson and Vershynin 2007).

    Args:
      values: singular values, the largest first.
    """
    return float(np.square(values / values[0]).sum()) if values.size and values[0] > 0 else 0.0
