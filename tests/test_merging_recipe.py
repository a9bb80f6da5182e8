"""Recipes: what mergekit 0.1.5 gives (tests/golden_merging.py), files in and out, and what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import golden_merging as golden
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import wsr
from wsr.errors import WsrError
from wsr.merging import method
from wsr.merging.files import merge_files
from wsr.merging.mergekit import MERGEKIT
from wsr.merging.method import METHODS
from wsr.merging.recipe import read_recipe
from wsr.runtime.tensor_files import TensorWriter, open_tensors

NAMED = "{}.safetensors".format
ROOT = Path(__file__).parent.parent


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The models of the golden values in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name, tensors in golden.models().items():
        save_file(tensors, NAMED(name))
    return tmp_path


def merged(folder, text):
    (folder / "recipe.yaml").write_text(text)
    merge_files(read_recipe(folder / "recipe.yaml"), folder / "out")
    return load_file(folder / "out" / "model.safetensors")


@pytest.mark.parametrize("name", golden.RECIPES)
def test_a_recipe_gives_what_mergekit_gives(files, name):
    found = merged(files, golden.recipe(name, NAMED))
    assert found.keys() == golden.SHAPES.keys()
    with np.load(golden.FILE) as expected:
        for path, leaf in found.items():
            assert leaf.dtype == np.float32
            np.testing.assert_allclose(leaf, expected[f"{name}/{path}"], atol=1e-5, err_msg=path)


def test_the_golden_values_are_of_every_method_that_recipes_have(files):
    assert {method for method, *_ in golden.RECIPES.values()} == set(MERGEKIT)
    assert set(MERGEKIT) <= set(METHODS)


def test_yaml_as_people_write_it(files):
    found = merged(
        files,
        """
merge_method: ties
base_model: base.safetensors
models:
  - model: base.safetensors   # no parameters
  - model: a.safetensors
    parameters:
      weight: 0.5
      density: 4e-1           # which YAML reads as a text
  - model: b.safetensors
    parameters: {weight: 1, density: [{filter: norm, value: 0.7}, {value: 0.7}]}
  - model: c.safetensors
    parameters: {weight: 0.3}
parameters:
  density: 0.5
  normalize: true
  int8_mask: true
dtype: float16
out_dtype: float32
""",
    )
    with np.load(golden.FILE) as expected:
        np.testing.assert_allclose(found["norm.weight"], expected["ties/norm.weight"], atol=1e-5)


def test_folders_sharded_in_half_precision_with_whole_numbers_and_companions(files):
    expected = {}
    for name in ("base", "a"):
        tensors = golden.models()[name]
        folder = files / f"{name}-folder"
        folder.mkdir()
        (first, *_), half = sorted(tensors), {path: leaf.astype(np.float16) for path, leaf in tensors.items()}
        save_file({first: half[first], "position_ids": np.arange(4)}, folder / "one.safetensors")
        save_file({path: leaf for path, leaf in half.items() if path != first}, folder / "two.safetensors")
        where = {path: "one.safetensors" if path in (first, "position_ids") else "two.safetensors" for path in half}
        index = {"weight_map": where | {"position_ids": "one.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / "config.json").write_text(f'{{"_name_or_path": "{name}"}}')
        (folder / "notes.bin").write_text("not copied")
        expected[name] = half
    text = (
        "merge_method: task_arithmetic\nbase_model: base-folder\nmodels: [{model: a-folder, parameters: {weight: 0.5}}]"
    )
    found = merged(files, text)
    np.testing.assert_array_equal(found.pop("position_ids"), np.arange(4))
    for path, leaf in found.items():
        base, own = (np.asarray(expected[name][path], np.float32) for name in ("base", "a"))
        assert leaf.dtype == np.float16
        np.testing.assert_allclose(leaf, base + 0.5 * (own - base), atol=2e-3)
    assert {file.name for file in (files / "out").iterdir()} == {"model.safetensors", "config.json"}
    # The type that was written, whatever the config of the base says.
    assert json.loads((files / "out" / "config.json").read_text()) == {"_name_or_path": "base", "dtype": "float16"}


def test_bfloat16_goes_in_and_out(files):
    torch = pytest.importorskip("torch", reason="writes bfloat16 independently")
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    tensors = {own: {k: torch.tensor(v).bfloat16() for k, v in golden.models()[own].items()} for own in ("a", "b")}
    for own, content in tensors.items():
        save_torch(content, f"{own}16.safetensors")
    text = "merge_method: linear\nmodels: [{model: a16.safetensors}, {model: b16.safetensors}]\nparameters: {weight: 1}"
    (files / "r.yaml").write_text(text)
    merge_files(read_recipe(files / "r.yaml"), files / "out")
    found = load_torch(files / "out" / "model.safetensors")
    for path, leaf in found.items():
        assert leaf.dtype == torch.bfloat16
        mean = ((tensors["a"][path].float() + tensors["b"][path].float()) / 2).bfloat16()
        torch.testing.assert_close(leaf, mean, atol=1e-2, rtol=1e-2)


def test_bfloat16_is_rounded_and_read_as_its_reference_does(tmp_path):
    """Against the type of ml_dtypes, on every upper half of a float and with every way to round."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    upper = np.arange(2**16, dtype=np.uint32)[:, None] << 16
    bits = (upper | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)).reshape(-1)
    values = bits.view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 3.3e38)]
    with TensorWriter(tmp_path / "x.safetensors", {"a": ("BF16", values.shape)}) as file:
        file.put("a", values[:1000])
        file.put("a", values[1000:], start=1000)
    tensor, found = open_tensors(tmp_path / "x.safetensors")["a"], np.empty_like(values)
    expected = values.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(tensor.whole().view(np.uint16), expected.view(np.uint16))
    tensor.read(0, found)
    np.testing.assert_array_equal(found, expected.astype(np.float32))


