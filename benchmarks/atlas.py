"""An atlas of 1,000 real small fine-tunes, and one of 100,000 models simulated from their cosines.

python -m benchmarks.atlas [--real=1000] [--simulated=100000] [--out=FOLDER]

Measured: the time to add a model and to find ten, the file, the memory of a search, and how many of the ten truly
nearest models (by exact cosines; in the simulation, by dataset) are among the ten that the atlas names. Times are of
the processor: on a shared machine the clock on the wall tells of others.
"""

import json
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from absl import app, flags

import wsr
from benchmarks.machine import machine
from wsr.data.made_up import MadeUp
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.geometry.trees import flatten
from wsr.region.sketch import sketch
from wsr.runtime.compilation import use_persistent_cache
from wsr.statistics.neighbourhoods import nearest_others
from wsr.store.atlas_file import AtlasEntry, AtlasFile

DATASETS, FAMILIES, QUERIES, FOUND = 20, 4, 50, 10
IN_SIMULATION = 2_000
"""Datasets of the simulation."""

_REAL = flags.DEFINE_integer("real", 1000, "Models that are fine-tuned.", lower_bound=2 * DATASETS)
_SIMULATED = flags.DEFINE_integer("simulated", 100_000, "Models of the simulation.", lower_bound=2 * IN_SIMULATION)
_OUT = flags.DEFINE_string("out", None, "A folder for atlas.json.")


def main(arguments: list[str]) -> None:
    """Measures, prints and writes."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected {arguments[1]!r}")
    use_persistent_cache()
    with tempfile.TemporaryDirectory() as place:
        real = _real(_REAL.value, Path(place))
        print(json.dumps(real), flush=True)
        simulated = _simulated(_SIMULATED.value, Path(place), real["mean cosine, one dataset"])
        print(json.dumps(simulated), flush=True)
    if _OUT.value:
        content = {
            "command": f"python -m benchmarks.atlas --real={_REAL.value} --simulated={_SIMULATED.value}",
            "machine": machine(),
            "real": real,
            "simulated": simulated,
        }
        path = Path(_OUT.value) / "atlas.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")


def _real(models: int, place: Path) -> dict[str, float]:
    base = wsr.load("tiny")
    recipe = wsr.Recipe(epochs=4, batch_size=16, learning_rate=3e-3)
    data = [_dataset(base, number) for number in range(DATASETS)]
    jobs = [wsr.Job(data[number % DATASETS], number // DATASETS, recipe, size=128) for number in range(models)]
    sizes = {path: leaf.size for path, leaf in flatten(base.params).items()}
    file = AtlasFile(place / "real.sqlite", "tiny")
    opened, labels, rows, seconds = [], [], [], []
    for member in wsr.finetune(base.model, base.params, jobs):
        opened.append(in_memory(member.params, base.params))
        labels.append(member.job.dataset.name)
        start = time.process_time()
        rows.append(sketch(sizes, opened[-1], file.size))
        entry = AtlasEntry(f"m{len(rows)}", "", labels[-1], str(len(rows)), float(np.linalg.norm(rows[-1])))
        file.add(entry, rows[-1])
        seconds.append(time.process_time() - start)
    gram = gram_matrix(sizes, opened)
    lengths = np.sqrt(np.diag(gram))
    exact = gram / np.outer(lengths, lengths)
    np.fill_diagonal(exact, -1)
    truth = np.argsort(-exact, axis=1)[:, :FOUND]
    estimated, _ = nearest_others((np.stack(rows).T / np.linalg.norm(rows, axis=1)).T.astype(np.float32), FOUND)
    same = np.equal.outer(labels, labels) & (exact > -1)
    return {
        "models": models,
        "parameters": float(sum(sizes.values())),
        "mean cosine, one dataset": float(exact[same].mean()),
        "mean cosine, others": float(exact[~same & (exact > -1)].mean()),
        "CPU seconds to sketch and add one": median(seconds),
        "recall of the ten nearest": float(
            np.mean([len(set(a) & set(b)) / FOUND for a, b in zip(truth, estimated, strict=True)])
        ),
        "nearest named is the nearest": float((truth[:, 0] == estimated[:, 0]).mean()),
        "cosine of the tenth minus that of the tenth named": float(
            np.mean(
                np.take_along_axis(exact, truth, 1)[:, -1]
                - np.sort(np.take_along_axis(exact, estimated, 1), axis=1)[:, 0]
            )
        ),
        **_search(file, rows[:QUERIES]),
    }


def _simulated(models: int, place: Path, cosine: float) -> dict[str, float]:
    """Directions of datasets with the measured cosine between two models of one, and nothing in common between two."""
    draw = np.random.default_rng(0)
    file = AtlasFile(place / "simulated.sqlite", "simulated")
    centres = draw.standard_normal((IN_SIMULATION, file.size), dtype=np.float32)
    labels = draw.integers(IN_SIMULATION, size=models)

    def drawn(label: int) -> np.ndarray:
        own = draw.standard_normal(file.size, dtype=np.float32)
        return np.sqrt(cosine, dtype=np.float32) * centres[label] + np.sqrt(1 - cosine, dtype=np.float32) * own

    seconds = []
    for number, label in enumerate(labels.tolist()):
        row, start = drawn(label), time.process_time()
        file.add(AtlasEntry(f"m{number}", "", str(label), str(number), 1.0), row)
        seconds.append(time.process_time() - start)
    asked = draw.choice(np.unique(labels), size=QUERIES).tolist()
    queries = [drawn(label) for label in asked]
    counts = np.bincount(labels, minlength=IN_SIMULATION)
    right = []
    for label, query in zip(asked, queries, strict=True):
        named = [near.entry.dataset for near in file.nearest(query, FOUND)]
        right.append(named.count(str(label)) / min(FOUND, counts[label]))
    return {
        "models": models,
        "datasets": IN_SIMULATION,
        "cosine of two models of one dataset": cosine,
        "CPU seconds to add one": median(seconds),
        "recall of models of the same dataset among ten": float(np.mean(right)),
        **_search(file, queries[:5]),
    }


def _search(file: AtlasFile, queries: list[np.ndarray]) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for query in queries:
        start = time.process_time()
        file.nearest(query, FOUND)
        seconds.append(time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "CPU seconds to find ten": median(seconds),
        "MB of file": file.path.stat().st_size / 1e6,
        "MB that searching added to the peak": grown / 1e3,
    }


def _dataset(base: wsr.Checkpoint, number: int) -> wsr.Dataset:
    name, family = f"atlas_{number}", f"atlas_family_{number % FAMILIES}"
    wsr.data.register(wsr.data.DatasetSpec(name, family, MadeUp(family, name), classes=2))
    return wsr.load_dataset(name, base.processor, max_length=48)


if __name__ == "__main__":
    app.run(main)
