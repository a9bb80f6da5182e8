"""Similarity of members kept on disk: the Gram matrix of their task vectors, against reading them and against NumPy.

The set to which the mark belongs, 280 models of RoBERTa-base size, is 140 GB. Two scaled-down sets stand for it: a few
large members, and 280 small ones, for the products grow with the square of the members and the bytes do not.
"""

import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.harness import Mark, Result
from wsr.geometry.gram import cosine
from wsr.geometry.trees import flatten, nest
from wsr.models.model import Model
from wsr.region.region import Region
from wsr.store import MemberRecord, Store
from wsr.types import Params

ROBERTA_BASE = 124_600_000
MEMBERS = 280
MODEL = Model("none", {}, 1, 1, init=lambda key: {}, encode=lambda params, batch: params)


def run() -> list[Result]:
    """Makes the sets in temporary folders, one after the other, and removes them."""
    return [
        _on_a_set(24, hidden=768, vocabulary=12_000, layers=2),
        _on_a_set(280, hidden=256, vocabulary=2_500, layers=1),
    ]


def _on_a_set(members: int, *, hidden: int, vocabulary: int, layers: int) -> Result:
    with tempfile.TemporaryDirectory(prefix="wsr-similarity-") as folder:
        return measure(_make(Path(folder) / "store", members, hidden, vocabulary, layers))


