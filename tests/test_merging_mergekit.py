"""Recipes with gradients, slices, stages, adapters and tokenizers: what mergekit 0.1.5 gives (golden_recipes.py)."""

import json
from pathlib import Path

import golden_recipes as golden
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from wsr.errors import WsrError
from wsr.merging.files import merge_files
from wsr.merging.recipe import read_recipe


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    golden.save(tmp_path)
    return tmp_path


def merged(text):
    Path("recipe.yml").write_text(text)
    notes = merge_files(read_recipe(Path("recipe.yml")), Path("out"))
    return load_file("out/model.safetensors"), notes


@pytest.mark.parametrize("name", golden.RECIPES)
def test_a_recipe_gives_what_mergekit_gives(models, name):
    found, notes = merged(golden.RECIPES[name])
    assert notes == []
    with np.load(golden.FILE) as expected:
        names = {path.partition("/")[2] for path in expected if path.startswith(f"{name}/")}
        assert found.keys() == names - {"num_hidden_layers"}
        for path, leaf in found.items():
            np.testing.assert_allclose(leaf, expected[f"{name}/{path}"], atol=1e-5, err_msg=path)
        config = json.loads(Path("out/config.json").read_text())
        assert config["num_hidden_layers"] == expected[f"{name}/num_hidden_layers"]
    assert {path.name for path in models.iterdir() if "out" in path.name} == {"out"}
    assert not {path.name for path in Path("out").iterdir()} - {
        *("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json")
    }


def test_lists_of_a_config_with_one_entry_for_each_layer_are_cut_as_the_layers_are(models):
    kinds = {"a": ["full", "near", "near", "full"], "b": ["near", "full", "full", "near"]}
    for name, own in kinds.items():
        config = golden.CONFIG | {"layer_types": own}
        (models / name / "config.json").write_text(json.dumps(config))
    merged(golden.RECIPES["stacked"])
    config = json.loads(Path("out/config.json").read_text())
    assert config["layer_types"] == [*kinds["a"][0:3], *kinds["b"][1:4]]


def test_an_adapter_adds_what_peft_adds(models):
    """The scale of rank-stabilised LoRA, and an alpha of its own for one module."""
    found, _ = merged(
        "merge_method: passthrough\nmodels: [{model: {model: {path: base}, lora: {path: lora}}}]\ndtype: float32"
    )
    base, adapter = golden.models()["base"], golden.adapter()
    for path, leaf in found.items():
        at = f"base_model.model.{path.removesuffix('.weight')}"
        expected = base[path]
        if f"{at}.lora_A.weight" in adapter:
            scale = (5 if "v_proj" in path else 3) / np.sqrt(2)
            expected = base[path] + scale * adapter[f"{at}.lora_B.weight"] @ adapter[f"{at}.lora_A.weight"]
        np.testing.assert_allclose(leaf, expected, atol=1e-6)