def test_a_written_file_is_what_safetensors_reads(tmp_path):
    with TensorWriter(
        tmp_path / "x.safetensors", {"a": ("F32", (2, 3)), "b": ("I64", ()), "c": ("F16", (0, 2))}
    ) as file:
        file.put("b", np.array(7, np.int64).reshape(1).view(np.uint8))
        file.put("a", np.arange(6, dtype=np.float32))
        file.put("c", np.zeros(0, np.float32))
    with safe_open(tmp_path / "x.safetensors", "np") as found:
        np.testing.assert_array_equal(found.get_tensor("a"), np.arange(6).reshape(2, 3))
        assert found.get_tensor("b") == 7
        assert found.get_tensor("c").shape == (0, 2)
        assert found.metadata() == {"format": "pt"}


def test_an_interrupted_write_leaves_nothing(files):
    with pytest.raises(RuntimeError), TensorWriter(files / "x.safetensors", {"a": ("F32", (2,))}):
        raise RuntimeError
    assert not list(files.glob("*x.safetensors*"))


@pytest.mark.parametrize("name", ["base", "a"])
@pytest.mark.parametrize("cut", [3, 40, -4])
def test_a_damaged_file_is_refused(files, name, cut):
    content = (files / NAMED(name)).read_bytes()
    (files / NAMED(name)).write_bytes(content[:cut])
    with pytest.raises(WsrError, match=rf"{name}.safetensors: not readable as safetensors"):
        merged(files, golden.recipe("ties", NAMED))
    assert not (files / "out").exists()
    assert not list(files.glob(".out*"))


