"""Hub folders, an unreachable hub, and a real TensorFlow dataset prepared and read without TensorFlow."""

import subprocess
import sys
import textwrap
import time

import datasets
import numpy as np
import pytest

from wsr.data.hub import Hub
from wsr.data.tfds import Tfds
from wsr.errors import WsrError

COLUMNS = {"text": ["a", "b", "ç"], "coarse": [0, 1, 0], "fine": [2, 0, 1]}


def make_hub_dataset():
    features = datasets.Features(
        text=datasets.Value("string"),
        coarse=datasets.ClassLabel(names=["n", "y"]),
        fine=datasets.ClassLabel(names=["p", "q", "r"]),
    )
    return datasets.Dataset.from_dict(COLUMNS, features=features)


def test_a_saved_dataset_and_joined_splits(tmp_path):
    saved = datasets.DatasetDict(r1=make_hub_dataset(), r2=make_hub_dataset(), dev=make_hub_dataset())
    saved.save_to_disk(tmp_path / "saved")
    records = Hub(str(tmp_path / "saved"), splits={"train": "r1+r2", "test": "dev"}).read()
    assert set(records) == {"train", "test"}
    assert records["train"].columns["text"] == COLUMNS["text"] * 2
    assert records["test"].label_names == {"coarse": ("n", "y"), "fine": ("p", "q", "r")}
    assert records["train"].where(5, "fine") == f"{tmp_path / 'saved'}/r1+r2, row 6, column 'fine'"
    with pytest.raises(WsrError, match="no split 'r9'; found r1, r2, dev"):
        Hub(str(tmp_path / "saved"), splits={"train": "r9"}).read()
    with pytest.raises(WsrError, match="no split 'train'; found r1, r2, dev"):
        Hub(str(tmp_path / "saved")).read()


def test_a_single_saved_split_is_train(tmp_path):
    make_hub_dataset().save_to_disk(tmp_path / "saved")
    assert Hub(str(tmp_path / "saved")).read()["train"].columns == COLUMNS


def test_a_folder_of_data_files(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("text,label\na,0\nb,1\n")
    (tmp_path / "data" / "test.csv").write_text("text,label\nc,1\n")
    records = Hub(str(tmp_path)).read()
    assert records["train"].columns == {"text": ["a", "b"], "label": [0, 1]}
    assert records["test"].columns == {"text": ["c"], "label": [1]}


@pytest.mark.parametrize("variables", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://192.0.2.1"}])
def test_an_unreachable_hub_says_so_in_time(tmp_path, variables):
    # 192.0.2.1 is reserved for documentation: packets to it are lost, as behind a firewall.
    program = """
        import time
        import datasets, huggingface_hub
        from wsr.data.hub import Hub
        from wsr.errors import WsrError
        start = time.monotonic()
        try:
            Hub("nyu-mll/glue", "rte").read()
        except WsrError as error:
            print(error)
        assert time.monotonic() - start < 10, "too late"
    """
    environment = {"PATH": "", "HOME": str(tmp_path), "HF_HOME": str(tmp_path)} | variables
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nyu-mll/glue: the Hugging Face hub did not answer")
    assert "save_to_disk" in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A tiny dataset that tensorflow-datasets itself prepares, as array_record."""
    pytest.importorskip("array_record", reason="pip install 'wsr[tfds]'")
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder):
        """Three examples and one."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            label = tfds.features.ClassLabel(names=["no", "yes"])
            features = {"text": tfds.features.Text(), "label": label, "score": tfds.features.Scalar(np.float32)}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples(3), "test": self._generate_examples(1)}

        def _generate_examples(self, count):
            for number in range(count):
                text = b"\xff" if count == 1 else f"ç{number}"
                yield number, {"text": text, "label": number % 2, "score": number / 2}

    folder = tmp_path_factory.mktemp("tfds")
    builder = Tiny(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    return folder / "tiny" / "1.0.0"


def test_a_prepared_tensorflow_dataset_is_read_without_tensorflow(prepared):
    records = Tfds(str(prepared), splits={"train": "train"}).read()["train"]
    rows = sorted(zip(*(records.columns[name] for name in ("text", "label", "score")), strict=True))
    assert rows == [("ç0", 0, 0.0), ("ç1", 1, 0.5), ("ç2", 0, 1.0)]
    assert records.label_names == {"label": ("no", "yes")}
    assert "tensorflow" not in sys.modules


def test_tensorflow_datasets_errors_name_row_and_split(prepared):
    with pytest.raises(WsrError, match=r"/test, row 1, column 'text': byte 0xff is not UTF-8"):
        Tfds(str(prepared)).read()
    with pytest.raises(WsrError, match=r"no split 'dev'; found t"):
        Tfds(str(prepared), splits={"train": "dev"}).read()


def test_a_dataset_that_the_catalogue_lacks(tmp_path):
    pytest.importorskip("array_record", reason="pip install 'wsr[tfds]'")
    start = time.monotonic()
    with pytest.raises(WsrError, match="tensorflow-datasets cannot prepare it"):
        Tfds("no_such_dataset", data_dir=tmp_path).read()
    assert time.monotonic() - start < 10
