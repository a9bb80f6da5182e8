"""How often ``wsr check`` is wrong, on simulated populations and on a trained one. Prints the tables of the docs.

python -m benchmarks.check
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from absl import app

from wsr.region.outliers import flags
from wsr.region.standing import Population, standings
from wsr.runtime import seeds

RUNS = 60
DIMENSION = 600
VERDICTS = ("inside", "on the rim", "outside", "too few to say")


@dataclass(frozen=True)
class Law:
    """How a population is drawn; cosines of two members of one dataset, of one family, and of neither."""

    name: str
    datasets: int = 6
    families: int = 2
    members: int = 3
    within: float = 0.24
    family: float = 0.08
    across: float = 0.02
    lengths: float = 0.03
    """Standard deviation of the logarithm of a length."""


LAWS = (
    Law("6 datasets of 3"),
    Law("6 datasets of 5", members=5),
    Law("6 datasets of 3, lengths 15 % apart", lengths=0.15),
    Law("6 datasets of 3, close (cosine 0.6)", within=0.6, family=0.3, across=0.1),
    Law("2 datasets of 3", datasets=2, families=1),
    Law("1 dataset of 6", datasets=1, families=1, members=6),
)


class World:
    """One population of a law, and candidates for it."""

    def __init__(self, law: Law, generator: np.random.Generator):
        self.law, self._draw = law, generator
        self._common = np.sqrt(law.across) * self.direction()
        self._families = [np.sqrt(law.family - law.across) * self.direction() for _ in range(law.families)]
        self._datasets = [np.sqrt(law.within - law.family) * self.direction() for _ in range(law.datasets)]
        numbers = [number for number in range(law.datasets) for _ in range(law.members)]
        self.members = np.stack([self.member(number) for number in numbers])
        self.datasets = tuple(f"dataset {number}" for number in numbers)
        self.families = tuple(f"family {number % law.families}" for number in numbers)

    def direction(self) -> np.ndarray:
        """A random direction of length 1."""
        vector = self._draw.normal(size=DIMENSION)
        return vector / np.linalg.norm(vector)

    def member(self, dataset: int) -> np.ndarray:
        """Another member of a dataset."""
        return self._around(self._datasets[dataset], dataset)

    def of_a_new_dataset(self, family: int) -> np.ndarray:
        """A member of a dataset that the population does not have, of a family that it has."""
        return self._around(np.sqrt(self.law.within - self.law.family) * self.direction(), family)

    def population(self, candidate: np.ndarray | None = None) -> Population:
        """Its members; a candidate is the last."""
        vectors = self.members if candidate is None else np.vstack([self.members, candidate])
        more = ("",) * (len(vectors) - len(self.members))
        names = tuple(map(str, range(len(vectors))))
        return Population(names, self.datasets + more, self.families + more, vectors @ vectors.T, DIMENSION)

    def _around(self, own: np.ndarray, family: int) -> np.ndarray:
        rest = np.sqrt(1 - self.law.within) * self.direction()
        vector = self._common + self._families[family % self.law.families] + own + rest
        return vector * np.exp(self.law.lengths * self._draw.normal())


CANDIDATES: dict[str, tuple[str, Callable[[World], np.ndarray | None]]] = {
    "another member of the dataset": ("dataset 0", lambda w: w.member(0)),
    "the centroid of the dataset": ("dataset 0", lambda w: w.members[: w.law.members].mean(axis=0)),
    "a member of another dataset of the family": (
        "dataset 0",
        lambda w: w.member(w.law.families) if w.law.datasets > w.law.families else None,
    ),
    "a member of another family": ("dataset 0", lambda w: w.member(1) if w.law.families > 1 else None),
    "the same, of half the length": ("dataset 0", lambda w: w.member(1) / 2 if w.law.families > 1 else None),
    "a random direction": ("dataset 0", lambda w: w.direction()),
    "next to the base": ("dataset 0", lambda w: 0.01 * w.direction()),
    "a new dataset of the family": ("family 0", lambda w: w.of_a_new_dataset(0)),
    "a member of another family ": ("family 0", lambda w: w.member(1) if w.law.families > 1 else None),
}


def main(arguments: list[str]) -> None:
    """Prints all tables."""
    print("| population | candidate | held to | inside | on the rim | outside |\n|---|---|---|---|---|---|")
    for law in LAWS:
        _verdicts(law)
    print("\n| planted in 6 datasets of 3 | flagged | others flagged wrongly |\n|---|---|---|")
    for name, plant in PLANTED.items():
        _flagged(name, plant)
    print("\n| trained, tiny encoder | held to | inside | on the rim | outside |\n|---|---|---|---|---|")
    _trained()


def _verdicts(law: Law) -> None:
    for name, (region, draw) in CANDIDATES.items():
        counts: Counter[str] = Counter()
        for seed in range(RUNS):
            world = World(law, seeds.generator(seed, law.name))
            vector = draw(world)
            if vector is not None:
                population = world.population(vector)
                found = standings(population, len(population) - 1, only=[region])
                counts.update(one.verdict for one in found)
        if counts and not counts["too few to say"]:
            print(f"| {law.name} | {name.strip()} | its {region.split()[0]} | {_shares(counts)} |", flush=True)


PLANTED: dict[str, Callable[[World, np.ndarray], np.ndarray]] = {
    "nothing": lambda w, own: own,
    "3 times as long": lambda w, own: 3 * own,
    "a third of the length": lambda w, own: own / 3,
    "a random direction of the same length": lambda w, own: w.direction(),
    "next to the base": lambda w, own: 1e-4 * own,
    "a copy of the member before it": lambda w, own: w.members[0],
}


def _flagged(name: str, plant: Callable[[World, np.ndarray], np.ndarray]) -> None:
    hits = wrong = others = 0
    for seed in range(RUNS):
        world = World(LAWS[0], seeds.generator(seed, name))
        world.members[1] = plant(world, world.members[1])
        found = [bool(own) for own in flags(world.population())]
        hits += found[1]
        wrong, others = wrong + sum(found) - found[1], others + len(found) - 1
    print(f"| {name} | {100 * hits / RUNS:.0f} % | {100 * wrong / others:.1f} % |", flush=True)


def _trained() -> None:
    """Members of the tiny encoder: each is held to the others of its dataset, and to the other datasets."""
    from wsr.data.load import load_dataset
    from wsr.models import load
    from wsr.region.region import Region, from_params
    from wsr.training import Job, Recipe, finetune

    base = load("tiny")
    recipe = Recipe(learning_rate=0.01, batch_size=32, epochs=4.0, warmup=0.006)
    names = ("made_up_a1", "made_up_a2", "made_up_b1", "made_up_b2", "made_up_c1")
    data = [load_dataset(name, base.processor, max_length=48) for name in names]
    jobs = [Job(own, seed, recipe) for own in data for seed in range(6)]
    region = Region(base.model, base.params, [], base_sha256="tiny")
    for member in finetune(base.model, base.params, jobs, chunk=1):
        own = {f"{member.job.dataset.name} {member.job.seed}": member.params}
        dataset = member.job.dataset
        region = region.joined(
            from_params(base.model, base.params, own, dataset=dataset.name, family=dataset.family).members
        )
    population = Population.of(region)
    counts: dict[str, Counter[str]] = {}
    for place in range(len(population)):
        for one in standings(population, place):
            if one.level == "dataset":
                counts.setdefault(_relation(population, place, one.region), Counter())[one.verdict] += 1
    for relation, own_counts in counts.items():
        print(f"| a member | {relation} | {_shares(own_counts)} |", flush=True)
    flagged = sum(bool(own) for own in flags(population))
    print(f"\n{flagged} of {len(population)} members flagged; cosines of two of a dataset, of a family, of neither:")
    print(_mean_cosines(population))


def _relation(population: Population, place: int, region: str) -> str:
    if population.datasets[place] == region:
        return "the others of its dataset"
    family = population.families[population.datasets.index(region)]
    return "another dataset of its family" if population.families[place] == family else "a dataset of another family"


def _mean_cosines(population: Population) -> str:
    from wsr.geometry.gram import cosine

    similarity = cosine(population.gram)
    found: dict[str, list[float]] = {}
    for a in range(len(population)):
        for b in range(a):
            found.setdefault(_relation(population, a, population.datasets[b]), []).append(similarity[a, b])
    return ", ".join(f"{relation} {np.mean(own):.3f}" for relation, own in found.items())


def _shares(counts: Counter[str] | dict[str, int], names: Sequence[str] = VERDICTS[:3]) -> str:
    total = sum(counts.values())
    return " | ".join(f"{100 * counts.get(name, 0) / total:.0f} %" for name in names)


if __name__ == "__main__":
    app.run(main)