LINEAR = "merge_method: linear\nmodels: [{model: a.safetensors}, {model: b.safetensors}]\nparameters: {weight: 1}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LINEAR.replace("linear", "tie"), "merge_method: tie: not supported in recipes; nearest: ties"),
        (LINEAR.replace("linear", "fisher"), "fisher: not supported in recipes because it needs texts; use --store"),
        (LINEAR.replace("linear", "[linear]"), r"merge_method: \['linear'\]: not supported in recipes"),
        (LINEAR + "slices: []", "expected models, a list of .* or slices"),
        (LINEAR + "modules: {}", "modules: not supported; models with several stacks of layers are merged whole"),
        (LINEAR + "chat_template: auto", "chat_template: not supported; the result has the template of its base"),
        (LINEAR + "tokenizer: {source: base, tokens: {}}", "tokenizer: .*only source is supported"),
        (LINEAR + "dtype: int8", "dtype: int8: expected one of float32"),
        (LINEAR.replace("weight: 1", "weight: [0, {value: 1}]"), "weight: 0: expected value, and filter"),
        (LINEAR.replace("weight: 1", "weight: []"), r"weight = \[\]: a gradient over layers has at least one value"),
        (LINEAR.replace("weight: 1", "weight: [0, some]"), "weight = 'some'; expected float"),
        (LINEAR.replace("a.safetensors", "{path: a, revision: main}"), "expected a name or a path, or BASE.ADAPTER"),
        (LINEAR.replace("model: a.safetensors", "model: a.safetensors, lora: b"), "lora: not supported; write model"),
        (LINEAR.replace("weight: 1", "wait: 1"), "wait: not a parameter of linear; it has int8_mask, normalize"),
        (LINEAR.replace("weight: 1", "normalize: 1, weight: 1"), "normalize = 1; expected bool"),
        (LINEAR.replace("weight: 1", "weight: some"), "weight = 'some'; expected float"),
        (LINEAR.replace("{weight: 1}", "{}"), r"linear needs weight of a.safetensors \(embeddings.weight\)"),
        (LINEAR.replace("linear", "ties"), "ties needs base_model"),
        (LINEAR.replace("b.saf", "x.saf"), "x.safetensors: expected a .safetensors file or a folder"),
        (LINEAR.replace("models: ", "models: {"), "cannot be read as YAML"),
        ("- a", "expected a recipe with merge_method"),
        ("merge_method: linear", "expected models, a list"),
        ("merge_method: slerp\nbase_model: base.safetensors\nmodels: [{model: a.safetensors}]", "slerp needs t"),
        (
            "merge_method: slerp\nbase_model: base.safetensors\nparameters: {t: 1}\n"
            "models: [{model: a.safetensors}, {model: b.safetensors}]",
            "slerp merges exactly 2 members; found 3",
        ),
    ],
)
def test_what_a_recipe_may_not_say(files, text, told):
    with pytest.raises(WsrError, match=told):
        merged(files, text)
    assert not (files / "out").exists()


def test_files_that_do_not_belong_together_are_refused_with_all_differences(files):
    tensors = golden.models()["a"]
    del tensors["norm.weight"]
    save_file({**tensors, "head": np.ones(2, np.float32), "layer.0.dense.bias": np.ones(3, np.float32)}, NAMED("a"))
    with pytest.raises(WsrError) as error:
        merged(files, golden.recipe("ties", NAMED))
    for told in ("norm.weight is in base", "head is in a", r"layer.0.dense.bias is (9,) in base.safetensors and (3,)"):
        assert told in str(error.value)


