"""Where the surrogate of features is accurate and where it stops to be: the figures of docs/surrogate.md.

python -m benchmarks.surrogate_limits [--store=runs/demo/store] [--texts=300] [--out=docs/surrogate.json]

The members are those that `make demo` left; the target, vader_nyt, is one that none of them saw. Errors are those of
the mean test loss against exact evaluation of points that are no nodes.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from absl import app, flags
from jaxtyping import Float
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from wsr.data.dataset import Dataset
from wsr.data.load import load_dataset
from wsr.engine import lattice
from wsr.engine.evaluate import Protocol, score_features
from wsr.engine.region_features import region_features
from wsr.geometry import sampling
from wsr.region.region import Region
from wsr.runtime import seeds
from wsr.runtime.compilation import use_persistent_cache
from wsr.store import Store

_STORE = flags.DEFINE_string("store", "runs/demo/store", "Where `make demo` left its members.")
_TEXTS = flags.DEFINE_integer("texts", 300, "Texts of the probe split, and of the test split.")
_OUT = flags.DEFINE_string("out", None, "A JSON file for the figures.")

POPULATIONS = {
    "one family": (
        "vader_amazon-full-s0",
        "vader_amazon-full-s1",
        "vader_amazon-full-s2",
        "vader_movie-full-s0",
        "vader_movie-full-s1",
    ),
    "three families": (
        "election_tweets-full-s0",
        "newsgroups_rec_sci-full-s0",
        "reuters_r8-full-s0",
        "vader_amazon-full-s0",
        "vader_movie-full-s0",
    ),
    "a pair": ("reuters_r8-full-s0", "vader_amazon-full-s0"),
}
VALIDATION, BEYOND = 12, 6  # points

Features = Mapping[str, Float[np.ndarray, "points _ hidden"]]
Row = dict[str, str | int | float]


class Population:
    """Some members, and what was found out about points between them, each by one forward pass over the texts."""

    def __init__(self, region: Region, dataset: Dataset):
        self.region, self.dataset = region, dataset
        self._known: dict[bytes, dict[str, np.ndarray]] = {}

    def features(self, points: Float[np.ndarray, "points members"]) -> Features:
        """Exact features of points; nodes that were run already are not run again."""
        points = points.round(12)
        missing = [row for row in points if row.tobytes() not in self._known]
        splits = {split: self.dataset.splits[split] for split in ("probe", "test")}
        for numbers, features in region_features(self.region, np.array(missing), splits) if missing else ():
            for at, number in enumerate(numbers):
                own = {split: np.asarray(values[at]) for split, values in features.items()}
                self._known[missing[number].tobytes()] = own
        return {split: np.stack([self._known[row.tobytes()][split] for row in points]) for split in splits}

    def compare(
        self,
        points: Float[np.ndarray, "points members"],
        nodes: Float[np.ndarray, "nodes members"],
        degree: int,
        texts: int | None = None,
        **labels: str | int | float,
    ) -> Row:
        """Returns the labels and how far the surrogate's mean losses are off at some points."""
        weights = lattice.Interpolation.through(nodes, degree).weights(points).astype(np.float32)
        mixed = {split: np.tensordot(weights, own, axes=1) for split, own in self.features(nodes).items()}
        own = _losses(mixed, self.dataset, texts)
        exact = _losses(self.features(points), self.dataset, texts)
        errors = np.abs(own - exact)
        several = len(points) > 2  # of two points a correlation says nothing
        return {
            **labels,
            "degree": degree,
            "forward_passes": len(nodes),
            "mean_error": float(errors.mean()),
            "largest_error": float(errors.max()),
            "exact_loss": float(exact.mean()),
            "correlation": float(np.corrcoef(own, exact)[0, 1]) if several else "-",
            "exact_loss_range": float(np.ptp(exact)) if several else "-",
        }


