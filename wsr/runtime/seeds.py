"""Named random streams.

A member's streams are derived from its dataset, seed and purpose. So two datasets never share an initial head or an
order of batches by accident, which would make unrelated members look similar.
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np

from wsr.errors import WsrError

if TYPE_CHECKING:
    import jax


def stream(seed: int, *names: str | int, generator: str | None = None) -> "jax.Array":
    """Returns the JAX random key of a named stream; it is the same in every process.

    Args:
      seed: seed of all streams.
      *names: name of the stream, in parts.
      generator: JAX's name of the generator of random bits, for example "rbg"; None: JAX's default, threefry.

    Raises:
      WsrError: if the seed is not from 0 to 2^63 - 1.

    Example:
      >>> from wsr.runtime import seeds
      >>> bool((seeds.stream(0, "mnli", "head") == seeds.stream(0, "cola", "head")).all())
      False
    """
    import jax  # imported here, because NumPy's generators do not need it

    return jax.random.fold_in(jax.random.key(_checked(seed), impl=generator), _digest(names))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Returns the NumPy generator of a named stream; it is the same in every process.

    Args:
      seed: seed of all streams.
      *names: name of the stream, in parts.

    Raises:
      WsrError: if the seed is not from 0 to 2^63 - 1.
    """
    return np.random.default_rng([_checked(seed), _digest(names)])


def _checked(seed: int) -> int:
    if not 0 <= seed < 2**63:
        raise WsrError(f"seed {seed}: expected a whole number from 0 to 2^63 - 1")
    return seed


def _digest(names: tuple[str | int, ...]) -> int:
    # crc32 and not hash(): hash() is salted per process.
    return zlib.crc32("\x1f".join(map(str, names)).encode())
