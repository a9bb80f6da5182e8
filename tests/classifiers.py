"""Two classifiers of three classes, fine-tuned from the tiny checkpoint, and recipes over them."""

import json
import shutil

import numpy as np
import pytest
from incoming_folders import edit_config, rewrite, write
from safetensors.numpy import load_file

from wsr.errors import WsrError
from wsr.merging.files import merge_files
from wsr.merging.recipe import read_recipe

LABELS = ("negative", "neutral", "positive")
HEAD = "classifier.weight"


def write_classifiers(tiny, place):
    """Writes the folders ``m0`` and ``m1``."""
    for number, name in enumerate(("m0", "m1")):
        write(tiny, place / name, number + 1)
        head = np.random.default_rng(number).standard_normal((3, 17)).astype(np.float32)
        added = {HEAD: head[:, :16].copy(), "classifier.bias": head[:, 16].copy()}
        rewrite(place / name, lambda tensors, added=added: tensors | added)
        named(place / name, LABELS)
    return place


def copied(originals, place):
    """Copies both folders."""
    for name in ("m0", "m1"):
        shutil.copytree(originals / name, place / name)
    return place


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