def test_an_index_may_not_leave_its_folder(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(WsrError, match="names of safetensors files in the same folder"):
        open_tensors(tmp_path)


def test_a_method_that_mergekit_lacks_has_its_own_options_as_parameters(files):
    """Against the same method called on the same weights."""
    found = merged(
        files,
        """
merge_method: iso_cts
base_model: base.safetensors
models: [{model: base.safetensors}, {model: a.safetensors}, {model: b.safetensors}]
parameters: {common: 0.5, scale: [{filter: dense, value: 0.7}, {value: 0.2}]}
""",
    )
    base, a, b = (golden.models()[name] for name in ("base", "a", "b"))
    bias, dense = "layer.0.dense.bias", "layer.0.dense.weight"
    np.testing.assert_allclose(found[bias], base[bias] + 0.7 * ((a[bias] + b[bias]) / 2 - base[bias]), atol=1e-5)
    norm = "norm.weight"
    np.testing.assert_allclose(found[norm], base[norm] + 0.2 * ((a[norm] + b[norm]) / 2 - base[norm]), atol=1e-5)
    values = np.linalg.svd((found[dense] - base[dense]) / 0.7, compute_uv=False)
    np.testing.assert_allclose(values, values.mean(), atol=1e-5)


def test_weights_of_such_a_method_stand_with_the_members(files):
    text = "merge_method: weighted\nmodels: [{model: a.safetensors, parameters: {weight: 3}}, {model: b.safetensors}]\n"
    found = merged(files, text + "parameters: {weight: 1}")
    a, b = (golden.models()[name]["norm.weight"] for name in ("a", "b"))
    np.testing.assert_allclose(found["norm.weight"], 0.75 * a + 0.25 * b, atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ("{commen: 0.5}", "commen: not a parameter of iso_cts; it has averaged, common, int8_mask, scale"),
        ("{common: 1.5}", "iso_cts: common = 1.5; expected a number from 0 to 1"),
        ("{averaged: '('}", r"iso_cts: averaged = '\('; expected a regular expression"),
    ],
)
def test_wrong_options_of_such_a_method_are_refused(files, parameters, told):
    with pytest.raises(WsrError, match=told):
        merged(
            files,
            f"merge_method: iso_cts\nbase_model: base.safetensors\nmodels: [{{model: a.safetensors}}]\n"
            f"parameters: {parameters}",
        )


OWN = '''
from dataclasses import dataclass

import numpy as np

from wsr.merging.method import OfWeights, option


@dataclass(frozen=True)
class Median(OfWeights):
    """The median of the task vectors, entry by entry."""

    scale: float = option(1.0, "Factor of the median.")

    def prepared(self, ingredients):
        def fill(leaf, out):
            for block in leaf.blocks():
                block.put(out, block.base + self.scale * np.median(block.vectors, axis=0))

        return fill
'''


@pytest.fixture
def installed(files, monkeypatch):
    """A package that names a method in its entry points."""
    (files / "median_merge.py").write_text(OWN)
    about = files / "median_merge-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: median-merge\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[wsr.merging]\nmedian = median_merge:Median\n")
    root = Path(__file__).parent.parent
    monkeypatch.setenv("PYTHONPATH", f"{files}:{root}")
    return files


def told_by(*words):
    return subprocess.run([sys.executable, "-m", "wsr.cli", *words], capture_output=True, text=True)


def test_a_method_of_an_installed_package_is_listed_helped_and_used_by_recipes(installed):
    page = " ".join(told_by("merge", "--help").stdout.split())
    assert "median The median of the task vectors, entry by entry [scale]" in page
    own = told_by("merge", "--method=median", "--help").stdout
    assert "Options of median" in own
    assert "Factor of the median. [number; default: 1]" in " ".join(own.split())
    (installed / "recipe.yaml").write_text(
        "merge_method: median\nbase_model: base.safetensors\nparameters: {scale: 0.5}\n"
        "models: [{model: a.safetensors}, {model: b.safetensors}, {model: c.safetensors}]"
    )
    done = told_by("merge", "--recipe=recipe.yaml", "--to=out")
    assert done.returncode == 0, done.stderr
    base, *members = golden.models().values()
    for path, leaf in load_file("out/model.safetensors").items():
        expected = base[path] + 0.5 * np.median([own[path] - base[path] for own in members], axis=0)
        np.testing.assert_allclose(leaf, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("import nowhere", "the merge method median cannot be imported from median_merge.Median: No module named"),
        (OWN.replace("Median", "Mean"), "the merge method median cannot be imported from median_merge.Median: module"),
        (OWN.replace("scale", "store"), "merge method median: wsr merge has a flag --store itself; rename the option"),
        (OWN.replace("(OfWeights)", ""), "merge method median: expected a class that extends OfWeights"),
    ],
)
def test_a_package_whose_method_cannot_be_used_is_named_in_one_line(installed, content, told):
    (installed / "median_merge.py").write_text(content)
    done = told_by("merge", "--help")
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_an_installed_package_cannot_replace_a_method(installed):
    (installed / "median_merge-1.0.dist-info" / "entry_points.txt").write_text("[wsr.merging]\nties = nowhere:Ties\n")
    done = told_by("merge", "--method=ties", "--help")
    assert "a merge method is called ties already; it is left out" in done.stderr
    assert "--density" in done.stdout