def main(_: list[str]) -> None:
    """Runs all studies and prints and writes their rows."""
    use_persistent_cache()
    began = time.perf_counter()
    store = Store.open(_STORE.value)
    region = Region.from_store(store)
    sizes = {"probe": _TEXTS.value, "test": _TEXTS.value}
    dataset = load_dataset("vader_nyt", store.checkpoint().processor, max_length=64, sizes=sizes)

    def population(names: Sequence[str]) -> Population:
        return Population(region.where(lambda member: member.name in names), dataset)

    studied = {name: population(names) for name, names in POPULATIONS.items()}
    rows: list[Row] = []
    for name in ("one family", "three families"):
        own = studied[name]
        rows += _tell("degree and nodes", name, degrees_and_nodes(own))
        rows += _tell("few texts", name, few_texts(own))
        rows += _tell("outside the hull", name, outside(own))
    rows += _tell("past a member", "a pair", past(studied["a pair"]))
    learned = population(region.names[::2])
    rows += _tell("more members", "all datasets", more_members(learned))
    if _OUT.value:
        content = {
            "command": f"python -m benchmarks.surrogate_limits {' '.join(sys.argv[1:])}",
            "minutes": round((time.perf_counter() - began) / 60, 1),
            "machine": machine(),
            "texts": {split: len(dataset.splits[split]) for split in ("probe", "test")},
            "populations": POPULATIONS | {"all datasets": learned.region.names},
            "rows": rows,
        }
        Path(_OUT.value).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"written: {_OUT.value}")


def degrees_and_nodes(own: Population) -> list[Row]:
    """Degrees 1 to 3, with nodes on the lattice itself and drawn together; uniform points of the hull."""
    points, members = _uniform(own, VALIDATION), len(own.region)
    faces = [own.compare(points, lattice.lattice(members, d), d, nodes_are="lattice") for d in (1, 2, 3)]
    return faces + [own.compare(points, _nodes(own, d), d, nodes_are="drawn together") for d in (1, 2, 3)]


def few_texts(own: Population) -> list[Row]:
    """The same points, with a probe fitted and tested on some of the texts."""
    points, most = _uniform(own, VALIDATION), len(own.dataset.splits["probe"])
    return [
        own.compare(points, _nodes(own, degree), degree, texts, of_texts=texts)
        for texts in (most // 16, most // 4, most)
        for degree in (1, 2)
    ]


def outside(own: Population) -> list[Row]:
    """Points of the hull moved away from its centroid, beyond its faces."""
    points, centre = _uniform(own, BEYOND), own.region.centroid()
    return [
        own.compare(centre + factor * (points - centre), _nodes(own, degree), degree, times_as_far=factor)
        for factor in (1, 2, 4)
        for degree in (1, 2, 3)
    ]


def past(own: Population) -> list[Row]:
    """The line through two members, by polynomials through nodes between them."""
    between = sampling.line(np.linspace(0, 1, 6))
    nodes = {degree: lattice.lattice(2, degree) for degree in (1, 2, 3)}
    places = {"0 to 1": between, **{f"{alpha:g}": sampling.line([alpha, 1 - alpha]) for alpha in (1.5, 2, 3, 4)}}
    return [
        own.compare(points, nodes[degree], degree, alpha=place) for place, points in places.items() for degree in nodes
    ]


def more_members(own: Population) -> list[Row]:
    """A hull of more members: its nodes become many, and what is wanted of it lies nearer to its centroid."""
    points = _uniform(own, VALIDATION)
    return [own.compare(points, _nodes(own, degree), degree, members=len(own.region)) for degree in (1, 2)]


def _nodes(own: Population, degree: int) -> Float[np.ndarray, "nodes members"]:
    """As ``wsr.engine.surrogate`` places them for uniform points, degree by degree."""
    wanted = sampling.convex_hull(seeds.generator(1, "wanted"), 500, len(own.region))
    nodes = np.zeros((0, len(own.region)))
    for current in range(1, degree + 1):
        nodes = np.concatenate([nodes, lattice.place_nodes(wanted, current, nodes)])
    return nodes


def _uniform(own: Population, points: int) -> Float[np.ndarray, "points members"]:
    return sampling.convex_hull(seeds.generator(0, "validation"), points, len(own.region))


def _losses(features: Features, dataset: Dataset, texts: int | None) -> Float[np.ndarray, " points"]:
    """Mean losses, with the probe fitted and tested on the first texts of each split."""
    splits = {split: dataset.splits[split].take(np.arange(len(dataset.splits[split]))[:texts]) for split in features}
    part = Dataset(**{**vars(dataset), "splits": splits})
    return score_features({split: own[:, :texts] for split, own in features.items()}, part, Protocol())[0].mean(axis=1)


def _tell(study: str, population: str, rows: Sequence[Row]) -> list[Row]:
    """Prints rows and returns them with their origin."""
    rows = [{"study": study, "population": population, **row} for row in rows]
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=200).print(table)
    return rows


if __name__ == "__main__":
    app.run(main)
