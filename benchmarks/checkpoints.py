"""Checkpoints of one's own, in and out: the peak memory of ``wsr import``, ``export``, ``merge`` and ``map``.

24 models of RoBERTa-base size, made here near one random base, are 12 GB of folders and 12 GB of store: none of the
four may hold more than a few of them at a time.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.harness import Mark, Result
from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models import architectures, build, load
from wsr.models.huggingface.folder import write_folder
from wsr.runtime.seeds import generator

MEMBERS = 24
ROBERTA_BASE: Mapping[str, Any] = {
    "vocab_size": 50_265,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
}
SMALL: Mapping[str, Any] = {
    **ROBERTA_BASE,
    "vocab_size": 30_000,
    "hidden_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 512,
}
"""Five million parameters: for the tests."""
WANTED_GIB = 4.0


def run() -> list[Result]:
    """Makes the models in a temporary folder (``TMPDIR`` says where), and removes them."""
    return [measure(MEMBERS, ROBERTA_BASE)]


def measure(members: int, sizes: Mapping[str, Any], *, folder: Path | None = None) -> Result:
    """Runs the verbs one after another, each a process of its own; with ``folder`` what they made is left there."""
    if folder is not None:
        return _measure(members, sizes, folder)
    with tempfile.TemporaryDirectory(prefix="wsr-checkpoints-") as made:
        return _measure(members, sizes, Path(made))


def _measure(members: int, sizes: Mapping[str, Any], folder: Path) -> Result:
    model = build("roberta", {**architectures()["roberta"].example, **sizes})
    shapes = {path: leaf.shape for path, leaf in flatten(jax.eval_shape(model.init, jax.random.key(0))).items()}
    parameters = sum(int(np.prod(shape)) for shape in shapes.values())
    _refuse_small_disk(folder, 4 * parameters * (2 * members + 4))
    tokenizer = load("tiny").processor
    names = [f"m{number:02}" for number in range(members)]
    # Pieces of one long noise: fresh normal numbers for every model would take longer than everything else.
    noise = generator(0, "noise").standard_normal(2 * max(int(np.prod(shape)) for shape in shapes.values()), np.float32)
    start = time.perf_counter()
    for name in ("base", *names):
        write_folder(model, _drawn(noise, shapes, name), tokenizer, folder / name)
    del noise
    making = time.perf_counter() - start
    store = f"--store={folder / 'store'}"
    datasets = f"--dataset={','.join('ab'[number % 2] for number in range(members))}"
    verbs = {
        "import": [*(str(folder / name) for name in names), store, f"--base={folder / 'base'}", datasets],
        "export": ["centroid", store, f"--to={folder / 'centroid'}"],
        "merge": [store, f"--to={folder / 'merged'}"],
        "map": [store, f"--out={folder / 'map'}"],
    }
    seconds, peaks = {}, {}
    for verb, words in verbs.items():
        seconds[verb], peaks[verb] = _run(verb, words)
        print(f"wsr {verb}: {seconds[verb]:.0f} s, peak {peaks[verb]:.2f} GiB", flush=True)
    figures: dict[str, float | int | str] = {
        "GB of folders": 4e-9 * parameters * members,
        "seconds to make the folders": making,
        **{f"{verb}, seconds": own for verb, own in seconds.items()},
        **{f"{verb}, peak GiB of the process": peak for verb, peak in peaks.items()},
    }
    return Result(
        f"checkpoints, {members} models of {parameters / 1e6:.3g} million parameters",
        "import all folders, export their centroid leaf by leaf, average them in memory, map them; each a process",
        "wsr",
        {"wsr": [sum(seconds.values())]},
        units=members,
        unit="model",
        figures=figures,
        marks=(Mark("peak GiB of the largest process", max(peaks.values()), WANTED_GIB, at_most=True),),
    )


_CALL = """
import sys
from wsr.cli import main
status = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
sys.exit(status)
"""


def _run(verb: str, words: list[str]) -> tuple[float, float]:
    """Returns seconds and peak GiB of the whole process.

    Linux's ``ru_maxrss`` would not do: a new process starts with that of its parent.
    """
    start = time.perf_counter()
    command = [sys.executable, "-c", _CALL, verb, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    if done.returncode:
        raise WsrError(f"wsr {verb} failed: {done.stderr.strip() or done.stdout.strip()}")
    return time.perf_counter() - start, int(done.stdout.splitlines()[-1]) / 2**20


def _drawn(noise: np.ndarray, shapes: Mapping[str, tuple[int, ...]], name: str) -> Callable[[str], np.ndarray]:
    """Leaves of a model: those of the base, for all but the base moved by a tenth of their length."""

    def piece(whose: str, path: str) -> np.ndarray:
        size = int(np.prod(shapes[path]))
        start = generator(0, whose, path).integers(noise.size - size)
        return noise[start : start + size].reshape(shapes[path])

    def leaf(path: str) -> np.ndarray:
        drawn = np.float32(0.02) * piece("base", path) + np.float32(path.endswith("scale"))
        return drawn if name == "base" else drawn + np.float32(0.002) * piece(name, path)

    return leaf


def _refuse_small_disk(folder: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise WsrError(
            f"{folder}: {needed_bytes / 1e9:.0f} GB are needed and {free / 1e9:.0f} GB are free; "
            f"set TMPDIR to a larger disk (now {os.environ.get('TMPDIR', tempfile.gettempdir())})"
        )
