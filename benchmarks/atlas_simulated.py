"""An atlas of any number of simulated models that lie to one another as real fine-tunes do.

The simulation repeats the real models as often as it needs. Each repetition is turned at random around the mean of
their directions. So its models have the cosines with one another that the real ones have, and in common with those of
other repetitions only what they share with that mean, up to chance: their cosine is the product of their coordinates
along it, give or take one over the root of the number of entries. The true vectors have as many entries as the real
models have parameters.
"""

import multiprocessing
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int64

from wsr.region.sketch import sketch
from wsr.store.atlas_file import AtlasEntry, AtlasFile, directions

FOUND = 10
SIZES = (2048, 4096, 8192, 16384)
"""Numbers per sketch: 4 to 32 KiB. Smaller sketches are folds of larger ones."""
WANTED = 0.99
CHECKED = (10, 20, 50, 100, 200, 500)
"""How many of the models nearest by their sketches are compared by their weights."""
_LARGEST = 2**24  # numbers per sketch, where the search for a size ends


@dataclass(frozen=True)
class Turned:
    """Real models, which can be turned at random around their mean direction."""

    shared: Float[np.ndarray, "models 1"]
    """Coordinate of each direction along the mean."""
    rest: Float[np.ndarray, "models dims"]
    """What is left, in an orthonormal basis."""
    datasets: Int64[np.ndarray, " models"]
    """The dataset of each model; a dataset's number modulo ``families`` is its family."""
    families: int
    """Number of families."""
    entries: int
    """Number of parameters of a model."""

    @classmethod
    def of(
        cls, vectors: Float32[np.ndarray, "models entries"], datasets: Int64[np.ndarray, " models"], families: int
    ) -> "Turned":
        """Returns the models of some task vectors."""
        rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        mean = rows.mean(axis=0)
        mean /= np.linalg.norm(mean)
        shared = rows @ mean[:, None]
        rest = np.linalg.qr((rows - shared * mean).T)[1].T
        return cls(shared, rest, datasets, families, vectors.shape[1])

    def repetition(self, number: int) -> Float32[np.ndarray, "models entries"]:
        """Returns all models as vectors of length 1, turned in a way that the number gives."""
        draw = np.random.default_rng([1, number])
        normal = draw.standard_normal((self.entries - 1, self.rest.shape[1]), dtype=np.float32)
        turned = self.rest.astype(np.float32) @ np.linalg.qr(normal)[0].T
        return np.concatenate([self.shared.astype(np.float32), turned], axis=1)