def measure(store: Store, repeats: int = 2) -> Result:
    """Times the contenders on one store and measures what the matrix costs in memory."""
    members, parameters = len(store.names()), sum(leaf.size for leaf in flatten(store.base()).values())
    contenders: dict[str, Callable[[], object]] = {
        "wsr": lambda: _gram(store),
        "reading through the store, verified": lambda: _read_members(store),
        "reading the bytes": lambda: _read_bytes(store),
        "NumPy, all models in memory": lambda: _in_memory(store),
    }
    cold = _timed(store, contenders, repeats, warm=False)
    del contenders["NumPy, all models in memory"]
    warm = _timed(store, contenders, 1, warm=True)
    error = np.abs(cosine(_gram(store)) - cosine(_reference(store))).max()
    half, whole = _peak_mib(store, members // 2), _peak_mib(store, members)
    growth_mib = max(0.0, whole - half) / (members - members // 2)
    at_scale_mib = whole + 4 * (ROBERTA_BASE - parameters) / 2**20 + growth_mib * max(0, MEMBERS - members)
    gigabytes = 4e-9 * members * parameters
    rates = {name: gigabytes / median(seconds) for name, seconds in cold.items()}
    figures: dict[str, float | int | str] = {
        "GB read": gigabytes,
        **{f"{name}, GB/s, page cache empty": rate for name, rate in rates.items()},
        **{f"{name}, GB/s, page cache warm": gigabytes / median(seconds) for name, seconds in warm.items()},
        "seconds for one more member, page cache warm": _row_seconds(store),
        "seconds when all products are known": _seconds(lambda: _region(store).gram),
        f"peak MiB of the process, {members // 2} members": half,
        f"peak MiB of the process, {members} members": whole,
        "peak at scale is": "the peak + what the base is larger + growth a member x the members that are more",
        f"peak MiB, {MEMBERS} members of {ROBERTA_BASE} parameters": at_scale_mib,
        f"minutes, {MEMBERS} members of {ROBERTA_BASE} parameters, at the rate above": 4e-9
        * MEMBERS
        * ROBERTA_BASE
        / rates["wsr"]
        / 60,
    }
    result = Result(
        f"similarity, {members} members of {parameters / 1e6:.3g} million parameters",
        "the Gram matrix of all task vectors from disk, each hash compared; the page cache is emptied before each call",
        "wsr",
        cold,
        units=members,
        unit="member",
        figures=figures,
    )
    marks = (
        *(Mark(f"times as fast as {name}", result.ratio(name), 1.0) for name in cold if name != result.ours),
        Mark("peak GiB at scale", at_scale_mib / 1024, 2.0, at_most=True),
        Mark("largest error of a cosine against float64", float(error), 1e-5, at_most=True),
    )
    return replace(result, marks=marks)


def _region(store: Store, names: list[str] | None = None) -> Region:
    return Region.from_store(Store.open(store.path), MODEL, names=names)


def _gram(store: Store) -> np.ndarray:
    (store.path / "gram.json").unlink(missing_ok=True)
    return _region(store).gram


def _read_members(store: Store) -> None:
    for name in store.names():
        store.load(name)


def _read_bytes(store: Store) -> None:
    def read(path: Path, buffer_bytes: int = 2**20) -> None:
        buffer = bytearray(buffer_bytes)
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(read, _payload(store)))


def _in_memory(store: Store) -> np.ndarray:
    base = flatten(store.base())
    names = store.names()
    vectors = np.empty((len(names), sum(leaf.size for leaf in base.values())), np.float32)
    for name, row in zip(names, vectors, strict=True):
        place = 0
        for path, leaf in flatten(store.load(name)[0]).items():
            np.subtract(leaf.reshape(-1), base[path].reshape(-1), out=row[place : place + leaf.size])
            place += leaf.size
    return vectors @ vectors.T


def _reference(store: Store, piece: int = 50_000) -> np.ndarray:
    names, total = store.names(), np.zeros(2 * (len(store.names()),))
    for path, base in flatten(store.base()).items():
        leaves = [store.load_leaf(name, path).reshape(-1) for name in names]
        for start in range(0, base.size, piece):
            own = base.reshape(-1)[start : start + piece].astype(np.float64)
            block = np.stack([leaf[start : start + piece] - own for leaf in leaves])
            total += block @ block.T
    return total


def _row_seconds(store: Store) -> float:
    (store.path / "gram.json").unlink(missing_ok=True)
    _region(store, store.names()[:-1]).gram  # noqa: B018  # kept in the store's folder
    return _seconds(lambda: _region(store).gram)


PEAK = """
import sys
from benchmarks.similarity import _region
from wsr.store import Store
store = Store.open(sys.argv[1])
_region(store, store.names()[: int(sys.argv[2])]).gram
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def _peak_mib(store: Store, members: int) -> float:
    """Returns the peak memory of a fresh process that computes the matrix, its imports included.

    Linux's ``ru_maxrss`` would not do: a new process starts with that of its parent.
    """
    (store.path / "gram.json").unlink(missing_ok=True)
    command = [sys.executable, "-c", PEAK, str(store.path), str(members)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    return int(done.stdout.splitlines()[-1]) / 1024


def _timed(
    store: Store, contenders: Mapping[str, Callable[[], object]], repeats: int, *, warm: bool
) -> dict[str, list[float]]:
    """As ``side_by_side``, but the page cache is emptied (or filled) before each call, which is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    store.base()
    for repeat in range(repeats):
        for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
            gc.collect()
            _read_bytes(store) if warm else _forget(store)
            seconds[name].append(_seconds(contenders[name]))
    return seconds


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _forget(store: Store) -> None:
    """Empties the page cache of the store's files; what is not on the disk yet is written first."""
    for path in _payload(store):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def _payload(store: Store) -> list[Path]:
    return [path for path in (store.path / "members").glob("*/state/*/*") if path.name[0] == "0"]


def _make(path: Path, members: int, hidden: int, vocabulary: int, layers: int) -> Store:
    generator = np.random.default_rng(0)
    forms: dict[str, tuple[int, ...]] = {"embeddings/token": (vocabulary, hidden), "embeddings/position": (512, hidden)}
    for layer in range(layers):
        for name in ("query", "key", "value", "output"):
            forms[f"layers/{layer}/{name}/kernel"] = (hidden, hidden)
            forms[f"layers/{layer}/{name}/bias"] = (hidden,)
        forms[f"layers/{layer}/up/kernel"] = (hidden, 4 * hidden)
        forms[f"layers/{layer}/up/bias"] = (4 * hidden,)
        forms[f"layers/{layer}/down/kernel"] = (4 * hidden, hidden)
        forms[f"layers/{layer}/down/bias"] = (hidden,)
    base = {name: generator.standard_normal(form, np.float32) for name, form in forms.items()}
    store = Store.create(path, model_name="none", model_config={}, base_name="none", base_params=nest(base))
    noise = generator.standard_normal(2 * max(leaf.size for leaf in base.values()), np.float32)
    for number in range(members):
        store.save(_record(number), _near(base, noise, generator), {})
    return store


def _near(base: Mapping[str, np.ndarray], noise: np.ndarray, generator: np.random.Generator) -> Params:
    # Pieces of one long noise: fresh normal numbers for every member would take longer than everything else.
    found = {}
    for name, leaf in base.items():
        start = generator.integers(noise.size - leaf.size)
        found[name] = leaf + np.float32(0.01) * noise[start : start + leaf.size].reshape(leaf.shape)
    return nest(found)


def _record(number: int) -> MemberRecord:
    return MemberRecord(
        name=f"m{number:03}",
        dataset="none",
        family="none",
        seed=number,
        mode="full",
        size=0,
        hyperparameters={},
        metrics={},
        jaxlib="",
        device_kind="",
        threads=0,
        group_size=1,
    )
