"""A merge of files that is killed resumes; another merge, or another process, does not mix with it."""

import subprocess
import sys
from pathlib import Path

import golden_merging as golden
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import wsr
from wsr.errors import WsrError
from wsr.merging import Uniform, Weighted, unfinished
from wsr.runtime.tensor_files import TensorWriter

KILLED = """
import multiprocessing, os, time
import wsr
from wsr.merging import Weighted, unfinished
from wsr.runtime.tensor_files import TensorWriter

unfinished.SYNC_ENTRIES = 0
put, count, merge = TensorWriter.put, multiprocessing.Value("i"), os.getpid()

def killing(self, name, values, **place):
    with count:
        count.value += 1
    if count.value > 3:
        while len(open(".out.merging/.finished").readlines()) < 2:  # what is merged, and a tensor
            time.sleep(0.01)
        os.kill(merge, 9)
        time.sleep(60)
    put(self, name, values, **place)

TensorWriter.put = killing
wsr.merge(["a.safetensors", "b.safetensors"], Weighted(weights=(0.25, 0.75)), to="out")
"""
METHOD = Weighted(weights=(0.25, 0.75))


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, tensors in golden.models().items():
        save_file(tensors, f"{name}.safetensors")
    monkeypatch.setattr(unfinished, "SYNC_ENTRIES", 0)
    # One thread, so that "after two tensors" means the same in each run.
    monkeypatch.setattr("wsr.merging.run.usable_cores", lambda: 1)
    return tmp_path


@pytest.fixture
def written(monkeypatch):
    """The names of the tensors that are written, in order."""
    names, put = [], TensorWriter.put

    def noting(self, name, values, **place):
        names.append(name)
        put(self, name, values, **place)

    monkeypatch.setattr(TensorWriter, "put", noting)
    return names


def interrupted(monkeypatch):
    """Begins a merge that is interrupted when two tensors are written."""
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            merge()


def interrupt_after(monkeypatch, tensors, error):
    put, left = TensorWriter.put, [tensors]

    def stopping(self, name, values, **place):
        if not left[0]:
            raise error
        left[0] -= 1
        put(self, name, values, **place)

    monkeypatch.setattr(TensorWriter, "put", stopping)


def merge(to="out", method=METHOD):
    return wsr.merge(["a.safetensors", "b.safetensors"], method, to=to)


def check(weights=(0.25, 0.75)):
    a, b = (golden.models()[name] for name in ("a", "b"))
    found = load_file("out/model.safetensors")
    assert found.keys() == a.keys()
    for path, leaf in found.items():
        np.testing.assert_allclose(leaf, weights[0] * a[path] + weights[1] * b[path], atol=1e-6)


@pytest.mark.parametrize("imported", ["", "import jax\n"], ids=["processes", "threads"])
def test_a_merge_that_was_killed_resumes(files, written, imported):
    root = Path(__file__).parent.parent
    code = f"import sys; sys.path.insert(0, {str(root)!r})\n{imported}{KILLED}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    assert not Path("out").exists()
    merge()
    check()
    assert 0 < len(written) < len(golden.SHAPES)
    assert {path.name for path in files.glob("*out*")} == {"out"}
    assert {path.name for path in Path("out").iterdir()} == {"model.safetensors"}


def test_an_interrupt_says_where_the_rest_is_and_a_later_run_resumes(files, monkeypatch, capsys):
    interrupted(monkeypatch)
    assert ".out.merging holds what is finished" in capsys.readouterr().out
    assert Path(".out.merging").is_dir()
    merge()
    check()
    assert not Path(".out.merging").exists()


@pytest.mark.parametrize("change", ["method", "file"])
def test_another_merge_begins_anew(files, monkeypatch, written, change):
    interrupted(monkeypatch)
    written.clear()
    if change == "method":
        merge(method=Uniform())
        check((0.5, 0.5))
    else:
        save_file(golden.models()["a"], "b.safetensors")
        merge()
        a, found = golden.models()["a"], load_file("out/model.safetensors")
        np.testing.assert_allclose(found["norm.weight"], a["norm.weight"], atol=1e-6)
    assert sorted(written) == sorted(golden.SHAPES)


def test_an_error_leaves_nothing(files, monkeypatch):
    interrupt_after(monkeypatch, 2, OSError(28, "No space left on device"))
    with pytest.raises(WsrError, match="out could not be written: No space left on device"):
        merge()
    assert not list(files.glob("*out*"))
    assert not list(files.glob(".*"))


def test_a_disk_that_fails_beside_the_merge_is_told(files, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TensorWriter, "sync", full)
    with pytest.raises(WsrError, match="out could not be written: No space left on device"):
        merge()
    assert not list(files.glob("*out*"))


def test_a_record_that_was_cut_off_counts_as_far_as_it_goes(files, monkeypatch, written):
    interrupted(monkeypatch)
    record = Path(".out.merging/.finished")
    assert len(record.read_text().splitlines()) == 3  # the identity, then the tensors
    record.write_text(record.read_text()[:-4])
    written.clear()
    merge()
    check()
    assert len(written) == len(golden.SHAPES) - 1


def test_two_processes_do_not_write_one_folder(files):
    other = unfinished.Unfinished(Path("out"), "someone else's")
    with pytest.raises(WsrError, match="out: another process writes this folder"):
        merge()
    other.discard()
    merge()
    check()