def simulated(turned: Turned, models: int, queries: int, place: Path) -> dict[str, Any]:
    """Returns what an atlas of simulated models costs, and how many true neighbours it finds.

    Args:
      turned: the real models.
      models: number of models.
      queries: number of models whose neighbours are looked for.
      place: a folder for the atlas.
    """
    draw = np.random.default_rng(0)
    each = len(turned.shared)
    asked = np.sort(draw.choice(models, min(queries, models), replace=False))
    of_repetition = {
        own: turned.repetition(own)[asked[asked // each == own] % each] for own in np.unique(asked // each)
    }
    vectors = np.concatenate(list(of_repetition.values()))
    sketched = {size: directions(_sketches(vectors, size)) for size in SIZES}
    exact = np.empty((len(asked), models), np.float32)
    estimated = {size: np.empty_like(exact) for size in SIZES}
    file, seconds = AtlasFile(place / "simulated.sqlite", "simulated"), []
    for first in range(0, models, each):
        block = turned.repetition(first // each)[: models - first]
        at = slice(first, first + len(block))
        exact[:, at] = vectors @ block.T
        start = time.process_time()
        rows = _sketches(block, SIZES[-1])
        each_sketch = (time.process_time() - start) / len(block)
        for size in SIZES:
            kept = directions(_folded(rows, size)).astype(np.float16).astype(np.float32)
            estimated[size][:, at] = sketched[size] @ kept.T
        for number, row in enumerate(_folded(rows, file.size), start=first):
            start = time.process_time()
            file.add(AtlasEntry(f"m{number}", "", "simulated", str(number), 1.0), row)
            seconds.append(each_sketch + time.process_time() - start)
    for values in (exact, *estimated.values()):
        values[np.arange(len(asked)), asked] = -2  # no model is its own neighbour
    repetitions, real = np.divmod(np.arange(models), each)
    count = int(turned.datasets.max()) + 1
    datasets = repetitions * count + turned.datasets[real]
    own_of, of_count = np.divmod(np.arange(datasets.max() + 1), count)
    families = own_of * turned.families + of_count % turned.families
    for row, values in zip(sketched[file.size][:5], estimated[file.size], strict=False):
        named = {near.entry.name for near in file.nearest(row, FOUND + 1)[1:]}
        assert len(named & {f"m{own}" for own in np.argsort(-values)[:FOUND]}) >= FOUND - 1  # rounding breaks ties
    return {
        "models": models,
        "queries": len(asked),
        "repetitions": -(-models // each),
        **cosines_told(exact, asked, datasets, families),
        "CPU seconds to sketch and add one": median(seconds),
        "recall": {f"{2 * size // 1024} KiB": recall_told(exact, own) for size, own in estimated.items()},
        "recall of the ten nearest at 8 KiB, by the law of the error": _recall_by_law(exact, file.size, draw),
        "KiB for 0.99 of the ten nearest, by this law": _size_by_law(exact, draw) / 512,
        **searched(file.path, sketched[file.size][:20]),
    }


def cosines_told(
    exact: Float[np.ndarray, "asked models"],
    asked: Int64[np.ndarray, " asked"],
    datasets: Int64[np.ndarray, " models"],
    families: Int64[np.ndarray, " datasets"],
) -> dict[str, float]:
    """Returns mean and standard deviation of cosines within and between datasets and families.

    Args:
      exact: the cosines of some models with all; -2 stands for that of a model with itself.
      asked: the numbers of these models.
      datasets: the dataset of each model.
      families: the family of each dataset.
    """
    one_dataset = np.equal.outer(datasets[asked], datasets)
    one_family = np.equal.outer(families[datasets[asked]], families[datasets])
    kinds = {"one dataset": one_dataset, "one family": one_family & ~one_dataset, "two families": ~one_family}
    found: dict[str, float] = {}
    for kind, pairs in kinds.items():
        values = exact[pairs & (exact > -2)]
        found |= {f"mean cosine, {kind}": float(values.mean()), f"its standard deviation, {kind}": float(values.std())}
    return found


def recall_told(
    exact: Float[np.ndarray, "asked models"], estimated: Float[np.ndarray, "asked models"]
) -> dict[str, float]:
    """Returns how many of the ten truly nearest are among the nearest by their sketches, for several numbers of these.

    Comparing those by their weights then names these of the ten.

    Args:
      exact: cosines of task vectors.
      estimated: cosines of sketches.
    """
    ranks = np.sort(ranks_of_true(exact, estimated).ravel())
    found = {f"of the nearest {checked}": float((ranks < checked).mean()) for checked in CHECKED}
    return {**found, "nearest needed for 0.99": float(ranks[int(np.ceil(WANTED * len(ranks))) - 1] + 1)}


def ranks_of_true(
    exact: Float[np.ndarray, "asked models"], estimated: Float[np.ndarray, "asked models"]
) -> Int64[np.ndarray, "asked ten"]:
    """Returns the place of each of the ten truly nearest models in the order of the estimates, from 0."""
    true = np.argpartition(-exact, FOUND - 1, axis=1)[:, :FOUND]
    own = np.take_along_axis(estimated, true, axis=1)
    return np.stack([(estimated > own[:, [place]]).sum(axis=1) for place in range(own.shape[1])], axis=1)


def searched(path: Path, queries: Float32[np.ndarray, "queries size"]) -> dict[str, float]:
    """Returns the time to find ten, the size of the file, and the memory that a process of its own needs for it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seconds, memory = pool.apply(_search, (path, queries))
    return {
        "CPU seconds to find ten": seconds,
        "MB of file": path.stat().st_size / 1e6,
        "MB that searching added to the peak": memory,
    }


def _search(path: Path, queries: Float32[np.ndarray, "queries size"]) -> tuple[float, float]:
    file, before, seconds = AtlasFile(path, path.stem), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for query in queries:
        start = time.process_time()
        file.nearest(query, FOUND)
        seconds.append(time.process_time() - start)
    return median(seconds), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3


def _sketches(vectors: Float32[np.ndarray, "models entries"], size: int) -> Float32[np.ndarray, "models size"]:
    def opened(vector: np.ndarray) -> Any:
        def read(start: int, out: np.ndarray) -> None:
            out[:] = vector[start : start + len(out)]

        return lambda path: read

    return np.stack([sketch({"all": vector.size}, opened(vector), size) for vector in vectors])


def _folded(rows: Float32[np.ndarray, "models _"], size: int) -> Float32[np.ndarray, "models size"]:
    """Returns the sketches of a smaller size: each of their numbers is a sum of numbers of the larger ones."""
    return rows.reshape(len(rows), -1, size).sum(axis=1)


def _recall_by_law(exact: Float[np.ndarray, "asked models"], size: int, draw: np.random.Generator) -> float:
    """Returns the recall of ten if the estimates are normal with the standard error of sketches."""
    # The standard error of ``wsr.store.atlas_file``, which leaves the -2 as they are.
    errors = (1 - np.minimum(exact**2, 1)) / np.sqrt(size)
    estimated = exact + errors * draw.standard_normal(exact.shape, dtype=np.float32)
    return float((ranks_of_true(exact, estimated) < FOUND).mean())


def _size_by_law(exact: Float[np.ndarray, "asked models"], draw: np.random.Generator) -> float:
    size = SIZES[0]
    while size < _LARGEST and _recall_by_law(exact, size, draw) < WANTED:
        size *= 2
    return float(size)
