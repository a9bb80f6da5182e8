"""How the engine evaluates points: how many at a time, on which devices, in how much memory, with which cache."""

import math
import numbers
from dataclasses import dataclass
from typing import get_args

from jax.sharding import Mesh

from wsr.errors import WsrError
from wsr.models.precision import Precision
from wsr.runtime.progress import Counter
from wsr.store.results import Results


def is_count(value: object) -> bool:
    """Returns whether a value is a whole number, at least 1."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1


def is_positive(value: object) -> bool:
    """Returns whether a value is a finite number above 0."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < float(value) < math.inf


@dataclass(frozen=True)
class Settings:
    """How the engine evaluates points. Only ``precision`` changes a score by more than rounding.

    Raises:
      WsrError: if a field has an invalid value; the message names the field.

    Example:
      >>> import wsr
      >>> wsr.Settings(chunk=4, memory_budget_gib=2.0).chunk
      4
    """

    chunk: int | None = None
    """Points evaluated at a time on each device, or on each group of devices that share a model; None: chosen for the
    device."""
    memory_budget_gib: float | None = None
    """Memory to use on each device, in GiB; None: most of the device's memory."""
    mesh: Mesh | None = None
    """Devices by points, texts and model, see ``wsr.runtime.devices``; None: all accelerators or one CPU, and all
    devices of all processes that work together (``wsr.runtime.hosts``). If a model exceeds the memory of a device, the
    devices of the mesh are divided anew so that several of them share each model."""
    rows: int = 16
    """Packed rows per forward pass; an accelerator with few points to evaluate gets more."""
    row_length: int = 64
    """Tokens in a row; raised if a text is longer."""
    precision: Precision = "float32"
    """Precision of the encoder's matrix products; bfloat16 is faster where the chip has it, and changes the losses
    slightly."""
    results: Results | None = None
    """Cache of finished points, which are not evaluated again; None: a cache in memory for one call."""
    counter: Counter | None = None
    """Progress counter, advanced once per point."""

    def __post_init__(self) -> None:
        """Checks every field."""
        for name in ("chunk", "rows", "row_length"):
            value = getattr(self, name)
            if not is_count(value) and not (name == "chunk" and value is None):
                raise WsrError(f"settings: {name}: expected a whole number, at least 1, found {value!r}")
        budget = self.memory_budget_gib
        if budget is not None and not is_positive(budget):
            raise WsrError(f"settings: memory_budget_gib: expected a number above 0, found {budget!r}")
        if self.precision not in get_args(Precision):
            raise WsrError(f"settings: precision is one of {', '.join(get_args(Precision))}, found {self.precision!r}")

    def advance(self, points: int, note: str = "") -> None:
        """Advances the progress counter, if there is one.

        Args:
          points: number of points finished.
          note: text shown beside the progress.
        """
        if self.counter:
            self.counter.advance(points, note=note)