def test_adapters_of_tables_and_of_modules_that_store_inputs_first(tmp_path, monkeypatch):
    """As PEFT's merge_and_unload: the product is transposed for an embedding and where fan_in_fan_out says so."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    weights = {"wte.weight": draw.standard_normal((9, 4)), "h.0.c_fc.weight": draw.standard_normal((4, 6))}
    factors = {
        "base_model.model.transformer.wte.lora_embedding_A": draw.standard_normal((2, 9)),
        "base_model.model.transformer.wte.lora_embedding_B": draw.standard_normal((4, 2)),
        "base_model.model.transformer.h.0.c_fc.lora_A.weight": draw.standard_normal((2, 4)),
        "base_model.model.transformer.h.0.c_fc.lora_B.weight": draw.standard_normal((6, 2)),
    }
    weights, factors = ({n: leaf.astype(np.float32) for n, leaf in own.items()} for own in (weights, factors))
    Path("lora").mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "fan_in_fan_out": True, "target_modules": ["wte", "c_fc"]}
    Path("lora/adapter_config.json").write_text(json.dumps(config))
    save_file(factors, "lora/adapter_model.safetensors")
    save_file(weights, "base.safetensors")
    found, _ = merged("merge_method: passthrough\nmodels: [{model: base.safetensors+lora}]")
    a, b, c, d = factors.values()
    np.testing.assert_allclose(found["wte.weight"], weights["wte.weight"] + 3 * (b @ a).T, atol=1e-5)
    np.testing.assert_allclose(found["h.0.c_fc.weight"], weights["h.0.c_fc.weight"] + 3 * (d @ c).T, atol=1e-5)


@pytest.mark.parametrize(("shape", "told"), [((4,), None), ((5,), r"its model.norm.weight \(5,\) has no counterpart")])
def test_whole_tensors_of_an_adapter_take_the_place_of_the_bases(models, shape, told):
    trained = {"base_model.model.model.norm.weight": np.full(shape, 2, np.float32)}
    save_file(golden.adapter() | trained, models / "lora" / "adapter_model.safetensors")
    text = "merge_method: passthrough\nmodels: [{model: base+lora}]"
    if told:
        with pytest.raises(WsrError, match=told):
            merged(text)
    else:
        np.testing.assert_array_equal(merged(text)[0]["model.norm.weight"], 2)


def test_a_finished_stage_is_not_merged_again(models, monkeypatch):
    import wsr.merging.files as files

    opened, own = [], files.write_parts
    monkeypatch.setattr(files, "write_parts", lambda *args: opened.append(args) or own(*args))
    text = golden.RECIPES["stages"]
    with monkeypatch.context() as patch:
        patch.setattr(files, "_copy_companions", stopping(files._copy_companions, after=1))
        with pytest.raises(KeyboardInterrupt):
            merged(text)
    assert len(opened) == 2
    merged(text)
    assert len(opened) == 3
    with np.load(golden.FILE) as expected:
        for path, leaf in load_file("out/model.safetensors").items():
            np.testing.assert_allclose(leaf, expected[f"stages/{path}"], atol=1e-5)


def test_a_last_stage_that_is_refused_leaves_nothing(models):
    text = golden.RECIPES["stages"].replace("{model: b,", "{model: nowhere,")
    with pytest.raises(WsrError, match=r"nowhere: expected a .safetensors file or a folder"):
        merged(text)
    assert not list(models.glob("*out*"))
    assert not list(models.glob(".*"))


def stopping(function, after):
    left = [after]

    def call(*args):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return function(*args)

    return call


SLICE = """
merge_method: passthrough
slices: [{sources: [{model: a, layer_range: [0, 2]}]}]
"""
STAGES = "name: one\n{0}\n---\nname: two\n{0}"
LINEAR = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: a}, {model: b}]"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SLICE.replace("[0, 2]", "[0, 5]"), r"layer_range \[0, 5\] of a, which has 4 layers"),
        (SLICE.replace("[0, 2]", "2"), "layer_range of a is 2; expected two whole numbers"),
        (SLICE.replace("[0, 2]", "[2, 2]"), r"layer_range of a is \[2, 2\]"),
        (SLICE.replace("sources", "source"), r"slices\[0\]: source: not supported; expected sources"),
        (SLICE.replace("sources:", "residual_weight: 1, sources:"), "residual_weight: not supported; leave it out"),
        (SLICE.replace("[{sources: [{model: a, layer_range: [0, 2]}]}]", "[1]"), r"slices\[0\]: 1: expected sources"),
        (SLICE.replace("layer_range", "layers"), "layers: not supported; expected model, layer_range, parameters"),
        (
            SLICE.replace("}]}]", "}, {model: b, layer_range: [0, 1]}]}]"),
            "the sources have different numbers of layers",
        ),
        (
            SLICE.replace("passthrough", "ties\nbase_model: base"),
            "base_model base is not a source; list it with its layer_range",
        ),
        (SLICE.replace("model: a,", "model: lora,"), "lora: a LoRA adapter, not a whole model"),
        (STAGES.format(LINEAR), "several stages are merged by no other: one, two"),
        (f"{LINEAR}\n---\n{LINEAR}", "two stages have no name"),
        (STAGES.format(LINEAR).replace("two", "one"), "two stages are called one"),
        (
            STAGES.format(LINEAR.replace("model: a", "model: one").replace("model: b", "model: two")),
            "in a circle",
        ),
        (LINEAR.replace("model: a", "model: a+nowhere"), "nowhere"),
        (LINEAR.replace("model: a", "model: mute+lora"), "the adapter does not fit mute: it adapts model.layers"),
        ("genome: {}", "genome: not supported; this is a recipe of mergekit-evolve"),
    ],
)
def test_what_a_recipe_may_not_say(models, text, told):
    (models / "mute").mkdir()
    save_file({"w": np.ones(2, np.float32)}, models / "mute" / "model.safetensors")
    with pytest.raises(WsrError, match=told):
        merged(text)
    assert not (models / "out").exists()


def test_slices_need_numbered_layers_of_one_stack_and_a_config_that_counts_them(models):
    tensors = {f"{stack}.block.{n}.w": np.ones(2, np.float32) for stack in ("encoder", "decoder") for n in (0, 1)}
    save_file(tensors, models / "a" / "model.safetensors")
    with pytest.raises(
        WsrError, match=r"a has layers under decoder.block., encoder.block.; slices are taken of models"
    ):
        merged(SLICE)
    save_file({"w": np.ones(2, np.float32)}, models / "a" / "model.safetensors")
    with pytest.raises(WsrError, match="a has no numbered layers"):
        merged(SLICE)
    (models / "a" / "config.json").write_text("{}")
    with pytest.raises(WsrError, match="the config of a has none of num_hidden_layers"):
        merged(SLICE)


def test_a_store_has_no_slices(models):
    from wsr.merging.files import merge_members

    Path("recipe.yml").write_text(SLICE)
    with pytest.raises(WsrError, match="slices and stages merge files; with --store, list models"):
        merge_members(read_recipe(Path("recipe.yml")), None, "base")
