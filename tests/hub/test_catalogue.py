"""The paper's datasets as TensorFlow Datasets prepares them, with the columns and classes of its own builders."""

import subprocess
import sys
from pathlib import Path

import pytest
from catalogue import entries, prepare
from hub_repositories import LARGE, SMALL

import wsr
from wsr.data import table
from wsr.data.tfds import Tfds


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    pytest.importorskip("array_record", reason="pip install 'wsr[tfds]'")
    folder = tmp_path_factory.mktemp("catalogue")
    prepare(folder)
    return folder


@pytest.mark.parametrize("name", entries())
def test_every_entry_is_read_with_its_classes(prepared, name):
    spec = table.find(name)
    found = Tfds(spec.catalogue.name, spec.catalogue.splits, data_dir=prepared).read()
    assert {role: len(own.rows) for role, own in found.items()} == {
        role: LARGE if role == "train" else SMALL for role in spec.catalogue.splits
    }
    assert set(spec.columns.of_texts) <= set(found["train"].columns)
    if spec.classes > 1:
        assert len(found["train"].label_names["label"]) == spec.classes
    if spec.label_names:
        assert found["train"].label_names["label"] == tuple(spec.label_names)


@pytest.mark.long
def test_a_command_reads_the_folder_that_the_environment_names(prepared, tmp_path, monkeypatch):
    """SuperGLUE's own builder needs TensorFlow even if its dataset is prepared already."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared))
    words = ["--base=tiny", "--datasets=boolq,esnli", "--tfds", "--seeds=1", "--epochs=1", f"--store={tmp_path}/s"]
    program = [sys.executable, "-m", "wsr.cli", "train", *words]
    done = subprocess.run(program, cwd=Path(wsr.__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in (tmp_path / "s" / "members").iterdir()) == ["boolq-full-s0", "esnli-full-s0"]
