"""``wsr merge --recipe`` lets in what ``wsr import`` lets in: folders of others are compared, or refused."""

import json
import shutil
import struct

import numpy as np
import pytest
from classifiers import HEAD, LABELS, merge, named, refusal
from incoming_folders import edit_config, rewrite, write, write_independent
from safetensors.numpy import load_file, save_file

from wsr import models
from wsr.cli import main
from wsr.errors import WsrError
from wsr.exchange.member import read_member

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
