"""What comes from strangers: refused in one line or escaped, and nothing is run, unpacked without end or touched."""

import csv
import gzip
import hashlib
import io
import json
import pickle
import resource
import shutil
import struct
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from wsr.cli import main
from wsr.data.files import read_file
from wsr.data.load import spec_of
from wsr.errors import WsrError
from wsr.merging.yaml_file import read_yaml
from wsr.models import export
from wsr.models.huggingface.files import read_file as read_safetensors
from wsr.models.load import load
from wsr.runtime.tensor_files import open_tensors
from wsr.store import Store
from wsr.store.record import check_name
from wsr.store.results import Results

pytestmark = pytest.mark.fault


@pytest.fixture(autouse=True)
def counted(request: pytest.FixtureRequest, trials: Any) -> Iterator[None]:
    """Counts what was tried, where it was refused or escaped."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed:
        trials.note("hostile input", tried=1, as_promised=1)


class Bomb:
    """Unpickled, it writes into the canary."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> Any:
        return (exec, (f"open({str(self.canary / 'hit')!r}, 'w').write('x')",))


@pytest.fixture
def canary(tmp_path: Path) -> Any:
    """A folder beside the one that the test works in, which is to stay as it is."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "secret.csv").write_text("text,label\nmine,0\nmine too,1\n")
    before = _content(folder)
    yield folder
    assert _content(folder) == before


def _content(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.fixture
def model(tiny: Any, tmp_path: Path) -> Path:
    """A Hugging Face folder of the tiny checkpoint."""
    export(tiny, tmp_path / "work" / "model")
    return tmp_path / "work" / "model"


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    status = main([*words])
    complaint = capsys.readouterr().err
    assert status == 1
    assert complaint.count("\n") == 1
    assert complaint.startswith("wsr: error: ")
    return complaint


@pytest.mark.parametrize("name", ["data.pkl", "data.pt", "data.bin", "data.npy", "data.npz", "data.jsonl.gz"])
def test_a_data_file_is_never_unpickled_nor_unpacked(tmp_path: Path, canary: Path, capsys: Any, name: str) -> None:
    file = tmp_path / name
    if name.endswith("gz"):
        file.write_bytes(gzip.compress(b'{"text": "a", "label": 0}\n' * 1000))
    elif name.startswith("data.np"):
        array = np.array([Bomb(canary)], dtype=object)
        with file.open("wb") as out:
            np.save(out, array) if name.endswith("npy") else np.savez(out, array)
    else:
        file.write_bytes(pickle.dumps(Bomb(canary)))
    words = ["train", f"--store={tmp_path / 'store'}", "--base=tiny", f"--datasets={file}"]
    assert "expected a file ending in .csv" in refused(capsys, *words)


def test_a_pickle_among_the_points_is_evaluated_again(tmp_path: Path, canary: Path, capsys: Any) -> None:
    points = Results.on_disk(tmp_path)
    with (tmp_path / "a.npz").open("wb") as out:
        np.savez(out, losses=np.array([Bomb(canary)], dtype=object))
    assert "a" not in points
    assert "Object arrays cannot be loaded" in capsys.readouterr().out


def test_points_that_unpack_without_end_are_evaluated_again(tmp_path: Path, capsys: Any) -> None:
    with (tmp_path / "a.npz").open("wb") as out:
        np.savez_compressed(out, losses=np.zeros(2**24, np.float32))
    assert "a" not in Results.on_disk(tmp_path)
    assert "losses.npy is compressed" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_a_model_is_never_unpickled(model: Path, canary: Path, tmp_path: Path, capsys: Any, name: str) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(pickle.dumps(Bomb(canary)))
    told = refused(capsys, "import", str(model), f"--store={tmp_path / 'store'}", "--base=tiny")
    assert "opening a pickle can run code, so" in told
    assert not (tmp_path / "store").exists()


def test_code_in_a_folder_is_neither_run_nor_asked_about(
    model: Path, canary: Path, tmp_path: Path, capsys: Any
) -> None:
    (model / "own.py").write_text(f"open({str(canary / 'hit')!r}, 'w')\nclass Own: pass\n")
    file = model / "tokenizer_config.json"
    content = json.loads(file.read_text())
    content.update(auto_map={"AutoTokenizer": ["own.Own", "own.Own"]}, tokenizer_class="Own")
    file.write_text(json.dumps(content))
    main(["import", str(model), f"--store={tmp_path / 'store'}", "--base=tiny"])
    assert "Do you wish to run" not in capsys.readouterr().out


@pytest.mark.parametrize("shard", ["../canary/x.safetensors", "/canary/x.safetensors", "..\\x.safetensors"])
def test_an_index_stays_in_its_folder(model: Path, canary: Path, tmp_path: Path, capsys: Any, shard: str) -> None:
    (model / "model.safetensors").unlink()
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    told = refused(capsys, "import", str(model), f"--store={tmp_path / 'store'}", "--base=tiny")
    assert "expected names of safetensors files in the same folder" in told
    with pytest.raises(WsrError, match="expected names of safetensors files in the same folder"):
        open_tensors(model)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_links_of_a_folder_are_not_followed(model: Path, tmp_path: Path, capsys: Any, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (model / name).rename(outside / name)
    (model / name).symlink_to(outside / name)
    told = refused(capsys, "import", str(model), f"--store={tmp_path / 'store'}", "--base=tiny")
    assert f"links out of the folder are not followed: {name}" in told
    store = tmp_path / "trained"
    Store.create(store, **_base_of("tiny"))
    told = refused(capsys, "evaluate", f"--store={store}", "--on=made_up_a1", f"--merged={model}")
    assert f"links out of the folder are not followed: {name}" in told


def _base_of(name: str) -> dict[str, Any]:
    base = load(name)
    own = {"model_name": base.model.name, "model_config": dict(base.model.config), "base_params": base.params}
    return {**own, "base_name": name}


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "..", "a\\b", "-x", "$(touch x)", "<b>"])
def test_a_member_has_a_name_of_its_own_folder(
    model: Path, canary: Path, tmp_path: Path, capsys: Any, name: str
) -> None:
    words = ["import", str(model), f"--store={tmp_path / 'store'}", "--base=tiny", f"--names={name}"]
    assert "not a safe file name" in refused(capsys, *words)
    assert not list((tmp_path / "store" / "members").glob("*"))
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["canary", "store", "work"]


def test_a_name_that_no_member_can_have_is_refused_before_it_is_trained(
    tmp_path: Path, canary: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("x" * 201)
    folder.mkdir()
    rows = "".join(f"{'good' if n % 2 else 'bad'} number {n},{n % 2}\n" for n in range(400))
    (folder / "train.csv").write_text(f"text,label\n{rows}")
    monkeypatch.setattr("wsr.training.members.finetune", None)
    words = ["train", f"--store={tmp_path / 'store'}", "--base=tiny", f"--datasets={folder}", "--seeds=1"]
    assert "not a safe file name" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("name", "spoken"), [("=cmd|' <b>", "cmd_b"), ("my data (1)", "my_data_1"), ("..x", "x"), ("$(touch x)", "touch_x")]
)
def test_a_dataset_takes_a_safe_name_from_its_folder(tmp_path: Path, name: str, spoken: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "train.csv").write_text("text,label\na,0\n")
    assert spec_of(str(tmp_path / name)).name == spoken
    check_name(spoken)


@pytest.mark.parametrize("length", [2**60, 10**9, 0])
def test_a_header_that_claims_too_much_is_refused(tmp_path: Path, length: int) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + b'{"a": {}}' + b" " * 100)
    with _bounded_memory():
        for read in (read_safetensors, open_tensors):
            with pytest.raises(WsrError, match=r"model\.safetensors: not readable as safetensors"):
                read(file)


class _bounded_memory:
    """Less memory than the bombs of these tests would take: who unpacks them dies of it."""

    def __enter__(self) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        self.before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, self.before[1]))

    def __exit__(self, *error: object) -> None:
        resource.setrlimit(resource.RLIMIT_AS, self.before)


def test_nested_json_is_refused_in_one_line(model: Path, tmp_path: Path, capsys: Any) -> None:
    deep = "[" * 200_000
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        content = (model / name).read_text()
        (model / name).write_text(deep)
        assert name.split(".")[0].split("_")[0] in refused(
            capsys, "import", str(model), f"--store={tmp_path / 'store'}", "--base=tiny"
        )
        (model / name).write_text(content)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "document.json").write_text(deep)
    assert "is damaged or was written by another version of wsr" in refused(capsys, "report", str(tmp_path / "run"))
    (tmp_path / "data.jsonl").write_text(deep)
    with pytest.raises(WsrError, match=r"data\.jsonl, line 1: not JSON: nested too deeply"):
        read_file(tmp_path / "data.jsonl")


def test_a_recipe_that_unpacks_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    file.write_text("\n".join(lines))
    with pytest.raises(WsrError, match=r"recipe\.yaml: cannot be read as YAML: it unpacks to more than"):
        read_yaml(file)
    file.write_text("[" * 100_000)
    with pytest.raises(WsrError, match=r"recipe\.yaml: cannot be read as YAML"):
        read_yaml(file)


def bomb_of_rows(file: Path) -> None:
    """A long text in many rows, kept once: 26 GB."""
    table = pyarrow.table({"text": pyarrow.DictionaryArray.from_arrays(np.zeros(2**17, np.int8), ["x" * 200_000])})
    # Without Arrow's own schema, as other writers do: the column is one of plain texts.
    pyarrow.parquet.write_table(table, file, compression="zstd", store_schema=False)


def bomb_of_one_cell(file: Path) -> None:
    """A gigabyte of one letter in one cell."""
    table = pyarrow.table({"text": ["x" * (2**28 + 2**20)], "label": ["y"]})
    pyarrow.parquet.write_table(table, file, compression="zstd", use_dictionary=False, write_statistics=False)


def bomb_of_nothing(file: Path) -> None:
    """Many rows of many columns that hold nothing."""
    nothing = pyarrow.nulls(2**20)
    pyarrow.parquet.write_table(pyarrow.table({f"c{n}": nothing for n in range(64)}), file)


@pytest.mark.parametrize("bomb", [bomb_of_rows, bomb_of_one_cell, bomb_of_nothing])
def test_a_parquet_file_that_unpacks_without_end_is_refused(tmp_path: Path, bomb: Any) -> None:
    file = tmp_path / "data.parquet"
    bomb(file)
    assert file.stat().st_size < 500_000
    with (
        _bounded_memory(),
        pytest.raises(WsrError, match=r"data\.parquet: refused: its \d+ bytes would unpack to more than"),
    ):
        read_file(file)


def test_json_lines_that_bring_a_column_each_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_text("".join(f'{{"k{n}": 1}}\n' for n in range(30_000)))
    with (
        _bounded_memory(),
        pytest.raises(WsrError, match=r"data\.jsonl: refused: its \d+ bytes would unpack to more than"),
    ):
        read_file(file)


def test_data_that_is_merely_repetitive_is_read(tmp_path: Path, tiny: Any) -> None:
    file = tmp_path / "data.parquet"
    texts = [f"the same words again and again, {n % 50}" for n in range(200_000)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts, "label": [n % 2 for n in range(200_000)]}), file)
    assert len(read_file(file)) == 200_000


NAMES = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=2", "\uff1d1", " =3", "<script>alert('x')</script>", "<img src=x>", "a"]


class Inert(HTMLParser):
    """Raises at whatever could run or load something."""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe", "object", "embed", "base", "form")
        for name, value in attributes:
            assert not name.startswith("on")
            assert name not in ("src", "href") or str(value).startswith(("#", "data:"))


def test_names_of_strangers_stay_text_in_pages_and_tables(tmp_path: Path, capsys: Any) -> None:
    matrix, labels, out = tmp_path / "matrix.csv", tmp_path / "labels.csv", tmp_path / "map"
    draw = np.random.default_rng(0).standard_normal((len(NAMES), 40))
    draw /= np.linalg.norm(draw, axis=1, keepdims=True)
    with matrix.open("w", newline="") as file:
        csv.writer(file).writerows([NAMES, *(draw @ draw.T).tolist()])
    with labels.open("w", newline="") as file:
        pairs = [(" ".join(name.split()), NAMES[number % 2 + 6]) for number, name in enumerate(NAMES)]
        csv.writer(file).writerows([("model", "label"), *pairs])
    assert main(["map", f"--similarity={matrix}", f"--labels={labels}", f"--out={out}"]) == 0
    page = (out / "map.html").read_text()
    Inert().feed(page)
    assert "&lt;script&gt;" in page
    tables = sorted(out.glob("*.csv"))
    assert len(tables) >= 4
    seen = set()
    for file in tables:
        for line in csv.reader(io.StringIO(file.read_text(), newline="")):
            for cell in line:
                seen.add(cell)
                assert not cell.strip().startswith(("=", "+", "@", "\uff1d", "\t")), (file, cell)
                assert not cell.startswith("-") or float(cell) < 0
    assert {"'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\uff1d1"} <= seen


def test_a_store_of_a_stranger_leads_nowhere(tmp_path: Path, canary: Path, capsys: Any) -> None:
    """A member that is a link: looking and repairing touch nothing that it leads to."""
    store = Store.create(tmp_path / "store", **_base_of("tiny"))
    shutil.copytree(store.path / "base", canary / "theirs")
    (store.path / "members").mkdir()
    (store.path / "members" / "theirs").symlink_to(canary / "theirs")
    before = _content(canary)
    assert main(["verify", str(store.path)]) == 1
    assert main(["verify", str(store.path), "--repair"]) == 0
    assert (store.path / "damaged").exists()
    assert Store.open(store.path).names() == []
    assert _content(canary) == before
    shutil.rmtree(canary / "theirs")
