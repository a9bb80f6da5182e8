"""``flax_model.msgpack`` of transformers 4, made here by the kinds of PyTorch's modules, against PyTorch."""

import json

import numpy as np
import pytest
from clip_world import whole, write_whole
from flax import serialization, traverse_util
from incoming_folders import near, write
from oracles import counterpart, their_config
from safetensors.numpy import load_file

import wsr
from wsr import models
from wsr.cli import main
from wsr.engine.zero_shot import zero_shot_head
from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models.huggingface.config import to_config
from wsr.models.huggingface.flax_msgpack import open_flax
from wsr.models.huggingface.weights import to_huggingface

VOCABULARY = 128
FLAX = ("albert", "bert", "distilbert", "electra", "gpt2", "llama", "roberta", "t5", "vit")
"""Architectures that transformers 4 had in Flax."""


def in_flax(torch, model):
    """The parameters as Flax names and lays them, by the kind of each module."""
    from transformers.pytorch_utils import Conv1D

    found = {}
    for name, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            values, last = parameter.detach().numpy(), own
            if own == "weight" and isinstance(module, (torch.nn.Linear, Conv1D)):
                values, last = values.T, "kernel"
            elif own == "weight" and isinstance(module, torch.nn.Conv2d):
                values, last = values.transpose(2, 3, 1, 0), "kernel"
            elif own == "weight" and isinstance(module, torch.nn.Embedding):
                last = "embedding"
            elif own == "weight" and isinstance(module, torch.nn.LayerNorm):
                last = "scale"
            found[(*filter(None, name.split(".")), last)] = np.array(values, order="C")
    return traverse_util.unflatten_dict(found)


def write_flax(folder, tree):
    (folder / "model.safetensors").unlink(missing_ok=True)
    (folder / "flax_model.msgpack").write_bytes(serialization.msgpack_serialize(tree))


@pytest.mark.torch
@pytest.mark.parametrize("name", FLAX)
def test_a_flax_model_has_the_weights_of_its_pytorch_model(tiny, tmp_path, name):
    """The oracle is the same model saved as safetensors; other tests compare its hidden states with PyTorch's."""
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    import transformers

    torch.manual_seed(0)
    kin = models.load("tiny_vit") if name == "vit" else tiny
    config = to_config(kin.model) if name == "vit" else their_config(name, vocab_size=VOCABULARY)
    theirs = getattr(transformers, counterpart(name).model_class)(config)
    theirs.save_pretrained(tmp_path)
    kin.processor.save_pretrained(tmp_path)
    expected = models.load(str(tmp_path))
    write_flax(tmp_path, in_flax(torch, theirs))
    found = models.load(str(tmp_path))
    assert found.model.config == expected.model.config
    leaves = flatten(expected.params)
    assert flatten(found.params).keys() == leaves.keys()
    for path, own in flatten(found.params).items():
        np.testing.assert_array_equal(own, leaves[path], err_msg=path)


@pytest.mark.torch
def test_a_flax_clip_has_the_weights_of_its_pytorch_model(tiny, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    folder = write_whole(tiny, tmp_path / "clip")
    expected, head = models.load(str(folder)), zero_shot_head(models.load(str(folder)), ["a", "b"], ["{}"])
    write_flax(folder, in_flax(torch, whole()))
    found = models.load(str(folder))
    for path, own in flatten(found.params).items():
        np.testing.assert_array_equal(own, flatten(expected.params)[path], err_msg=path)
    again = zero_shot_head(found, ["a", "b"], ["{}"])
    np.testing.assert_array_equal(again.kernel, head.kernel)
    assert again.scale == head.scale


@pytest.fixture
def flax_folder(tiny, tmp_path):
    """A model near the tiny checkpoint, as a Flax folder, and its parameters."""
    folder = write(tiny, tmp_path / "flax", 1)
    tree = {}
    for name, own in load_file(folder / "model.safetensors").items():
        *module, last = name.split(".")
        kind = "scale" if "LayerNorm" in name else "embedding" if "embeddings" in name else "kernel"
        tree[(*module, kind if last == "weight" else last)] = own.T if last == "weight" and kind == "kernel" else own
    write_flax(folder, traverse_util.unflatten_dict(tree))
    return folder


def test_a_flax_model_is_imported_exported_and_merged(tiny, tmp_path, flax_folder):
    expected = to_huggingface(tiny.model, near(tiny.params, 1))
    assert main(["import", str(flax_folder), f"--store={tmp_path / 'store'}", "--base=tiny", "--dataset=a"]) == 0
    assert main(["export", "flax", f"--store={tmp_path / 'store'}", f"--to={tmp_path / 'out'}"]) == 0
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, own in expected.items():
        np.testing.assert_array_equal(exported[name], own, err_msg=name)

    write(tiny, tmp_path / "other", 2)
    merged = [{"model": str(own), "parameters": {"weight": 1}} for own in (flax_folder, tmp_path / "other")]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"merge_method": "linear", "models": merged}))
    assert main(["merge", f"--recipe={tmp_path / 'recipe.yaml'}", f"--to={tmp_path / 'merged'}"]) == 0
    other, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("other", "merged"))
    assert not (tmp_path / "merged" / "flax_model.msgpack").exists()
    for name, own in expected.items():
        np.testing.assert_allclose(merged[name], (own + other[name]) / 2, atol=1e-6, err_msg=name)


def test_half_precision_and_names_that_do_not_fit(tiny, tmp_path, flax_folder):
    tree = serialization.msgpack_restore((flax_folder / "flax_model.msgpack").read_bytes())
    half = traverse_util.path_aware_map(lambda path, leaf: np.asarray(leaf).astype("bfloat16"), tree)
    write_flax(flax_folder, half)
    leaf = flatten(wsr.load(flax_folder).params)["layers/0/attention/query/kernel"]
    own = flatten(near(tiny.params, 1))["layers/0/attention/query/kernel"]
    np.testing.assert_array_equal(leaf, own.astype("bfloat16").astype(np.float32))
    write_flax(flax_folder, {**tree, "decoder": {"kernel_of_another": np.ones(3, np.float32)}})
    with pytest.raises(WsrError, match=r"unexpected decoder\.kernel_of_another"):
        wsr.load(flax_folder)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04K\x01.", b"no", serialization.msgpack_serialize({"a": {"b": "text"}})]
)
def test_what_is_no_table_of_arrays_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "flax_model.msgpack").write_bytes(content)
    with pytest.raises(
        WsrError, match=r"flax_model\.msgpack: (not readable as a Flax model|expected a nested table)"
    ) as error:
        open_flax(tmp_path / "flax_model.msgpack")
    assert "\n" not in str(error.value)
