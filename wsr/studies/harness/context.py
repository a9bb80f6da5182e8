"""``Context``, the input of every study: a population, targets, a protocol and the cache of finished points."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np
from jaxtyping import Float

from wsr.data.dataset import Dataset
from wsr.engine.evaluate import Evaluation, Protocol, evaluate
from wsr.engine.settings import Settings
from wsr.geometry.sampling import random_direction
from wsr.models.precision import Precision
from wsr.region.region import Member, Region
from wsr.runtime import seeds
from wsr.runtime.progress import progress
from wsr.store.results import Results
from wsr.types import Params


@dataclass(frozen=True, eq=False)
class Context:
    """The input of a study."""

    region: Region
    """The members that learned their dataset."""
    datasets: Mapping[str, Dataset]
    """Datasets of the members and targets, by name."""
    targets: Sequence[str]
    """Names of the datasets on which points are scored."""
    results: Results
    """Cache of finished points."""
    protocol: Protocol = field(default_factory=Protocol)
    seed: int = 0
    command: str = ""
    """Command line that reproduces the study."""
    precision: Precision = "float32"
    """Precision of the encoder when points are scored."""

    @property
    def settings(self) -> Settings:
        """How points are evaluated: the precision, and where finished points are kept."""
        return Settings(results=self.results, precision=self.precision)

    def generator(self, *names: str | int) -> np.random.Generator:
        """Returns the random stream of one purpose, which ``names`` and the seed identify."""
        return seeds.generator(self.seed, *names)

    def random_member(self, number: int, norm: float, origin: Callable[[], Params], origin_name: str) -> Member:
        """Returns the point at distance ``norm`` from an origin in a random direction, as an extra member.

        Args:
          number: number of the direction; equal numbers give equal directions.
          norm: Euclidean distance from the origin.
          origin: returns the parameters of the origin.
          origin_name: identifies the origin in the member's hash.
        """

        def load() -> Params:
            direction = random_direction(seeds.stream(self.seed, "random direction", number), self.region.base, norm)
            return jax.tree.map(np.add, origin(), direction)

        name = f"random direction {number} of length {norm:.3g}"
        return self._made(name, f"{origin_name} {self.seed} {number} {norm!r}", load)

    def scaled_member(self, factor: float, origin: Callable[[], Params], origin_name: str) -> Member:
        """Returns the point on the line from an origin to the zero vector, as an extra member.

        Args:
          factor: factor of the origin's parameters; 0 is the zero vector.
          origin: returns the parameters of the origin.
          origin_name: identifies the origin in the member's hash.
        """

        def load() -> Params:
            return jax.tree.map(lambda leaf: np.asarray(leaf * np.float32(factor)), origin())

        return self._made(f"{origin_name} times {factor:.3g}", f"{origin_name} scaled {factor!r}", load)

    def _made(self, name: str, identity: str, load: Callable[[], Params]) -> Member:
        """Returns a member whose weights are made; equal inputs give equal weights, so its hash is of the inputs."""
        members = [self.region.base_sha256, *(member.content_sha256 for member in self.region.members)]
        sha256 = hashlib.sha256(f"{members} {identity}".encode()).hexdigest()
        return Member(name, dataset="none", family="none", content_sha256=sha256, load=load)

    def kept(self, compute: Callable[[], float], *identity: object) -> float:
        """Returns ``compute()``, or the cached value if an earlier run computed it.

        Args:
          compute: computes the value.
          identity: everything that determines the value, as objects whose ``repr`` is the same in every process.
        """
        key = hashlib.sha256(repr(identity).encode()).hexdigest()
        if key not in self.results:
            self.results.put(key, value=np.asarray(compute()))
        return float(self.results.get(key)["value"])


@dataclass(frozen=True, eq=False)
class Request:
    """Points of one group, to be scored on one target."""

    group: str
    region: Region
    coefficients: Float[np.ndarray, "points members"]
    target: str


def score_all(context: Context, what: str, requests: Sequence[Request]) -> list[Evaluation]:
    """Returns the evaluation of each request, in order, with one progress display for all of them."""
    with progress(what, sum(len(request.coefficients) for request in requests), "points") as counter:
        return [
            evaluate(
                request.region,
                request.coefficients,
                context.datasets[request.target],
                protocol=context.protocol,
                settings=replace(context.settings, counter=counter),
            )
            for request in requests
        ]
