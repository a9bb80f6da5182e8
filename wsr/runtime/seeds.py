"""Named random streams.

A member's streams are derived from its dataset, seed and purpose. So two datasets never share an initial head or an
order of batches by accident, which would make unrelated members look similar.
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax


def stream(seed: int, *names: str | int) -> "jax.Array":
    """Returns the JAX random key of a named stream; it is the same in every process.

    Args:
      seed: seed of all streams.
      *names: name of the stream, in parts.

    Example:
      >>> from wsr.runtime import seeds
      >>> bool((seeds.stream(0, "mnli", "head") == seeds.stream(0, "cola", "head")).all())
      False
    """
    import jax  # imported here, because NumPy's generators do not need it

    return jax.random.fold_in(jax.random.key(seed), _digest(names))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Returns the NumPy generator of a named stream; it is the same in every process.

    Args:
      seed: seed of all streams.
      *names: name of the stream, in parts.
    """
    return np.random.default_rng([seed, _digest(names)])


def _digest(names: tuple[str | int, ...]) -> int:
    # crc32 and not hash(): hash() is salted per process.
    return zlib.crc32("\x1f".join(map(str, names)).encode())
