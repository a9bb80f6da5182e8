"""Checkpoints of one's own, from PyTorch to PyTorch: fine-tuned, imported, mapped, merged, exported, loaded."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from models_support import one_a_row, random_params

from wsr.cli import main
from wsr.exchange.named_point import open_point
from wsr.geometry.linear_head import logits
from wsr.geometry.trees import flatten, nest
from wsr.models import build
from wsr.models.huggingface.folder import write_folder
from wsr.models.huggingface.heads import TANH_CLASSIFIERS, linear_classifier
from wsr.store import Store

pytestmark = pytest.mark.torch
TEXT = [2, 40, 41, 50, 60, 3]
SIZES = {
    "vocab_size": 108,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
}
MEMBERS = ("made_up_a1-s0", "made_up_a1-s1", "made_up_b1-s0")


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


@pytest.fixture(scope="module", params=["bert", "roberta"])
def folders(request, torch, tiny, tmp_path_factory):
    """A base, three classifiers fine-tuned from it, and one of another pretraining."""
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

    place = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, **SIZES, id2label={0: "bad", 1: "good", 2: "so so"})
    AutoModel.from_config(config, add_pooling_layer=False).save_pretrained(place / "base")
    for number, name in enumerate((*MEMBERS, "outsider")):
        model = AutoModelForSequenceClassification.from_config(config)
        if name != "outsider":
            base = AutoModel.from_pretrained(place / "base", add_pooling_layer=False)
            model.base_model.load_state_dict(base.state_dict(), strict=False)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(number)
        for _ in range(4):
            ids = torch.randint(5, 108, (8, 10), generator=generator)
            labels = torch.randint(0, 3, (8,), generator=generator)
            optimiser.zero_grad()
            model(input_ids=ids, labels=labels).loss.backward()
            optimiser.step()
        model.save_pretrained(place / name)
    for folder in place.iterdir():
        tiny.processor.save_pretrained(folder)
    return place


@pytest.fixture(scope="module")
def store(folders):
    """The three members, imported; the outsider, refused."""
    paths = [str(folders / name) for name in (*MEMBERS, "outsider")]
    assert main(["import", *paths, f"--store={folders / 'store'}", f"--base={folders / 'base'}"]) == 1
    return Store.open(folders / "store")


def features_of(torch, model):
    with torch.no_grad():
        return model.eval()(torch.tensor([TEXT])).last_hidden_state[0, 0].numpy()


def logits_of(torch, model):
    with torch.no_grad():
        return model.eval()(torch.tensor([TEXT])).logits[0].numpy()


def our_features(store, params):
    model = build(store.model_name, store.model_config)
    batch = one_a_row([(TEXT, [0] * len(TEXT))], len(TEXT))
    return np.asarray(model.encode(jax.tree.map(jnp.asarray, params), batch)[0])


def test_what_was_fine_tuned_is_what_is_in_the_store(torch, folders, store):
    from transformers import AutoModel

    assert store.names() == sorted(MEMBERS)
    assert [record.dataset for record in store.records()] == ["made_up_a1", "made_up_a1", "made_up_b1"]
    assert {record.family for record in store.records()} == {"made_up_a", "made_up_b"}
    for name in MEMBERS:
        theirs = AutoModel.from_pretrained(folders / name, add_pooling_layer=False)
        np.testing.assert_allclose(our_features(store, store.load(name)[0]), features_of(torch, theirs), atol=1e-5)


def test_they_are_mapped(folders, store):
    assert main(["map", f"--store={store.path}", f"--out={folders / 'map'}"]) == 0
    with (folders / "map" / "similarity.csv").open() as file:
        header, *rows = csv.reader(file)
    assert sorted(header) == sorted(MEMBERS)
    np.testing.assert_allclose([float(row[number]) for number, row in enumerate(rows)], 1, atol=1e-6)


def test_an_outsider_is_told_from_a_member(folders, store, capsys):
    assert main(["check", str(folders / "outsider"), f"--store={store.path}", f"--out={folders / 'check'}"]) == 1
    assert "not fine-tuned from this base" in capsys.readouterr().err
    assert main(["check", str(folders / MEMBERS[0]), f"--store={store.path}", f"--out={folders / 'check'}"]) == 0
    assert MEMBERS[0] in capsys.readouterr().out


@pytest.mark.parametrize("point", ["centroid", "made_up_a1-s0=0.75,made_up_b1-s0=-0.5"])
def test_a_point_loads_back_with_our_features(torch, folders, store, point):
    from transformers import AutoModel

    folder = folders / f"out-{point}"
    assert main(["export", point, f"--store={store.path}", f"--to={folder}"]) == 0
    theirs, info = AutoModel.from_pretrained(folder, add_pooling_layer=False, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    alike = dict.fromkeys(MEMBERS, 1 / 3)
    coefficients = alike if point == "centroid" else {"made_up_a1-s0": 0.75, "made_up_b1-s0": -0.5}
    base = flatten(store.base())
    params = {path: np.array(leaf, np.float64) for path, leaf in base.items()}
    for name, coefficient in coefficients.items():
        for path, leaf in flatten(store.load(name)[0]).items():
            params[path] += coefficient * (leaf.astype(np.float64) - base[path])
    expected = nest({path: leaf.astype(np.float32) for path, leaf in params.items()})
    np.testing.assert_allclose(features_of(torch, theirs), our_features(store, expected), atol=1e-5)


def test_a_merge_is_the_exported_centroid(torch, folders, store):
    from safetensors.numpy import load_file

    assert main(["merge", f"--store={store.path}", f"--to={folders / 'merged'}"]) == 0
    assert main(["export", "centroid", f"--store={store.path}", f"--to={folders / 'centroid'}"]) == 0
    merged, centroid = (load_file(folders / name / "model.safetensors") for name in ("merged", "centroid"))
    assert merged.keys() == centroid.keys()
    for name, tensor in merged.items():
        np.testing.assert_allclose(tensor, centroid[name], atol=1e-6)


def test_a_member_with_its_head_is_the_classifier_it_was(torch, folders, store):
    from transformers import AutoModelForSequenceClassification

    name = MEMBERS[0]
    assert main(["export", name, "--head", f"--store={store.path}", f"--to={folders / 'classifier'}"]) == 0
    before = AutoModelForSequenceClassification.from_pretrained(folders / name)
    after, info = AutoModelForSequenceClassification.from_pretrained(folders / "classifier", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    np.testing.assert_allclose(logits_of(torch, after), logits_of(torch, before), atol=1e-6)
    assert after.config.id2label == {0: "bad", 1: "good", 2: "so so"}
    assert main(["export", "centroid", "--head", f"--store={store.path}", f"--to={folders / 'no'}"]) == 1
    assert not (folders / "no").exists()


def test_several_shards_hold_the_same_and_load(torch, folders, store, tiny):
    from safetensors import safe_open
    from transformers import AutoModel

    model = build(store.model_name, store.model_config)
    leaf = open_point(store, {MEMBERS[1]: 1.0})
    write_folder(model, leaf, tiny.processor, folders / "one")
    write_folder(model, leaf, tiny.processor, folders / "shards", shard_bytes=8_000)
    files = sorted((folders / "shards").glob("model-*.safetensors"))
    assert len(files) > 2
    assert not (folders / "shards" / "model.safetensors").exists()
    index = json.loads((folders / "shards" / "model.safetensors.index.json").read_text())
    found = {}
    for path in files:
        with safe_open(path, "np") as file:
            assert file.metadata() == {"format": "pt"}
            for name in file.keys():  # noqa: SIM118  # not a dict
                assert index["weight_map"][name] == path.name
                found[name] = file.get_tensor(name)
    with safe_open(folders / "one" / "model.safetensors", "np") as file:
        whole = file.get_tensors()
    assert found.keys() == whole.keys()
    assert all(np.array_equal(found[name], whole[name]) for name in whole)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    theirs = AutoModel.from_pretrained(folders / "shards", add_pooling_layer=False)
    expected = our_features(store, store.load(MEMBERS[1])[0])
    np.testing.assert_allclose(features_of(torch, theirs), expected, atol=1e-5)


@pytest.mark.parametrize("hidden_head", [False, True])
@pytest.mark.parametrize(("kind", "classes"), [*((kind, 3) for kind in TANH_CLASSIFIERS), ("bert", 1)])
def test_a_head_of_ours_as_a_classifier_of_theirs(torch, tiny, tmp_path, kind, classes, hidden_head):
    from transformers import AutoModelForSequenceClassification

    from wsr.models import architectures

    name = next(
        own for own, kept in architectures().items() if kept.counterpart and kept.counterpart.model_type == kind
    )
    model = build(name, {**architectures()[name].example, "vocab_size": 108, "pooling": "cls"})
    params = random_params(model)
    random = np.random.default_rng(0)
    head = {
        "kernel": random.standard_normal((model.hidden, classes), np.float32),
        "bias": random.standard_normal(classes).astype(np.float32),
    }
    if hidden_head:
        head["dense_kernel"] = random.standard_normal((model.hidden, model.hidden), np.float32)
        head["dense_bias"] = random.standard_normal(model.hidden).astype(np.float32)
    leaves = flatten(params)
    write_folder(model, leaves.get, tiny.processor, tmp_path / "out", head=linear_classifier(model, head))
    theirs, info = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    our_own = model.encode(params, one_a_row([(TEXT, [0] * len(TEXT))], len(TEXT)))[0]
    features = np.asarray(our_own, np.float64)
    if hidden_head:
        features = np.tanh(features @ head["dense_kernel"] + head["dense_bias"])
    expected = features @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(logits_of(torch, theirs), expected, atol=1e-5)
    np.testing.assert_allclose(logits(our_own[None], head)[0], expected, atol=1e-5)
