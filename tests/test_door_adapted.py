"""What ``wsr merge --recipe`` adapts in folders of others, and what it writes beside the weights."""

import json

import ml_dtypes
import numpy as np
import pytest
from classifiers import HEAD, LABELS, merge, named, refusal
from incoming_folders import edit_config, rewrite, write
from safetensors.numpy import load_file, save_file

from wsr.cli import main
from wsr.merging.files import merge_files
from wsr.merging.recipe import read_recipe

# What is adapted


def test_tensors_under_old_names_are_matched(pair):
    ours, theirs = (load_file(pair / name / "model.safetensors") for name in ("m0", "m1"))
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def older(tensors):
        for new, name in old.items():
            tensors = {key.replace(new, name): leaf for key, leaf in tensors.items()}
        return tensors | {"embeddings.position_ids": np.arange(64)[None]}

    rewrite(pair / "m1", older)
    found, notes = merge(pair)
    assert found.keys() == ours.keys()
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, (ours[name] + theirs[name]) / 2, atol=1e-6, err_msg=name)
    assert [note.split(":")[0] for note in notes] == [
        "left out, because not every model has it and it is not learned",
        "10 tensors of m1 have the names of another version; they were matched",
    ]


def test_a_model_may_be_listed_twice(pair):
    ours = load_file(pair / "m0" / "model.safetensors")
    found, _ = merge(pair, models=("m0", "m1", "m0"), weights=(0.25, 0.0, 0.75))
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, ours[name], atol=1e-6)


def test_random_drops_of_a_model_that_is_listed_twice_are_independent(pair):
    for name, value in (("base", 0.0), ("a", 1.0)):
        save_file({"w": np.full(1000, value, np.float32)}, pair / f"{name}.safetensors")
    models = [{"model": "a.safetensors", "parameters": {"weight": 1.0, "density": 0.5}}] * 2
    recipe = {"merge_method": "dare_linear", "base_model": "base.safetensors", "models": models}
    (pair / "recipe.yaml").write_text(json.dumps(recipe | {"parameters": {"rescale": False}}))
    merge_files(read_recipe(pair / "recipe.yaml"), pair / "out")
    values = load_file(pair / "out" / "model.safetensors")["w"]
    assert {*np.unique(values)} == {0.0, 1.0, 2.0}


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "slerp", "karcher", "multislerp", "model_stock"])
def test_float64_is_kept(pair, method):
    random = np.random.default_rng(0)
    base = random.standard_normal((5, 4))
    near = [base + 1e-9 * random.standard_normal((5, 4)) for _ in range(2)]
    for name, leaf in zip(("base", "a", "b"), (base, *near), strict=True):
        save_file({"w": leaf}, pair / f"{name}.safetensors")
    recipe = {"merge_method": method, "models": [{"model": f"{name}.safetensors"} for name in ("a", "b")]}
    if method in ("task_arithmetic", "model_stock"):
        recipe["base_model"] = "base.safetensors"
    if method == "slerp":
        recipe["base_model"] = "a.safetensors"
    shared = {"slerp": {"t": 0.5}, "karcher": {}, "model_stock": {}, "task_arithmetic": {"weight": 0.5}}
    recipe["parameters"] = shared.get(method, {"weight": 1})
    (pair / "recipe.yaml").write_text(json.dumps(recipe))
    assert merge_files(read_recipe(pair / "recipe.yaml"), pair / "out") == []
    found = load_file(pair / "out" / "model.safetensors")["w"]
    assert found.dtype == np.float64
    if method == "model_stock":  # between the base and the mean
        assert np.abs(found - base).max() < 1e-8
    else:
        np.testing.assert_allclose(found, np.mean(near, axis=0), rtol=0, atol=1e-14)


def test_a_method_that_computes_in_float32_says_so_of_float64(pair):
    for name in ("base", "a"):
        save_file({"w": np.ones(4) + (name == "a"), "v": np.ones(4, np.float32)}, pair / f"{name}.safetensors")
    _, notes = merge(pair, method="ties", base="base.safetensors", models=("a.safetensors",), weights=(1.0,))
    assert notes == ["ties computes in float32: 1 float64 tensors were rounded to it"]


# What is written beside the weights


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", None])
def test_the_config_names_the_type_that_was_written(pair, dtype):
    for name in ("m0", "m1"):
        rewrite(pair / name, lambda own: {key: leaf.astype(ml_dtypes.bfloat16) for key, leaf in own.items()})
        edit_config(pair / name, torch_dtype="float32", text_config={"torch_dtype": "float32", "depth": 2})
    found, _ = merge(pair, dtype=dtype)
    config = json.loads((pair / "out" / "config.json").read_text())
    assert {str(leaf.dtype) for leaf in found.values()} == {dtype or "bfloat16"}
    assert config["torch_dtype"] == config["text_config"]["torch_dtype"] == (dtype or "bfloat16")
    assert config["text_config"]["depth"] == 2


