"""Tensors read and written past the page cache, against safetensors' own reader and Python's own files."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import golden_merging as golden
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import wsr
from wsr.errors import WsrError
from wsr.merging import Ties
from wsr.runtime import past_cache, read_ahead
from wsr.runtime.past_cache import WriteBehind
from wsr.runtime.read_ahead import ReadAhead
from wsr.runtime.tensor_files import HeldTensor, Tensor, open_tensors

pytestmark = pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="this system always reads through its page cache")


@pytest.fixture
def ahead(monkeypatch):
    """Reads past the page cache, as for files that are larger than memory."""
    monkeypatch.setattr(read_ahead, "_memory_bytes", lambda: 0)
    monkeypatch.setattr(read_ahead, "_PART", 8192)
    return ReadAhead(files_bytes=1)


@pytest.fixture
def refused(monkeypatch) -> list[int]:
    """A file system that cannot pass its cache; the flags of files that were opened."""
    opened, tried = os.open, []

    def refusing(path, flags, *rest):
        tried.append(flags)
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    return tried


@pytest.fixture
def tensors(tmp_path) -> dict[str, Tensor]:
    """Tensors that begin and end anywhere in a file, the last at its end."""
    rng = np.random.default_rng(0)
    values = {
        "a": rng.standard_normal((3, 5)).astype(np.float32),
        "b": rng.standard_normal((100, 301)).astype(ml_dtypes.bfloat16),
        "c": rng.standard_normal(20_001).astype(np.float16),
        "d": rng.standard_normal(9).astype(np.float64),
        "e": np.zeros((0, 4), np.float32),
    }
    save_file(values, tmp_path / "x.safetensors")
    return open_tensors(tmp_path / "x.safetensors")


def test_tensors_in_memory_are_those_of_the_file(ahead, tensors):
    expected = load_file(tensors["a"].file)
    for name, tensor in tensors.items():  # the buffers of one serve the next but one
        ahead.begin([tensor])
        assert isinstance(ahead.of(tensor), HeldTensor)
        np.testing.assert_array_equal(ahead.of(tensor).whole(), expected[name])
    ahead.begin(list(tensors.values()))
    for name, tensor in tensors.items():
        read = np.empty(tensor.size, np.float32)
        ahead.of(tensor).read(0, read)
        np.testing.assert_array_equal(read, expected[name].reshape(-1).astype(np.float32))


def test_the_last_two_groups_are_held(ahead, tensors):
    a, b, c, d, _ = tensors.values()
    ahead.begin([a, b])
    ahead.begin([c])
    assert isinstance(ahead.of(a), HeldTensor)
    assert isinstance(ahead.of(c), HeldTensor)
    ahead.begin([d])
    assert ahead.of(a) is a
    assert isinstance(ahead.of(c), HeldTensor)


def test_each_thread_has_its_own(ahead, tensors):
    ahead.begin([tensors["a"]])
    found = []
    thread = threading.Thread(target=lambda: found.append(ahead.of(tensors["a"])))
    thread.start()
    thread.join()
    assert found == [tensors["a"]]


def test_what_is_too_large_or_not_on_a_disk_stays_where_it_is(ahead, tensors, monkeypatch):
    class Computed(Tensor):
        pass

    own = Computed(tensors["a"].file, "F32", (3,), 0)
    ahead.begin([own])
    assert ahead.of(own) is own
    monkeypatch.setattr(read_ahead, "HELD_BYTES", 1000)
    ahead.begin([tensors["b"]])
    assert ahead.of(tensors["b"]) is tensors["b"]


def test_files_that_fit_into_memory_are_read_through_its_cache(tensors):
    ahead = ReadAhead(files_bytes=1000)
    ahead.begin(list(tensors.values()))
    assert ahead.of(tensors["b"]) is tensors["b"]


def test_a_file_system_that_cannot_read_past_its_cache_reads_through_it(ahead, tensors, refused):
    ahead.begin([tensors["b"]])
    np.testing.assert_array_equal(ahead.of(tensors["b"]).whole(), tensors["b"].whole())
    assert any(flags & os.O_DIRECT for flags in refused)


def test_a_file_that_became_shorter_is_told(ahead, tensors):
    os.truncate(tensors["c"].file, tensors["c"].start + 5000)
    ahead.begin([tensors["c"]])
    with pytest.raises(WsrError, match="the file became shorter while it was read"):
        ahead.of(tensors["c"])


def written_bytes(file: Path, places: list[tuple[int, int]]) -> tuple[bytes, bytes]:
    """Writes random bytes to places of a file; returns what it then holds and what it should."""
    rng = np.random.default_rng(0)
    before = rng.integers(0, 256, 60_000, np.uint8)
    file.write_bytes(before.tobytes())
    with WriteBehind(file) as behind:
        for start, size in places:
            content = rng.integers(0, 256, size, np.uint8)
            before[start : start + size] = content
            behind.put(start, content)
            content[:] = 0  # the bytes were taken
    return file.read_bytes(), before.tobytes()


PLACES = [(5, 3), (8, 4088), (4096, 30_000), (34_096, 11), (40_961, 1), (50_000, 10_000), (0, 5), (41_000, 8192)]


def test_bytes_are_written_to_their_places(tmp_path, monkeypatch):
    monkeypatch.setattr(past_cache, "_PART", 8192)
    found, expected = written_bytes(tmp_path / "x", PLACES)
    assert found == expected


def test_a_file_system_that_cannot_write_past_its_cache_writes_through_it(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(past_cache, "_PART", 8192)
    found, expected = written_bytes(tmp_path / "x", PLACES)
    assert found == expected
    assert any(flags & os.O_DIRECT for flags in refused)


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        written_bytes(tmp_path / "x", PLACES)


MERGE = """
import sys
sys.path.insert(0, {root!r})
import wsr
from wsr.merging import Ties
from wsr.runtime import read_ahead
from wsr.runtime.tensor_files import HeldTensor
read_ahead._memory_bytes = lambda: 0
read = HeldTensor.read
def noting(self, start, out):
    print("held", flush=True)
    read(self, start, out)
HeldTensor.read = noting
wsr.merge(["a.safetensors", "b.safetensors"], Ties(density=0.4, scope="leaf"), base="base.safetensors", to="processes")
"""


def test_a_merge_past_the_cache_has_the_bits_of_one_through_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, values in golden.models().items():
        save_file(values, f"{name}.safetensors")
    script = MERGE.format(root=str(Path(__file__).parent.parent))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "held" in done.stdout
    wsr.merge(
        ["a.safetensors", "b.safetensors"], Ties(density=0.4, scope="leaf"), base="base.safetensors", to="threads"
    )
    files = [Path(folder, "model.safetensors").read_bytes() for folder in ("processes", "threads")]
    assert files[0] == files[1]
