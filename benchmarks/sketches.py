"""Sketches against exact cosines on real task vectors, their rate, and 100,000 models as sketches.

python -m benchmarks.sketches --store=runs/packaged/shelf/stores/NAME [--members=REGEX] [--out=FOLDER]

The members are those of ``python -m experiments.same_dataset_clusters --preset=packaged``; the store is only read.
"""

import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from absl import app, flags
from sklearn.metrics import adjusted_rand_score

from benchmarks.machine import machine
from wsr.geometry.gram import cosine
from wsr.geometry.similarity import gram_matrix
from wsr.region.region import Region
from wsr.region.sketch import BLOCK, nearest, sketch
from wsr.statistics.clustering import spectral
from wsr.store import Store

SIZES = (256, 1024, 4096, 16_384, 65_536)
MODELS, DATASETS, FAMILIES, QUERIES = 100_000, 2_000, 100, 200

_STORE = flags.DEFINE_string("store", None, "A store of members fine-tuned on several datasets.", required=True)
_MEMBERS = flags.DEFINE_string("members", r".*-full-s[0-4]", "Which of them, a regular expression on the whole name.")
_MODELS = flags.DEFINE_integer("models", MODELS, "Of the simulation.", lower_bound=2 * DATASETS)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Sketches of each member, by as many seeds.", lower_bound=1)
_PARTS = flags.DEFINE_list("parts", ["errors", "rate", "simulation"], "What to measure.")
_OUT = flags.DEFINE_string("out", None, "A folder for sketches.json.")