def test_a_class_that_is_registered_is_found_and_used_by_recipes(files):
    space = {}
    exec(OWN, space)
    with patch.dict(method._KNOWN):
        kind = wsr.merging.register("middle")(space["Median"])
        assert wsr.merging.find("middle") is kind
        assert method.name_of(kind) == "middle"
        found = merged(files, "merge_method: middle\nbase_model: base.safetensors\nmodels: [{model: a.safetensors}]")
        np.testing.assert_allclose(found["norm.weight"], golden.models()["a"]["norm.weight"], atol=1e-6)
        with pytest.raises(WsrError, match="a merge method is called ties already"):
            wsr.merging.register("ties")(kind)
        with pytest.raises(WsrError, match="expected a name in lower case"):
            wsr.merging.register("My method")(kind)
        with pytest.raises(WsrError, match="expected a class that extends OfWeights"):
            wsr.merging.register("mine")(type("Undecorated", (method.OfWeights,), {}))
        bare = dataclass(frozen=True)(type("Bare", (method.OfWeights,), {"__annotations__": {"k": int}, "k": 1}))
        with pytest.raises(WsrError, match="mine: make k by option"):
            wsr.merging.register("mine")(bare)
    assert "middle" not in METHODS


@pytest.mark.parametrize("name", ["ties", "della"])
@pytest.mark.long
def test_memory_does_not_grow_with_the_members(tmp_path, name):
    """24 files of 20 MB, 480 MB together: each process, Python and NumPy included, stays far below."""
    forms = {"table": ("F32", (4000, 1000)), "layer.weight": ("F32", (1000, 1000))}
    models = [str(tmp_path / f"{number}.safetensors") for number in range(25)]
    for path in models:
        with TensorWriter(Path(path), forms):
            pass  # zeros that take no place on the disk
    recipe = {"merge_method": name, "base_model": models[0], "parameters": {"weight": 1, "density": 0.5}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe | {"models": [{"model": path} for path in models[1:]]}))
    code = (
        f"from wsr.cli import main; main(['merge', '--recipe={tmp_path / 'recipe.yaml'}', '--to={tmp_path / 'out'}']);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]);"
        "import resource; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"  # the largest that was forked
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    itself, forked = (int(line) / 1024 for line in done.stdout.splitlines()[-2:])
    assert itself < 240
    assert 0 < forked < 240


def test_spectral_methods_merge_files_without_jax_where_it_has_no_accelerator(files):
    code = (
        "import sys, importlib.util; own = importlib.util.find_spec;"
        "importlib.util.find_spec = lambda name, *of: None if name in ('jax_plugins', 'libtpu') else own(name, *of);"
        "import wsr; from wsr.merging import TsvM;"
        "wsr.merge(['a.safetensors', 'b.safetensors'], TsvM(), base='base.safetensors', to='out');"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_the_command_merges_files_without_jax(files):
    (files / "recipe.yaml").write_text(golden.recipe("ties", lambda name: str(files / NAMED(name))))
    code = (
        "import sys; from wsr.cli import main; done = main(sys.argv[1:]); assert 'jax' not in sys.modules; exit(done)"
    )
    command = [sys.executable, "-c", code, "merge", f"--recipe={files / 'recipe.yaml'}"]

    def run(*flags):
        return subprocess.run([*command, *flags], capture_output=True, text=True, cwd=Path(__file__).parent.parent)

    done = run(f"--to={files / 'out'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ties merge of 3: ")
    with np.load(golden.FILE) as expected:
        found = load_file("out/model.safetensors")
        np.testing.assert_allclose(found["norm.weight"], expected["ties/norm.weight"], atol=1e-5)
    again = run(f"--to={files / 'out'}")
    assert again.returncode == 1
    assert "exists already" in again.stderr
    assert (
        "--recipe names method and options itself; leave out --method"
        in run(f"--to={files / 'new'}", "--method=ties").stderr
    )
