"""``wsr merge --recipe`` lets in what ``wsr import`` lets in: folders of others, merged, aligned or refused."""

import json
import shutil
import struct

import ml_dtypes
import numpy as np
import pytest
from incoming_folders import edit_config, rewrite, write, write_independent
from safetensors.numpy import load_file, save_file

from wsr import models
from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.member import read_member
from wsr.merging.files import merge_files
from wsr.merging.recipe import read_recipe

LABELS = ("negative", "neutral", "positive")
HEAD = "classifier.weight"


@pytest.fixture(scope="module")
def originals(tiny, tmp_path_factory):
    """Two classifiers of three classes, fine-tuned from the tiny checkpoint."""
    place = tmp_path_factory.mktemp("originals")
    for number, name in enumerate(("m0", "m1")):
        write(tiny, place / name, number + 1)
        head = np.random.default_rng(number).standard_normal((3, 17)).astype(np.float32)
        added = {HEAD: head[:, :16].copy(), "classifier.bias": head[:, 16].copy()}
        rewrite(place / name, lambda tensors, added=added: tensors | added)
        named(place / name, LABELS)
    return place


@pytest.fixture
def pair(originals, tmp_path, monkeypatch):
    """A copy of the two classifiers, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("m0", "m1"):
        shutil.copytree(originals / name, tmp_path / name)
    return tmp_path


def named(folder, labels, **more):
    numbered = {str(number): label for number, label in enumerate(labels)}
    edit_config(folder, id2label=numbered, architectures=["BertForSequenceClassification"], **more)


def merge(place, *, method="linear", models=("m0", "m1"), weights=(1.0, 1.0), base=None, dtype=None, force=False):
    """The tensors of the merge, and what it told."""
    listed = [{"model": m, "parameters": {"weight": w}} for m, w in zip(models, weights, strict=True)]
    recipe = {"merge_method": method, "models": listed} | ({"base_model": base} if base else {})
    (place / "recipe.yaml").write_text(json.dumps(recipe | ({"dtype": dtype} if dtype else {})))
    how = {"force": True} if force else {}
    notes = merge_files(read_recipe(place / "recipe.yaml"), place / "out", **how)
    return load_file(place / "out" / "model.safetensors"), notes


def refusal(place, **how):
    with pytest.raises(WsrError) as caught:
        merge(place, **how)
    assert "\n" not in str(caught.value)
    assert not [path for path in place.iterdir() if "out" in path.name]
    return str(caught.value)


# Classes


@pytest.mark.parametrize("head", ["classifier", "classifier.out_proj", "score", "bert.classifier"])
def test_rows_of_a_classifier_are_matched_by_the_names_of_their_classes(pair, head):
    for name in ("m0", "m1"):
        rewrite(pair / name, lambda own: {key.replace("classifier", head): leaf for key, leaf in own.items()})
    theirs = load_file(pair / "m1" / "model.safetensors")
    moved = [2, 0, 1]
    rewrite(pair / "m1", lambda own: {k: leaf[moved].copy() if k.startswith(head) else leaf for k, leaf in own.items()})
    named(pair / "m1", [LABELS[number].upper() for number in moved])
    ours = load_file(pair / "m0" / "model.safetensors")
    found, notes = merge(pair)
    for name, leaf in found.items():
        np.testing.assert_allclose(leaf, (ours[name] + theirs[name]) / 2, atol=1e-6, err_msg=name)
    assert notes == ["the classes of m1 stand in another order than in m0: matched by their names"]
    assert json.loads((pair / "out" / "config.json").read_text())["id2label"]["0"] == "negative"


@pytest.mark.parametrize("labels", [("bad", "so so", "good"), ("LABEL_0", "LABEL_1", "LABEL_2"), None])
def test_classes_of_other_names_are_refused(pair, labels):
    named(pair / "m1", labels or ())
    if labels is None:
        edit_config(pair / "m1", id2label=None)
    assert "in m1 and negative, neutral, positive in m0; --force merges them" in refusal(pair)
    _, notes = merge(pair, force=True)
    assert notes[0].startswith("let through by --force: the classes are ")


def test_names_of_classes_do_not_matter_without_a_classifier(pair):
    for name in ("m0", "m1"):
        rewrite(pair / name, lambda own: {key: leaf for key, leaf in own.items() if "classifier" not in key})
        named(pair / name, ("a", "b") if name == "m0" else ("b", "c"))
        edit_config(pair / name, architectures=["BertModel"])
    assert merge(pair)[1] == []


# What models compute


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_attention_heads": 4}, "config num_attention_heads is 4 in m1 and 2 in m0"),
        ({"hidden_act": "relu"}, "config hidden_act is 'relu' in m1 and 'gelu' in m0"),
        ({"layer_norm_eps": 1e-3}, "config layer_norm_eps is 0.001 in m1 and 1e-12 in m0"),
        ({"model_type": "unheard_of"}, "config model_type is 'unheard_of' in m1 and 'bert' in m0"),
    ],
)
def test_other_computations_are_refused(pair, change, told):
    edit_config(pair / "m1", **change)
    assert told in refusal(pair)
    assert told in merge(pair, force=True)[1][0]


def test_what_does_not_change_the_computation_may_differ(pair):
    edit_config(pair / "m1", hidden_dropout_prob=0.3, use_cache=False, _name_or_path="x", transformers_version="4.1.0")
    edit_config(pair / "m1", output_past=True, language="en", eos_token_id=[3, 4])
    config = json.loads((pair / "m1" / "config.json").read_text())
    del config["layer_norm_eps"]  # its default
    (pair / "m1" / "config.json").write_text(json.dumps(config))
    assert merge(pair)[1] == []


def test_configs_of_an_unknown_architecture_are_compared_as_they_are(pair):
    for name in ("m0", "m1"):
        edit_config(pair / name, model_type="unheard_of", gates=3)
    assert merge(pair)[1] == []
    (pair / "out").rename(pair / "first")
    edit_config(pair / "m1", gates=4)
    assert "config gates is 4 in m1 and 3 in m0" in refusal(pair)


def test_another_vocabulary_is_refused(pair):
    path = pair / "m1" / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(content))
    assert "is 'b' in m1 and 'a' in m0 (and 1 more)" in refusal(pair)


def test_a_tokenizer_that_splits_texts_otherwise_is_refused_and_told_at_import(pair, tiny):
    path = pair / "m1" / "tokenizer.json"
    content = json.loads(path.read_text())
    # Neither a cut nor new names for the same thing make a difference.
    path.write_text(json.dumps({**content, "truncation": None, "padding": None}, indent=1))
    assert merge(pair)[1] == []
    (pair / "out").rename(pair / "first")
    assert not [note for note in read_member(pair / "m1", tiny).notes if "tokenizer" in note]
    content["normalizer"]["lowercase"] = False
    path.write_text(json.dumps(content))
    told = refusal(pair)
    assert (
        "the tokenizers of m1 (there) and m0 (here) have the same tokens, but 'The' is split into '[UNK]' there" in told
    )
    (note,) = [note for note in read_member(pair / "m1", tiny).notes if "tokenizer" in note]
    assert "'The' is split into '[UNK]' there" in note
    content["normalizer"]["lowercase"] = True
    content["normalizer"]["strip_accents"] = False
    path.write_text(json.dumps(content))
    assert "Café's" in refusal(pair)


@pytest.mark.parametrize("base", [None, "base"])
def test_another_base_is_refused(pair, tiny, base):
    write(tiny, pair / "base", 9, scale=0.0)
    for name in ("m0", "m1"):
        shutil.rmtree(pair / name)
    write(tiny, pair / "m0", 1)
    write_independent(tiny, pair / "m1", 5)
    method = "task_arithmetic" if base else "linear"
    assert "were not fine-tuned from one base: their matrices have a median cosine of" in refusal(
        pair, method=method, base=base
    )
    assert "were not fine-tuned from one base" in merge(pair, method=method, base=base, force=True)[1][0]


# What is not read


def test_links_that_leave_a_folder_are_not_followed(pair):
    (pair / "secret.json").write_text('{"password": "x"}')
    for link in ("notes.json", "1_Pooling/notes.json"):
        (pair / "m0" / link).symlink_to(pair / "secret.json")
        assert f"links out of the folder are not followed: {link}" in refusal(pair)
        (pair / "m0" / link).unlink()
    merge(pair)


@pytest.mark.parametrize("link", ["adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json"])
def test_links_that_leave_the_folder_of_an_adapter_or_a_tokenizer_are_not_followed(pair, capsys, link):
    (pair / "secret.json").write_text('{"peft_type": "password"}')
    shutil.copytree(pair / "m1", pair / "own")
    (pair / "own" / link).unlink(missing_ok=True)
    (pair / "own" / link).symlink_to(pair / "secret.json")
    assert f"own: links out of the folder are not followed: {link}" in refusal(pair, models=("m0", "m1+own"))
    recipe = {"merge_method": "linear", "models": [{"model": "m0"}, {"model": "m1"}], "parameters": {"weight": 1}}
    (pair / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["merge", "--recipe=recipe.yaml", "--to=out", "--tokenizer=own"]) == 1
    assert f"own: links out of the folder are not followed: {link}" in capsys.readouterr().err


def test_nan_infinity_and_overflow_are_refused(pair):
    rewrite(pair / "m1", lambda own: own | {HEAD: np.full((3, 16), 1e5, np.float32)})
    told = refusal(pair, weights=(0.0, 1.0), dtype="float16")
    assert told.startswith(f"{HEAD}: its largest value, 100000, is beyond float16")
    for value in (np.nan, np.inf):
        rewrite(pair / "m1", lambda own, value=value: own | {HEAD: np.full((3, 16), value, np.float32)})
        for method, base in (("linear", None), ("ties", "m0")):
            told = refusal(pair, method=method, base=base, force=True)
            assert f"m1: a broken run: NaN or infinity in {HEAD}" in told


def test_folders_may_have_plus_signs_in_their_names(pair):
    (pair / "mean+cls").mkdir()
    for name in ("m0", "m1"):
        (pair / name).rename(pair / "mean+cls" / name)
    merge(pair, models=("mean+cls/m0", "mean+cls/m1"))
    (pair / "out").rename(pair / "first")
    told = refusal(pair, models=("mean+cls/m0", "mean+cls/m1+cls"))
    assert "cls/adapter_config.json: no such file" in told


def test_an_adapter_is_told_what_to_do_with(pair):
    (pair / "m1" / "adapter_config.json").write_text("{}")
    assert "m1: a LoRA adapter, not a whole model; import it into a store" in refusal(pair)
    save_file({"base_model.model.x.lora_A.weight": np.ones((2, 2), np.float32)}, pair / "adapter.safetensors")
    assert "adapter.safetensors: a LoRA adapter" in refusal(pair, models=("m0", "adapter.safetensors"))


def raw_file(path, tensors):
    """A safetensors file with tensors of any type: ``(dtype, shape, bytes)`` by name."""
    header, body = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(body), len(body) + len(content)]}
        body += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "NEW"])
def test_types_that_are_not_read_are_refused_by_name(pair, tiny, dtype):
    path = pair / "m1" / "model.safetensors"
    raw_file(path, {"w": (dtype, [4], b"1234"), "v": ("F32", [1], b"1234")})
    assert f"m1/model.safetensors: types that are not read: w ({dtype}); weights are read as float32" in refusal(pair)
    with pytest.raises(WsrError, match=r"types that are not read: w"):
        read_member(pair / "m1", tiny)


@pytest.mark.parametrize("dtype", ["U16", "U32", "U64", "C64", "I64", "BOOL"])
def test_buffers_that_are_equal_are_kept(pair, dtype):
    size = {"U16": 2, "U32": 4, "BOOL": 1}.get(dtype, 8)
    one = np.float32(1).tobytes()
    for name, content in (("a", b"\x01" * size), ("b", b"\x01" * size), ("c", b"\x00" * size)):
        raw_file(pair / f"{name}.safetensors", {"w": ("F32", [1], one), "n": (dtype, [1], content)})
    merge(pair, models=("a.safetensors", "b.safetensors"))
    header = (pair / "out" / "model.safetensors").read_bytes()
    assert f'"dtype":"{dtype}"'.encode() in header
    assert header.count(b"\x01" * size) >= 1
    (pair / "out").rename(pair / "first")
    told = refusal(pair, models=("a.safetensors", "c.safetensors"))
    assert "n is not a float tensor and differs between a.safetensors and c.safetensors" in told


@pytest.mark.parametrize("name", ["layer.weight", "layer.qweight", "layer.weight_packed"])
def test_quantised_weights_are_refused(pair, name):
    for own in ("a", "b"):
        save_file({name: np.ones((2, 2), np.int8), "v": np.ones(2, np.float32)}, pair / f"{own}.safetensors")
    assert f"quantised weights are not merged ({name} is I8)" in refusal(
        pair, models=("a.safetensors", "b.safetensors")
    )
    edit_config(pair / "m1", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "quantised weights are not merged (its config names gptq)" in refusal(pair)


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": 7},
        {"architectures": "BertModel"},
        {"id2label": ["a"]},
        {"id2label": {"x": 1}},
        {"num_labels": 10**12},
    ],
)
def test_a_config_of_wrong_kinds_is_refused_by_both_verbs(pair, tiny, change):
    edit_config(pair / "m1", **change)
    assert "m1/config.json: not a valid config: " in refusal(pair)
    for read in (lambda: read_member(pair / "m1", tiny), lambda: models.load(pair / "m1")):
        with pytest.raises(WsrError, match="not a valid config"):
            read()


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