def main(arguments: list[str]) -> None:
    """Measures, prints and writes."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected {arguments[1]!r}")
    store = Store.open(_STORE.value)
    names = [name for name in store.names() if re.fullmatch(_MEMBERS.value, name)]
    region = Region.from_store(store, names=names)
    hashes = [member.content_sha256 for member in region.members]
    known = store.gram_file.read(hashes)
    exact = cosine(known if not np.isnan(known).any() else gram_matrix(region.leaf_sizes, region.open_task_vectors()))
    structure = _structure(region, exact)
    parts: dict[str, Callable[[], object]] = {
        "errors": lambda: _errors(region, exact, _SEEDS.value),
        "rate": lambda: _rate(region),
        "simulation": lambda: [_simulation(structure, size, _MODELS.value) for size in (256, 1024, 4096)],
    }
    found = {
        "command": f"python -m benchmarks.sketches --store=STORE --seeds={_SEEDS.value}",
        "machine": machine(),
        "members": len(region),
        "entries": sum(region.leaf_sizes.values()),
        "cosines": structure,
        **{name: measure() for name, measure in parts.items() if name in _PARTS.value},
    }
    if _OUT.value:
        path = Path(_OUT.value) / "sketches.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")


def _structure(region: Region, exact: np.ndarray) -> dict[str, float]:
    """Mean cosines of two members of one dataset, of one family, of two families; and the spread within each."""
    datasets, families = np.array(region.datasets), np.array(region.families)
    apart = ~np.eye(len(region), dtype=bool)
    same = datasets[:, None] == datasets
    kin = families[:, None] == families
    kinds = {"one dataset": apart & same, "one family": ~same & kin, "two families": ~kin}
    return {
        **{f"mean, {kind}": float(exact[pairs].mean()) for kind, pairs in kinds.items()},
        **{f"deviation, {kind}": float(exact[pairs].std()) for kind, pairs in kinds.items()},
    }


def _errors(region: Region, exact: np.ndarray, seeds: int) -> list[dict[str, float | int | bool]]:
    """How far cosines of sketches are from the exact ones, for each size; a small sketch is a large one, folded."""
    sizes, members = region.leaf_sizes, region.open_task_vectors()
    large = [np.stack([sketch(sizes, own, SIZES[-1], seed=seed) for own in members]) for seed in range(seeds)]
    datasets = np.array(region.datasets)
    pairs = np.triu_indices(len(region), 1)
    count = len(set(region.datasets))
    truth = spectral(exact, count, seed=0)
    rows = []
    for size in SIZES:
        estimates = []
        for own in large:
            folded = own.reshape(len(own), -1, size).sum(axis=1)
            estimates.append(cosine((folded @ folded.T).astype(np.float64)))
        off = np.array([(estimate - exact)[pairs] for estimate in estimates])
        neighbours = [
            datasets[np.argmax(estimate - 2 * np.eye(len(estimate)), axis=1)] == datasets for estimate in estimates
        ]
        agreement = [adjusted_rand_score(truth, spectral(own, count, seed=0)) for own in estimates]
        rows.append(
            {
                "size": size,
                "rms error": float(np.sqrt(np.square(off).mean())),
                "predicted rms error": float(np.sqrt(np.square(1 - exact[pairs] ** 2).mean() / size)),
                "mean error": float(off.mean()),
                "largest error": float(np.abs(off).max()),
                "nearest member is of the same dataset": float(np.mean(neighbours)),
                "adjusted Rand index with the exact clusters, least": float(min(agreement)),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def _rate(region: Region, repeats: int = 4) -> dict[str, float]:
    """One member after another on one thread, read through the store and hashed, and sketched as well."""
    sizes = region.leaf_sizes
    megabytes = 4e-6 * sum(sizes.values())
    buffer = np.empty(BLOCK, np.float32)

    def read(number: int) -> None:
        member = region.open_task_vectors()[number]
        for path in sorted(sizes):
            piece = member(path)
            for start in range(0, sizes[path], BLOCK):
                piece(start, buffer[: min(BLOCK, sizes[path] - start)])

    def sketched(number: int) -> None:
        sketch(sizes, region.open_task_vectors()[number], 4096)

    times = [(_seconds(lambda n=n: read(n)), _seconds(lambda n=n: sketched(n))) for n in range(repeats)]  # type: ignore[misc]
    found = {
        "MB a member": megabytes,
        "CPU seconds a member, read and hashed": median(own[0] for own in times),
        "CPU seconds a member, read, hashed and sketched": median(own[1] for own in times),
        "sketching takes as long as reading, times": median(own[1] / own[0] - 1 for own in times),
    }
    found["MB a CPU second"] = megabytes / found["CPU seconds a member, read, hashed and sketched"]
    print(json.dumps(found), flush=True)
    return found


def _simulation(structure: dict[str, float], size: int, models: int) -> dict[str, float | int]:
    """Models with the measured cosines, as sketches: made of what all, a family, a dataset share, and of noise.

    Those are random directions, whose sketches are normal with variance 1 / size; a sketch of a sum is the sum.
    """
    draw = np.random.default_rng(0)
    everyone, family, dataset = (structure[f"mean, {kind}"] for kind in ("two families", "one family", "one dataset"))
    parts = [max(everyone, 0.0), max(family - everyone, 0.0), max(dataset - family, 0.0), 1 - dataset]

    def directions(count: int, share: float) -> np.ndarray:
        return np.sqrt(share / size, dtype=np.float32) * draw.standard_normal((count, size), dtype=np.float32)

    own_family = np.arange(DATASETS) % FAMILIES
    centres = directions(1, parts[0]) + directions(FAMILIES, parts[1])[own_family] + directions(DATASETS, parts[2])
    own_dataset = draw.integers(DATASETS, size=models)
    rows = np.empty((models, size), np.float32)
    for first in range(0, models, 4096):
        piece = own_dataset[first : first + 4096]
        rows[first : first + 4096] = centres[piece] + directions(len(piece), parts[3])
    newcomers = draw.integers(DATASETS, size=QUERIES)
    new = centres[newcomers] + directions(QUERIES, parts[3])
    a_row = [_seconds(lambda n=n: rows @ new[n]) for n in range(3)]  # type: ignore[misc]
    a_search = [_seconds(lambda n=n: nearest(rows, new[n], 10)) for n in range(3)]  # type: ignore[misc]
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    numbers: list[np.ndarray] = []
    together = _seconds(lambda: numbers.append(_nearest_of(rows, norms, new)))
    found = own_dataset[numbers[0]]
    result = {
        "models": models,
        "size": size,
        "datasets": DATASETS,
        "families": FAMILIES,
        "GB of sketches": rows.nbytes / 1e9,
        "CPU seconds, inner products of one new model with all": median(a_row),
        "CPU seconds, its ten nearest": median(a_search),
        "CPU seconds a model, nearest of many together": together / QUERIES,
        "nearest is of the same dataset": float((found == newcomers).mean()),
        "nearest is of the same family": float((own_family[found] == own_family[newcomers]).mean()),
        "by chance, same family": 1 / FAMILIES,
    }
    print(json.dumps(result), flush=True)
    return result


def _nearest_of(rows: np.ndarray, norms: np.ndarray, new: np.ndarray) -> np.ndarray:
    """The nearest of all rows to each new one, 50 at a time."""
    parts: Sequence[np.ndarray] = [
        np.argmax((new[first : first + 50] @ rows.T) / norms, axis=1) for first in range(0, len(new), 50)
    ]
    return np.concatenate(parts)


def _seconds(call: Callable[[], object]) -> float:
    # Of the processor: on a shared machine the clock on the wall tells of others.
    start = time.process_time()
    call()
    return time.process_time() - start


if __name__ == "__main__":
    app.run(main)
