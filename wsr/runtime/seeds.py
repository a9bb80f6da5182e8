"""Every random stream has a name.

A member's streams are derived from (dataset, seed, purpose), so that two datasets never share an initial head or
an order of batches by accident: sharing them makes unrelated members look similar.
"""

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax


def stream(seed: int, *names: str | int) -> "jax.Array":
    """Returns the JAX key of the stream called ``names``, the same in every process."""
    import jax  # not at the top of the file: NumPy's generators do without

    return jax.random.fold_in(jax.random.key(seed), _digest(names))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Returns the NumPy generator of the stream called ``names``, the same in every process."""
    return np.random.default_rng([seed, _digest(names)])


def _digest(names: tuple[str | int, ...]) -> int:
    # crc32 and not hash(): hash() is salted per process.
    return zlib.crc32("\x1f".join(map(str, names)).encode())
