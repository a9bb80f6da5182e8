"""What every study is given: a population that learned, targets, and where finished points are kept."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import jax
import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Evaluation, Protocol, evaluate
from wsr.engine.settings import Settings
from wsr.geometry.sampling import random_direction
from wsr.region.region import Member, Region
from wsr.runtime import seeds
from wsr.runtime.progress import progress
from wsr.store.results import Results
from wsr.types import Params


@dataclass(frozen=True, eq=False)
class Context:
    """The material of a study."""

    region: Region
    """Members that learned their dataset; the others are flagged and left out beforehand."""
    datasets: Mapping[str, Dataset]
    targets: Sequence[str]
    """Datasets that points are scored on."""
    results: Results
    """Where finished points are kept."""
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0
    command: str = ""
    """What reproduces the study."""

    def generator(self, *names: str | int) -> np.random.Generator:
        """The random stream of one purpose."""
        return seeds.generator(self.seed, *names)

    def random_member(self, number: int, norm: float, origin: Callable[[], Params], origin_name: str) -> Member:
        """The point at distance ``norm`` from ``origin`` in a random direction, as an extra member of the basis."""

        def load() -> Params:
            direction = random_direction(seeds.stream(self.seed, "random direction", number), self.region.base, norm)
            return jax.tree.map(np.add, origin(), direction)

        # Drawing it again gives the same weights, so what it is drawn from identifies it.
        members = [self.region.base_sha256, *(member.content_sha256 for member in self.region.members)]
        identity = f"{members} {origin_name} {self.seed} {number} {norm!r}"
        return Member(
            f"random direction {number} of length {norm:.3g}",
            dataset="none",
            family="none",
            content_sha256=hashlib.sha256(identity.encode()).hexdigest(),
            load=load,
        )

    def kept(self, compute: Callable[[], float], *identity: object) -> float:
        """Returns what ``compute`` gives, from the finished points where an earlier run computed it.

        ``identity`` is everything that determines the value, in a form whose ``repr`` is the same in every process.
        """
        key = hashlib.sha256(repr(identity).encode()).hexdigest()
        if key not in self.results:
            self.results.put(key, value=np.asarray(compute()))
        return float(self.results.get(key)["value"])


@dataclass(frozen=True, eq=False)
class Request:
    """Points of one group on one target."""

    group: str
    region: Region
    coefficients: Float[np.ndarray, "points members"]
    target: str


def score_all(context: Context, what: str, requests: Sequence[Request]) -> list[Evaluation]:
    """Evaluates the requests in order, with one progress for them all."""
    with progress(what, sum(len(request.coefficients) for request in requests), "points") as counter:
        return [
            evaluate(
                request.region,
                request.coefficients,
                context.datasets[request.target],
                protocol=context.protocol,
                settings=Settings(results=context.results, counter=counter),
            )
            for request in requests
        ]
