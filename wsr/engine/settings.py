"""How the engine works on points: how many at a time, on which devices, in how much memory, and what it keeps."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

from jax.sharding import Mesh

from wsr.errors import WsrError
from wsr.runtime.progress import Counter
from wsr.store.results import Results

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Settings:
    """How the engine works on points. Only ``precision`` changes a score by more than rounding.

    Example:
      >>> import wsr
      >>> wsr.Settings(chunk=4, memory_budget_gib=2.0).chunk
      4

    Raises:
      WsrError: naming the field whose value makes no sense.
    """

    chunk: int | None = None
    """Points on each device at the same time; None: chosen for the device."""
    memory_budget_gib: float | None = None
    """Memory that may be used on each device; None: most of what it has."""
    mesh: Mesh | None = None
    """Devices by points and texts, see ``wsr.runtime.devices``. None: all accelerators, or one CPU; if several
    processes work together (``wsr.runtime.hosts``), the devices of all."""
    rows: int = 16
    """About how many packed rows a forward pass reads; more on an accelerator that few points leave idle."""
    row_length: int = 64
    """Tokens in a row; longer texts make longer rows."""
    precision: Precision = "float32"
    """What the encoder computes in; bfloat16 is faster on accelerators, at a small error of the losses."""
    results: Results | None = None
    """Where finished points are kept; those already there are not evaluated again. None: in memory, for one call."""
    counter: Counter | None = None
    """Advanced by one a point."""

    def __post_init__(self) -> None:
        """Checks every field once, for all who take settings."""
        for name in ("chunk", "rows", "row_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise WsrError(f"settings: {name} must be at least 1, found {value}")
        budget = self.memory_budget_gib
        if budget is not None and not 0 < budget < math.inf:
            raise WsrError(f"settings: memory_budget_gib must be positive, found {budget}")
        if self.precision not in get_args(Precision):
            raise WsrError(f"settings: precision is one of {', '.join(get_args(Precision))}, found {self.precision!r}")

    def advance(self, points: int, note: str = "") -> None:
        """Tells the counter, if there is one, that more points are done."""
        if self.counter:
            self.counter.advance(points, note=note)
