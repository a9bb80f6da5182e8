"""Times contenders side by side on the same work: interleaved repeats, medians, ratios pair by pair.

The machines are shared, so a time alone says little. A ratio of two times taken one after the other says more, and the
median of several such ratios is what is reported.
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median


@dataclass(frozen=True)
class Mark:
    """A figure that was to be reached."""

    what: str
    value: float
    wanted: float
    at_most: bool = False
    """Whether smaller is better."""

    @property
    def reached(self) -> bool:
        """Whether the mark is met."""
        return self.value <= self.wanted if self.at_most else self.value >= self.wanted


@dataclass(frozen=True)
class Result:
    """What one benchmark measured."""

    name: str
    work: str
    """What one call of each contender does."""
    ours: str
    """Which contender is wsr's."""
    seconds: Mapping[str, list[float]]
    """Time of each call, one entry a repeat."""
    units: int = 1
    """Points, models, ... in one call: times are shown for one of them."""
    unit: str = "call"
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    """Everything else that was measured in the same run; names carry their unit."""
    marks: tuple[Mark, ...] = ()

    def ratio(self, rival: str) -> float:
        """How many times as long the rival takes: the median over repeats of the ratio of the two."""
        return median(theirs / own for theirs, own in zip(self.seconds[rival], self.seconds[self.ours], strict=True))

    def to_json(self) -> dict:
        """Everything, with medians and ratios worked out."""
        return {
            **asdict(self),
            "median_seconds_per_unit": {name: median(times) / self.units for name, times in self.seconds.items()},
            "ratios": {name: self.ratio(name) for name in self.seconds if name != self.ours},
            "marks": [{**asdict(mark), "reached": mark.reached} for mark in self.marks],
        }


def side_by_side(
    contenders: Mapping[str, Callable[[], object]], *, repeats: int, warm_up: bool = True
) -> dict[str, list[float]]:
    """Returns the seconds of each call; every contender is called once beforehand, so that nobody's compiling counts.

    Contenders take turns, and each repeat begins with another one.
    """
    if warm_up:
        for call in contenders.values():
            call()
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            gc.collect()
            start = time.perf_counter()
            contenders[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds
