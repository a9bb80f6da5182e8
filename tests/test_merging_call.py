"""``wsr.merge`` on dicts of arrays and on paths, against NumPy and against recipes."""

import json
from pathlib import Path

import golden_merging as golden
import ml_dtypes
import numpy as np
import pytest
from merging_world import BASE, MEMBERS, NAMES, SHAPES, base, elect, tau, trimmed
from safetensors.numpy import load_file, save_file

import wsr
from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.merging import Passthrough, RegMean, Ties, TsvM, Uniform, Weighted
from wsr.merging.files import merge_files
from wsr.merging.recipe import read_recipe

THREE = dict(zip(NAMES, MEMBERS, strict=True))


def expected(path):
    kept = np.stack([trimmed(own, 0.3) for own in tau(path)])
    return (base(path) + 0.8 * elect(kept, np.ones(3))).reshape(SHAPES[path])


TRIMMED = Ties(density=0.3, scope="leaf", scale=0.8)


@pytest.mark.parametrize("form", [dict, nest], ids=["flat", "nested"])
def test_dicts_of_arrays_are_merged_as_numpy_merges_them(form):
    found = wsr.merge({name: form(own) for name, own in THREE.items()}, TRIMMED, base=form(BASE))
    assert (form is dict) == ("layer/kernel" in found)
    for path, leaf in flatten(found).items():
        assert leaf.dtype == np.float32
        np.testing.assert_allclose(leaf, expected(path), atol=1e-5, err_msg=path)


def test_dicts_keep_their_form_their_types_and_leaves_that_are_not_floats():
    jnp = pytest.importorskip("jax.numpy")
    first = {"layers": {0: {"w": jnp.ones(3, jnp.bfloat16)}}, "wide": np.array([1.0]), "ids": np.arange(3)}
    second = {"layers": {0: {"w": jnp.zeros(3, jnp.bfloat16)}}, "wide": np.array([2.0**-40]), "ids": np.arange(3)}
    found = wsr.merge({"a": first, "b": second}, Uniform())
    assert found["layers"][0]["w"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(found["layers"][0]["w"].astype(float), 0.5)
    assert found["wide"].dtype == np.float64
    assert found["wide"][0] == (1 + 2.0**-40) / 2  # which float32 does not hold
    np.testing.assert_array_equal(found["ids"], np.arange(3))


def test_groups_and_tensors_of_pytorch():
    torch = pytest.importorskip("torch", reason="its tensors are merged too")
    models = {name: {path: torch.tensor(leaf) for path, leaf in own.items()} for name, own in THREE.items()}
    found = wsr.merge(models, Uniform(), groups=[("kernel", Weighted(weights=(0.0, 1.0, 0.0)))])
    np.testing.assert_allclose(found["layer/kernel"], MEMBERS[1]["layer/kernel"], atol=1e-6)
    np.testing.assert_allclose(found["layer/bias"], np.mean([own["layer/bias"] for own in MEMBERS], axis=0), atol=1e-6)


ONE = {"w": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    ("models", "method", "more", "told"),
    [
        ({}, Uniform(), {}, "no models were given"),
        ({"a": ONE, "b": ONE}, Ties(), {}, "ties needs base="),
        ({"a": ONE}, Uniform(), {"groups": [("w", Ties())]}, "ties needs base="),
        ({"a": ONE, "b": {"v": np.ones(2)}}, Uniform(), {}, "w is in a but not in b; v is in b but not in a"),
        ({"a": ONE, "b": {"w": np.ones(3)}}, Uniform(), {}, r"w is \(2,\) in a and \(3,\) in b"),
        ({"a": ONE, "b": {"w": np.arange(2)}}, Uniform(), {}, "w is float32 in a and int64 in b"),
        ({"a": {"w": np.arange(2)}, "b": {"w": np.zeros(2, int)}}, Uniform(), {}, "w is not a float leaf and differs"),
        ({"a": {"w": np.array([np.nan, 1.0])}}, Uniform(), {}, "NaN or infinity in w of a"),
        ({"a": {"w": object()}}, Uniform(), {}, "w of a is not an array: found object"),
        ({"base": ONE}, Ties(), {"base": ONE}, "a model may not be called base"),
        ({"a": ONE, "b": ONE}, Passthrough(), {}, "passthrough merges exactly 1 member; found 2: a, b"),
        ({"a": ONE}, RegMean(), {"base": ONE}, "regmean needs texts: it merges the members of a region"),
        ({"a": ONE}, Uniform(), {"to": "out"}, "to= does not go with such models"),
        (["a"], Uniform(), {}, "name it by to="),
        ("a", Uniform(), {"to": "out"}, "expected a list of paths, found the one path a"),
        (["a.safetensors"], Ties(), {"to": "out"}, "ties needs base="),
        (["a.safetensors"], RegMean(), {"to": "out"}, "regmean needs texts"),
        (["a.safetensors"], Uniform(), {"to": "out", "dtype": "int8"}, "dtype = 'int8'; expected one of float32"),
        (["a.safetensors"], Uniform(), {"to": "out", "groups": [("no", Uniform())]}, "no leaf matches 'no'"),
        (["a.safetensors"], Passthrough(), {"to": "here"}, "here already exists"),
    ],
)
def test_what_cannot_be_merged_is_refused_in_one_line(tmp_path, monkeypatch, models, method, more, told):
    monkeypatch.chdir(tmp_path)
    save_file(ONE, "a.safetensors")
    Path("here").mkdir()
    with pytest.raises(WsrError, match=told):
        wsr.merge(models, method, **more)
    assert not Path("out").exists()
    assert not list(tmp_path.glob(".*"))


def test_a_region_takes_no_options_of_paths():
    with pytest.raises(WsrError, match="base=, to= does not go with such models"):
        wsr.merge(wsr.made_up_region(2), Uniform(), base={}, to="out")


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, tensors in golden.models().items():
        save_file(tensors, f"{name}.safetensors")
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(json.dumps({"model_type": "none", "of": "all"}))
    return tmp_path


def test_paths_are_merged_to_what_a_recipe_gives(files):
    out = wsr.merge(["a", Path("b")], TsvM(scale=0.7), base="base", to="out")
    assert out == Path("out")
    Path("recipe.yaml").write_text(
        "merge_method: tsv_m\nbase_model: base\nmodels: [{model: a}, {model: b}]\nparameters: {scale: 0.7}"
    )
    merge_files(read_recipe(Path("recipe.yaml")), Path("by_recipe"))
    found, other = (load_file(f"{folder}/model.safetensors") for folder in ("out", "by_recipe"))
    assert found.keys() == golden.SHAPES.keys()
    for path, leaf in found.items():
        np.testing.assert_array_equal(leaf, other[path])
    assert json.loads(Path("out/config.json").read_text())["of"] == "all"


def test_paths_are_merged_to_what_mergekit_gives_and_in_another_type(files):
    """Mergekit's ties trims leaf by leaf."""
    method = Ties(density=(0.4, 0.7, 0.5), weights=(0.5, 1.0, 0.3), scope="leaf")
    paths = [f"{name}.safetensors" for name in NAMES]
    wsr.merge(paths, method, base="base.safetensors", to="out")
    wsr.merge(paths, method, base="base.safetensors", to="half", dtype="float16")
    with np.load(golden.FILE) as expected:
        for path, leaf in load_file("out/model.safetensors").items():
            np.testing.assert_allclose(leaf, expected[f"ties/{path}"], atol=1e-5)
            np.testing.assert_array_equal(load_file("half/model.safetensors")[path], leaf.astype(np.float16))


def test_groups_of_paths(files):
    wsr.merge(["a", "b"], Uniform(), groups=[("bias", Weighted(weights=(1.0, 0.0)))], to="out")
    found, a, b = (load_file(f"{name}/model.safetensors") for name in ("out", "a", "b"))
    bias, norm = "layer.0.dense.bias", "norm.weight"
    np.testing.assert_array_equal(found[bias], a[bias])
    np.testing.assert_allclose(found[norm], (a[norm] + b[norm]) / 2, atol=1e-6)
