"""Three members of a 3-billion Llama in shards of bfloat16, merged: wsr beside the disk itself and beside mergekit.

python -m benchmarks --only=merging_size --out=FOLDER
python -m benchmarks.merging_size   # models of 14 million parameters, to try the benchmark

It makes four models of 6.4 GB in a temporary folder (TMPDIR says where) and needs 45 GB there. "disk" reads and writes
the same bytes and computes nothing. mergekit 0.1.5 has an environment of its own, see benchmarks/merging.py; MERGEKIT
names its command mergekit-yaml, which reads shards (mergekit-pytorch reads single files), by default the one on the
path. Before each call the models leave the page cache.

Task vectors of bfloat16 models take few values, so many entries equal the magnitude at which TIES cuts. wsr and
mergekit keep equally many of them, but not the same ones: all entries that differ are of this kind.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import ml_dtypes
import numpy as np
from absl import app

from benchmarks.harness import Mark, Result, side_by_side
from benchmarks.merging import _peak_mib
from wsr.errors import WsrError
from wsr.runtime.cores import usable_cores
from wsr.runtime.tensor_files import TensorWriter, open_tensors

MODELS = ("base", "a", "b", "c")
RECIPES = {
    "linear": {"merge_method": "linear", "parameters": {"weight": 1.0}},
    "ties": {"merge_method": "ties", "parameters": {"weight": 1.0, "density": 0.3}, "base_model": "base"},
}
REPEATS = 3
BLOCK = 2**24
"""Bytes that are read and written at a time."""
OFTEN = """
import sys
from wsr.cli import main
from wsr.merging import unfinished
unfinished.SYNC_ENTRIES = 2**20  # so that a merge of small models is killed in time, too
sys.exit(main(sys.argv[1:]))
"""
LEAST_SHARE, MOST_MIB = 0.7, 2048


@dataclass(frozen=True)
class Shape:
    """The shape of a Llama with tied embeddings."""

    hidden: int = 3072
    layers: int = 28
    inner: int = 8192
    heads: int = 24
    key_heads: int = 8
    tokens: int = 128_256

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Returns the shape of each tensor."""
        keys = self.hidden // self.heads * self.key_heads
        found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (self.tokens, self.hidden)}
        for layer in range(self.layers):
            at = f"model.layers.{layer}."
            for part, outputs in (("q", self.hidden), ("k", keys), ("v", keys), ("o", self.hidden)):
                found[f"{at}self_attn.{part}_proj.weight"] = (outputs, self.hidden)
            found |= {f"{at}mlp.{part}_proj.weight": (self.inner, self.hidden) for part in ("gate", "up")}
            found[f"{at}mlp.down_proj.weight"] = (self.hidden, self.inner)
            found |= {f"{at}{part}_layernorm.weight": (self.hidden,) for part in ("input", "post_attention")}
        return found | {"model.norm.weight": (self.hidden,)}

    @property
    def config(self) -> dict[str, object]:
        """Returns the content of config.json."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.inner,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_heads,
            "head_dim": self.hidden // self.heads,
            "vocab_size": self.tokens,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
        }


SMALL = Shape(hidden=256, layers=8, inner=1024, heads=4, key_heads=2, tokens=8000)


def run(shape: Shape = Shape()) -> list[Result]:
    """Makes the models and merges them by each recipe; then kills a merge half-way and resumes it."""
    theirs = os.environ.get("MERGEKIT") or shutil.which("mergekit-yaml")
    with tempfile.TemporaryDirectory(prefix="wsr-merging-size-") as place:
        folder = Path(place)
        for number, name in enumerate(MODELS):
            _make(folder / name, shape, number)
        return [_measure(folder, name, theirs) for name in RECIPES]


def _make(folder: Path, shape: Shape, number: int) -> None:
    """Writes a model near the base in two shards; each tensor repeats a block of drawn numbers, shifted."""
    folder.mkdir()
    drawn = 0.02 * np.random.default_rng(0).standard_normal(BLOCK, np.float32)
    moved = 0.002 * np.random.default_rng(number).standard_normal(BLOCK, np.float32) if number else np.zeros_like(drawn)
    entries = (drawn + moved).astype(ml_dtypes.bfloat16)
    names = list(shape.tensors)
    where: dict[str, str] = {}
    for shard, own in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        file = f"model-{shard:05d}-of-00002.safetensors"
        where |= dict.fromkeys(own, file)
        with TensorWriter(folder / file, {name: ("BF16", shape.tensors[name]) for name in own}) as writer:
            for place, name in enumerate(own):
                size = int(np.prod(shape.tensors[name]))
                repeats = -(-size // BLOCK)
                writer.put(name, np.tile(np.roll(entries, 4099 * place), repeats)[:size].view(np.uint8))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text(json.dumps(shape.config))


def _measure(folder: Path, name: str, theirs: str | None) -> Result:
    used = MODELS if "base_model" in RECIPES[name] else MODELS[1:]
    recipe = {**RECIPES[name], "models": [{"model": str(folder / own)} for own in MODELS[1:]], "dtype": "float32"}
    recipe["out_dtype"] = "bfloat16"  # wsr computes in float32 in any case; mergekit computes in dtype
    if "base_model" in recipe:
        recipe["base_model"] = str(folder / "base")
    file = folder / f"{name}.yaml"
    file.write_text(json.dumps(recipe))  # JSON is YAML
    ours = [sys.executable, "-m", "wsr.cli", "merge", f"--recipe={file}", f"--to={folder / 'wsr'}"]
    commands = {"wsr": ours}
    if theirs:
        commands["mergekit-yaml"] = [theirs, str(file), str(folder / "mergekit"), "--no-copy-tokenizer"]
    peaks: dict[str, list[float]] = {own: [] for own in commands}

    def calling(own: str) -> Callable[[], None]:
        def call() -> None:
            _forget(folder)
            shutil.rmtree(folder / own.partition("-")[0], ignore_errors=True)
            peaks[own].append(_peak_mib(commands[own]))

        return call

    def disk() -> None:
        _forget(folder)
        _copy(folder, used)

    contenders = {"disk": disk} | {own: calling(own) for own in commands}
    seconds = side_by_side(contenders, repeats=REPEATS, warm_up=False)
    sizes = [path.stat().st_size for own in used for path in (folder / own).glob("*.safetensors")]
    written = (folder / "wsr" / "model.safetensors").stat().st_size
    result = Result(
        f"merging_size, {name}",
        f"reads {sum(sizes) / 1e9:.1f} GB in {len(sizes)} shards and writes {written / 1e9:.1f} GB",
        "wsr",
        seconds,
        unit="merge",
        figures={
            "GB a second of the disk": (sum(sizes) + written) / 1e9 / median(seconds["disk"]),
            **{f"peak MiB, {own}": median(values) for own, values in peaks.items()},
            **(_beside(folder) if theirs else {}),
            **_killed(folder, ours),
        },
    )
    marks = (
        Mark("rate / that of the disk's own reading and writing", result.ratio("disk"), LEAST_SHARE),
        Mark("peak memory in MiB", median(peaks["wsr"]), MOST_MIB, at_most=True),
    )
    shutil.rmtree(folder / "mergekit", ignore_errors=True)
    return replace(result, marks=marks)


def _beside(folder: Path) -> dict[str, float | int | str]:
    """How far the results of wsr and mergekit are apart; both round to bfloat16."""
    ours, theirs = open_tensors(folder / "wsr"), open_tensors(folder / "mergekit")
    differing, largest, total = 0, 0.0, 0
    for name, tensor in ours.items():
        for start in range(0, tensor.size, BLOCK):
            left, right = np.empty((2, min(BLOCK, tensor.size - start)), np.float32)
            tensor.read(start, left)
            theirs[name].read(start, right)
            apart = np.abs(left - right)
            differing, largest = differing + int(np.count_nonzero(apart)), max(largest, float(apart.max()))
            total += apart.size
    return {"share of entries that differ from mergekit's": differing / total, "largest difference": largest}


def _killed(folder: Path, command: list[str]) -> dict[str, float | int | str]:
    """Kills a merge when a quarter of the tensors, the largest, are recorded, resumes it, and compares the files."""
    whole = folder / "whole"
    os.rename(folder / "wsr", whole)
    record = folder / ".wsr.merging" / ".finished"
    tensors = len(json.loads((folder / "a" / "model.safetensors.index.json").read_text())["weight_map"])
    process = subprocess.Popen([sys.executable, "-c", OFTEN, *command[3:]], stdout=subprocess.DEVNULL)
    while process.poll() is None and _lines(record) - 1 < tensors // 4:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise WsrError("merging_size: the merge ended before it was killed")
    finished = max(_lines(record) - 1, 0)
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    same = all(
        np.array_equal(left, right)
        for left, right in zip(
            _blocks(whole / "model.safetensors"), _blocks(folder / "wsr" / "model.safetensors"), strict=True
        )
    )
    shutil.rmtree(whole)
    shutil.rmtree(folder / "wsr")
    return {
        "tensors recorded when it was killed": finished,
        "tensors": tensors,
        "seconds of the resumed merge": seconds,
        "the resumed file equals the other": str(same).lower(),
    }


def _lines(file: Path) -> int:
    try:
        return file.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _copy(folder: Path, used: tuple[str, ...]) -> None:
    """Reads the models and writes one of them again, on as many threads as wsr has."""
    target = folder / "disk"
    target.mkdir(exist_ok=True)

    def read(path: Path) -> None:
        for _ in _blocks(path):
            pass

    def write(path: Path) -> None:
        with open(target / path.name, "wb", buffering=0) as out:
            for block in _blocks(path):
                out.write(block.data)
            os.fdatasync(out.fileno())

    shards = [path for own in used[:-1] for path in sorted((folder / own).glob("*.safetensors"))]
    last = sorted((folder / used[-1]).glob("*.safetensors"))
    with ThreadPoolExecutor(usable_cores()) as threads:
        list(threads.map(write, last))
        list(threads.map(read, shards))
    shutil.rmtree(target)


def _blocks(path: Path) -> Iterator[np.ndarray]:
    with open(path, "rb", buffering=0) as file:
        buffer = np.empty(BLOCK, np.uint8)
        while count := file.readinto(buffer.data):
            yield buffer[:count]


def _forget(folder: Path) -> None:
    """Brings everything to the disk and drops the models from the page cache."""
    os.sync()
    for path in folder.glob("*/*.safetensors"):
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def main(arguments: list[str]) -> None:
    """Tries the benchmark with small models."""
    from benchmarks.__main__ import show

    show(run(SMALL))


if __name__ == "__main__":
    app.run(main)
