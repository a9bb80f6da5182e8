"""Five MiniLM files by a recipe: ``wsr merge --recipe`` beside ``mergekit-pytorch``, each as a whole process.

mergekit 0.1.5 has an environment of its own, made beforehand:

    python -m venv FOLDER && FOLDER/bin/pip install torch==2.13.0 mergekit==0.1.5

MERGEKIT names its command, FOLDER/bin/mergekit-pytorch; by default the one on the path.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness import Mark, Result, side_by_side
from wsr.errors import WsrError
from wsr.runtime import assets

MEMBERS = 5
REPEATS = 3
RECIPES = {
    "linear": {"merge_method": "linear", "parameters": {"weight": 1.0}},
    "ties": {"merge_method": "ties", "parameters": {"weight": 1.0, "density": 0.3}},
    "sce": {"merge_method": "sce", "parameters": {"select_topk": 0.5}},
}


def run() -> list[Result]:
    """Makes a base and five members near it, and merges them by each recipe with either program."""
    theirs = os.environ.get("MERGEKIT") or shutil.which("mergekit-pytorch")
    if not theirs:
        raise WsrError("merging: no mergekit-pytorch; see the top of benchmarks/merging.py, then MERGEKIT=...")
    with tempfile.TemporaryDirectory(prefix="wsr-merging-") as folder:
        _make(Path(folder))
        return [_measure(Path(folder), name, theirs) for name in RECIPES]


def _make(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    base = load_file(assets.fetch("minilm") / "model.safetensors")
    save_file(base, folder / "base.safetensors")
    for member in range(MEMBERS):
        draw = np.random.default_rng(member)
        near = {
            name: leaf + (0.01 * draw.standard_normal(leaf.shape)).astype(leaf.dtype)
            if np.issubdtype(leaf.dtype, np.floating)
            else leaf
            for name, leaf in base.items()
        }
        save_file(near, folder / f"{member}.safetensors")


def _measure(folder: Path, name: str, theirs: str) -> Result:
    recipe = dict(RECIPES[name], models=[{"model": str(folder / f"{k}.safetensors")} for k in range(MEMBERS)])
    if name != "linear":
        recipe["base_model"] = str(folder / "base.safetensors")
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(recipe))  # JSON is YAML
    commands = {
        "wsr": [sys.executable, "-m", "wsr.cli", "merge", f"--recipe={file}", f"--to={folder / 'wsr'}"],
        "mergekit-pytorch": [theirs, str(file), str(folder / "mergekit")],
    }
    peaks: dict[str, list[float]] = {own: [] for own in commands}

    def calling(own: str) -> Callable[[], None]:
        def call() -> None:
            shutil.rmtree(folder / own.partition("-")[0], ignore_errors=True)
            peaks[own].append(_peak_mib(commands[own]))

        return call

    seconds = side_by_side({own: calling(own) for own in commands}, repeats=REPEATS)
    memory = {own: median(values) for own, values in peaks.items()}
    result = Result(
        f"merging, {name}",
        f"a whole process: {MEMBERS} files of MiniLM, 91 MB each, into one; files in the page cache",
        "wsr",
        seconds,
        unit="merge",
        figures={
            **{f"peak MiB, {own}": value for own, value in memory.items()},
            "largest difference of an entry": _difference(folder),
            "share of entries that differ by more than 1e-5": _differing(folder),
        },
    )
    marks = (
        Mark("times as fast as mergekit-pytorch", result.ratio("mergekit-pytorch"), 2.0),
        Mark("peak memory / that of mergekit-pytorch", memory["wsr"] / memory["mergekit-pytorch"], 0.5, at_most=True),
    )
    return replace(result, marks=marks)


SPAWN = """
import os, sys, time

def resident(process):
    try:
        with open(f"/proc/{process}/statm") as pages, open(f"/proc/{process}/task/{process}/children") as children:
            own = int(pages.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
            return own + sum(map(resident, children.read().split()))
    except OSError:
        return 0  # it has just ended

silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
process, most = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent), 0
while not (ended := os.wait4(process, os.WNOHANG))[0]:
    most = max(most, resident(process))
    time.sleep(0.01)
_, status, usage = ended
print(max(most, usage.ru_maxrss), file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def _peak_mib(command: list[str]) -> float:
    """Runs the command and returns its peak memory; from a small process, for a new one starts with its parent's.

    That of all its processes together, where what they share counts for each; more than one are looked at every 10 ms.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", SPAWN, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise WsrError(f"merging: {' '.join(command)} failed: {done.stderr[-500:]}")
    return int(done.stderr.splitlines()[-1]) / 1024


def _pairs(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    from safetensors.numpy import load_file

    ours = load_file(folder / "wsr" / "model.safetensors")
    (file,) = (folder / "mergekit").glob("*.safetensors")
    theirs = load_file(file)
    return [(ours[name], theirs[name]) for name in theirs if np.issubdtype(theirs[name].dtype, np.floating)]


def _difference(folder: Path) -> float:
    return max(float(np.abs(ours - theirs).max()) for ours, theirs in _pairs(folder))


def _differing(folder: Path) -> float:
    differing, total = 0, 0
    for ours, theirs in _pairs(folder):
        differing, total = differing + int((np.abs(ours - theirs) > 1e-5).sum()), total + ours.size
    return differing / total
