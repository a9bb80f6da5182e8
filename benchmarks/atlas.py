"""An atlas of 1,000 real small fine-tunes, and one of 100,000 models simulated from them.

python -m benchmarks.atlas [--real=1000] [--simulated=100000] [--out=FOLDER]

Measured: the time to add a model and to find ten, the file, the memory of a search, and how many of the ten truly
nearest models, by the cosines of their weights, are among the nearest by their sketches. benchmarks/atlas_simulated.py
says how models are simulated. Times are of the processor: on a shared machine the clock on the wall tells of others.
"""

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from absl import app, flags

import wsr
from benchmarks.atlas_simulated import Turned, cosines_told, recall_told, searched, simulated
from benchmarks.machine import machine
from wsr.data.made_up import MadeUp
from wsr.geometry.similarity import gram_matrix, in_memory
from wsr.geometry.trees import flatten
from wsr.region.sketch import sketch
from wsr.runtime.compilation import use_persistent_cache
from wsr.store.atlas_file import AtlasEntry, AtlasFile, directions

DATASETS, FAMILIES, QUERIES = 20, 4, 200

_REAL = flags.DEFINE_integer("real", 1000, "Models that are fine-tuned.", lower_bound=2 * DATASETS)
_SIMULATED = flags.DEFINE_integer("simulated", 100_000, "Models of the simulation.", lower_bound=100)
_OUT = flags.DEFINE_string("out", None, "A folder for atlas.json.")


def main(arguments: list[str]) -> None:
    """Measures, prints and writes."""
    if arguments[1:]:
        raise app.UsageError(f"unexpected {arguments[1]!r}")
    if _REAL.value % DATASETS:
        raise app.UsageError(f"--real={_REAL.value}: expected a multiple of {DATASETS}, the number of datasets")
    use_persistent_cache()
    with tempfile.TemporaryDirectory() as place:
        real, turned = _real(_REAL.value, Path(place))
        print(json.dumps(real), flush=True)
        found = simulated(turned, _SIMULATED.value, QUERIES, Path(place))
        print(json.dumps(found), flush=True)
    content = {
        "command": f"python -m benchmarks.atlas --real={_REAL.value} --simulated={_SIMULATED.value}",
        "machine": machine(),
        "real": real,
        "simulated": found,
    }
    print("\n".join(table_lines(content)))
    if _OUT.value:
        path = Path(_OUT.value) / "atlas.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        print(f"written: {path}")


def table_lines(content: dict[str, Any]) -> list[str]:
    """Returns the two tables of docs/atlas.md: what both atlases cost and find, and recall by the size of a sketch."""
    both = content["real"], content["simulated"]
    recall = [own["recall"]["8 KiB"] for own in both]
    lines = [f"| | {both[0]['models']:,} real models | {both[1]['models']:,} simulated models |", "|---|---|---|"]
    for name, key, form in (
        ("sketch and add one", "CPU seconds to sketch and add one", "{:.2g} s"),
        ("find ten", "CPU seconds to find ten", "{:.2g} s"),
        ("memory of a search", "MB that searching added to the peak", "{:.0f} MB"),
        ("file", "MB of file", "{:.0f} MB"),
        ("mean cosine within a dataset", "mean cosine, one dataset", "{:.2f}"),
        ("mean cosine within a family", "mean cosine, one family", "{:.2f}"),
        ("mean cosine of two families", "mean cosine, two families", "{:.2f}"),
    ):
        lines.append(f"| {name} | {' | '.join(form.format(own[key]) for own in both)} |")
    keys = [key for key in recall[0] if key.startswith("of ")]
    for key in keys:
        name = f"of the ten nearest, among the {key.removeprefix('of the nearest ')} nearest by sketches"
        lines.append(f"| {name} | {' | '.join(f'{100 * own[key]:.1f} %' for own in recall)} |")
    lines += ["", f"| sketch | {' | '.join(keys)} | needed for 99 % |", "|---" * (len(keys) + 2) + "|"]
    for size, own in content["simulated"]["recall"].items():
        told = " | ".join(f"{100 * own[key]:.1f} %" for key in keys)
        lines.append(f"| {size} | {told} | {own['nearest needed for 0.99']:.0f} |")
    return lines


def _real(models: int, place: Path) -> tuple[dict[str, Any], Turned]:
    base = wsr.load("tiny")
    recipe = wsr.Recipe(epochs=4, batch_size=16, learning_rate=3e-3)
    data = [_dataset(base, number) for number in range(DATASETS)]
    jobs = [wsr.Job(data[number % DATASETS], number // DATASETS, recipe, size=128) for number in range(models)]
    start_of = flatten(base.params)
    sizes = {path: leaf.size for path, leaf in start_of.items()}
    file = AtlasFile(place / "real.sqlite", "real")
    opened, vectors, rows, seconds = [], [], [], []
    for member in wsr.finetune(base.model, base.params, jobs):
        opened.append(in_memory(member.params, base.params))
        leaves = flatten(member.params)
        vectors.append(np.concatenate([np.asarray(leaves[path] - start_of[path]).ravel() for path in sizes]))
        start = time.process_time()
        rows.append(sketch(sizes, opened[-1], file.size))
        entry = AtlasEntry(
            f"m{len(rows)}", "", member.job.dataset.name, str(len(rows)), float(np.linalg.norm(rows[-1]))
        )
        file.add(entry, rows[-1])
        seconds.append(time.process_time() - start)
    gram = gram_matrix(sizes, opened)
    lengths = np.sqrt(np.diag(gram))
    exact, unit = gram / np.outer(lengths, lengths), directions(np.stack(rows))
    estimated = unit @ unit.T
    for own in (exact, estimated):
        np.fill_diagonal(own, -2)  # no model is its own neighbour
    datasets = np.arange(models) % DATASETS
    found = {
        "models": models,
        "parameters": float(sum(sizes.values())),
        **cosines_told(exact, np.arange(models), datasets, np.arange(DATASETS) % FAMILIES),
        "CPU seconds to sketch and add one": median(seconds),
        "recall": {f"{2 * file.size // 1024} KiB": recall_told(exact, estimated)},
        **searched(file.path, unit[:20]),
    }
    return found, Turned.of(np.stack(vectors), datasets, FAMILIES)


def _dataset(base: wsr.Checkpoint, number: int) -> wsr.Dataset:
    name, family = f"atlas_{number}", f"atlas_family_{number % FAMILIES}"
    wsr.data.register(wsr.data.DatasetSpec(name, family, MadeUp(family, name), classes=2))
    return wsr.load_dataset(name, base.processor, max_length=48)


if __name__ == "__main__":
    app.run(main)