def test_all_that_belongs_to_a_model_is_copied_and_nothing_else(pair):
    kept = {
        *("chat_template.jinja", "additional_chat_templates/tool.jinja", "generation_config.json", "qwen.tiktoken"),
        *("spiece.model", "vocab.bpe", "merges.txt", "preprocessor_config.json", "sentence_bert_config.json"),
        *("config_sentence_transformers.json", "modules.json", "1_Pooling/config.json", "3_Normalize/config.json"),
        *("tokenizer.spm", "tokenizer.model.v3", "vocab.txt.gz"),
    }
    left = {
        *("modeling_own.py", "run.sh", "own.so", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"),
        *(
            "trainer_state.json",
            "pytorch_model.bin",
            "README.md",
            "checkpoint-5/config.json",
            "runs/events.out.tfevents.1",
        ),
        *("hook.wasm", "job.CMD", "own.rb", "labels.pkl.gz", "tokenizer.json.py"),
        *(".gitattributes", "model.onnx", "pytorch_model.bin.index.json", "3_Normalize/own.py"),
    }
    for name in kept | left:
        path = pair / "m0" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    (pair / "m0" / "program").write_bytes(b"#!/bin/sh\n")
    (pair / "m0" / "packed").write_bytes(b"PK\x03\x04...")
    (pair / "m0" / "compiled").write_bytes(b"\x00asm\x01...")
    modules = [{"path": ""}, {"path": "1_Pooling"}, {"path": "2_Dense"}, {"path": "3_Normalize"}]
    for name, value in (("m0", 1.0), ("m1", 3.0)):
        (pair / name / "modules.json").write_text(json.dumps(modules))
        (pair / name / "2_Dense").mkdir()
        (pair / name / "2_Dense" / "config.json").write_text("{}")
        save_file({"linear.weight": np.full((2, 2), value, np.float32)}, pair / name / "2_Dense" / "model.safetensors")
    merge(pair)
    found = {str(file.relative_to(pair / "out")) for file in (pair / "out").rglob("*") if file.is_file()}
    own = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}
    assert found == kept | own | {"2_Dense/config.json", "2_Dense/model.safetensors"}
    # A module's weights are merged like the others.
    np.testing.assert_array_equal(load_file(pair / "out" / "2_Dense" / "model.safetensors")["linear.weight"], 2.0)


def test_settings_that_all_members_share_take_the_place_of_the_bases(pair, tiny):
    write(tiny, pair / "base", 9, scale=0.0)
    rewrite(
        pair / "base", lambda own: own | {HEAD: np.zeros((3, 16), np.float32), "classifier.bias": np.zeros(3, "f4")}
    )
    named(pair / "base", LABELS)
    for name in ("m0", "m1"):
        (pair / name / "chat_template.jinja").write_text("theirs")
        (pair / name / "generation_config.json").write_text(json.dumps({"eos_token_id": int(name[1])}))
    (pair / "base" / "generation_config.json").write_text(json.dumps({"eos_token_id": 7}))
    merge(pair, method="task_arithmetic", base="base")
    assert (pair / "out" / "chat_template.jinja").read_text() == "theirs"
    assert json.loads((pair / "out" / "generation_config.json").read_text()) == {"eos_token_id": 7}


@pytest.mark.parametrize("where", ["../m1", "/tmp", "..", "a/b"])
def test_modules_outside_the_folder_are_refused(pair, where):
    (pair / "m0" / "modules.json").write_text(json.dumps([{"path": where}]))
    assert "expected folders beside it, found" in refusal(pair)


def test_a_modules_weights_in_a_pickle_are_refused(pair):
    (pair / "m0" / "modules.json").write_text(json.dumps([{"path": "2_Dense"}]))
    (pair / "m0" / "2_Dense").mkdir()
    (pair / "m0" / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    assert "2_Dense: found pytorch_model.bin but no model.safetensors" in refusal(pair)


def test_the_command_forces_only_when_told(pair, capsys):
    edit_config(pair / "m1", num_attention_heads=4)
    recipe = {"merge_method": "linear", "models": [{"model": "m0"}, {"model": "m1"}], "parameters": {"weight": 1}}
    (pair / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["merge", "--recipe=recipe.yaml", "--to=out"]) == 1
    assert "num_attention_heads is 4 in m1" in capsys.readouterr().err
    assert main(["merge", "--recipe=recipe.yaml", "--to=out", "--force"]) == 0
    assert capsys.readouterr().out.startswith("let through by --force: config num_attention_heads is 4 in m1")
    assert main(["merge", "--store=x", "--to=out2", "--force"]) == 1
    assert "--force is for --recipe without --store" in capsys.readouterr().err
