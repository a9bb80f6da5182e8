"""A store needs no folder of its base, and what comes out of it is whole: names, settings, templates, cards."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from incoming_folders import edit_config, near, rewrite, write
from models_support import random_params
from safetensors.numpy import load_file, save_file
from test_store import record_of

from wsr import models
from wsr.cli import main
from wsr.exchange.head import head_of_base
from wsr.exchange.member import read_member
from wsr.exchange.model_card import model_card
from wsr.geometry.trees import flatten
from wsr.merging.files import merge_files
from wsr.merging.recipe import read_recipe
from wsr.models import Checkpoint
from wsr.store import Store

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
SETTINGS = {"eos_token_id": [3, 4], "temperature": 0.7}


def run(*words, fails=False):
    assert main([*map(str, words)]) == int(fails)


def example(name, **changes):
    config = {**models.architectures()[name].example, **changes}
    if "vocab_size" in config:
        config["vocab_size"] = 128
    return models.build(name, config)


def population(place, tiny, name, **changes):
    """A base, two members and a store of them, whose base is a folder named relative to ``place``."""
    processor = models.load("tiny_vit").processor if name == "vit" else tiny.processor
    if name == "vit":
        changes |= {"image_size": processor.size, "num_channels": processor.channels}
    model = example(name, **changes)
    base = Checkpoint(model, random_params(model), processor)
    models.export(base, place / "base")
    edit_config(place / "base", eos_token_id=[3, 4], own_attribute={"kept": True})
    (place / "base" / "generation_config.json").write_text(json.dumps(SETTINGS))
    (place / "base" / "chat_template.jinja").write_text(TEMPLATE)
    base = models.load(place / "base")
    for seed in (1, 2):
        models.export(replace(base, params=near(base.params, seed)), place / f"m{seed}")
    run("import", "m1", "m2", "--store=store", "--base=base", "--dataset=a,b")
    return base


# Without the folder of the base


@pytest.mark.parametrize(
    "name", ["bert", pytest.param("llama", marks=pytest.mark.long), pytest.param("vit", marks=pytest.mark.long)]
)
def test_a_store_needs_neither_the_folder_of_its_base_nor_its_working_directory(tiny, tmp_path, monkeypatch, name):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    base = population(tmp_path / "here", tiny, name)
    shutil.rmtree("base")
    (tmp_path / "here" / "store").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "there")
    store = tmp_path / "moved"
    run("export", "m1", f"--store={store}", "--to=m1")
    run("export", "centroid", f"--store={store}", "--to=centroid")
    run("merge", f"--store={store}", "--to=merged")
    run("check", "m1", f"--store={store}", "--out=check")
    recipe = {"merge_method": "task_arithmetic", "base_model": "base", "parameters": {"weight": 0.5}}
    listed = [{"model": "m1"}, {"model": "m1"}, {"model": "m2"}]
    (tmp_path / "there" / "recipe.yaml").write_text(json.dumps(recipe | {"models": listed}))
    run("merge", f"--store={store}", "--recipe=recipe.yaml", "--to=by-recipe")
    run("import", tmp_path / "here" / "m1", f"--store={store}", "--names=again")
    again = models.load("m1")
    assert again.model.config == base.model.config
    expected = flatten(near(base.params, 1))
    assert all(np.array_equal(leaf, expected[path]) for path, leaf in flatten(again.params).items())
    for folder in ("m1", "centroid", "merged"):
        place = tmp_path / "there" / folder
        config = json.loads((place / "config.json").read_text())
        assert config["own_attribute"] == {"kept": True}
        assert config["eos_token_id"] == [3, 4]
        assert json.loads((place / "generation_config.json").read_text()) == SETTINGS
        assert (place / "chat_template.jinja").read_text() == TEMPLATE


def test_a_replaced_tokenizer_is_told_and_the_stores_own_is_written(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    population(tmp_path, tiny, "bert")
    before = (tmp_path / "base" / "tokenizer.json").read_text()
    swapped = json.loads(before)
    words = swapped["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    (tmp_path / "base" / "tokenizer.json").write_text(json.dumps(swapped))
    for verb in (("export", "m1"), ("merge",)):
        capsys.readouterr()
        run(*verb, "--store=store", f"--to={verb[0]}")
        assert "tokenizer.json in ./base has changed since: the store's own copy is used" in capsys.readouterr().out
        assert (tmp_path / verb[0] / "tokenizer.json").read_text() == before
    # Changed inside the store, it is refused by every verb.
    (tmp_path / "store" / "base" / "companions" / "tokenizer.json").write_text(json.dumps(swapped))
    for verb in (("export", "m1"), ("merge",)):
        run(*verb, "--store=store", "--to=x", fails=True)
        assert "tokenizer.json was changed on disk: sha256 expected" in capsys.readouterr().err
    run("verify", "--store=store", fails=True)


def test_a_store_without_a_copy_reads_the_folder_of_its_base(tiny, tmp_path, capsys):
    store = Store.create(
        tmp_path / "store",
        model_name="tiny",
        model_config=dict(tiny.model.config),
        base_name="tiny",
        base_params=tiny.params,
    )
    assert store.companions() == {}
    assert store.checkpoint().processor.get_vocab() == tiny.processor.get_vocab()
    write(tiny, tmp_path / "m", 1)
    run("import", tmp_path / "m", f"--store={store.path}")
    run("export", "m", f"--store={store.path}", f"--to={tmp_path / 'out'}")
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_a_store_of_old_whose_base_is_gone_says_how_to_go_on(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tiny, tmp_path / "base", 0)
    base = models.load("base")
    known = {"model_name": "bert", "model_config": dict(base.model.config), "base_name": "base"}
    Store.create("store", **known, base_params=base.params)
    write(base, tmp_path / "m1", 1)
    run("import", "m1", "--store=store")
    (tmp_path / "base").rename("elsewhere")
    run("export", "m1", "--store=store", "--to=out", fails=True)
    assert "was made before stores kept the tokenizer: restore the base, or remove" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "store" / "base")
    run("import", "m1", "--store=store", "--base=elsewhere")
    shutil.rmtree("elsewhere")
    run("export", "m1", "--store=store", "--to=out")


def test_settings_that_all_members_share_take_the_place_of_the_bases(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    population(tmp_path, tiny, "bert")
    for name, eos in (("c1", 5), ("c2", 5), ("c3", 6)):
        shutil.copytree("m1", name)
        rewrite(
            tmp_path / name, lambda own, eos=eos, name=name: {k: v + len(name) * 1e-3 * eos for k, v in own.items()}
        )
        (tmp_path / name / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
        (tmp_path / name / "chat_template.jinja").write_text("own")
    run("import", "c1", "c2", "c3", "--store=store", "--dataset=a")
    for members, eos in (("c1,c2", 5), ("c1,c3", [3, 4]), ("c3", 6)):
        point = ",".join(f"{member}=0.5" for member in members.split(","))
        run("export", point, "--store=store", f"--to=out-{members}")
        found = json.loads((tmp_path / f"out-{members}" / "generation_config.json").read_text())
        assert found["eos_token_id"] == eos
        assert (tmp_path / f"out-{members}" / "chat_template.jinja").read_text() == "own"


# Names of tensors


@pytest.mark.parametrize(
    ("name", "changes", "prefix", "head"),
    [
        ("gpt2", {}, "transformer.", None),
        ("llama", {}, "model.", "lm_head.weight"),
        ("llama", {"tie_word_embeddings": True}, "model.", None),
        ("qwen2", {}, "model.", None),
        ("qwen3", {}, "model.", None),
        ("gemma", {}, "model.", None),
        ("gemma3_text", {"tie_word_embeddings": False, "language_model_head": True}, "model.", "lm_head.weight"),
    ],
)
def test_exports_of_decoders_have_the_names_of_their_class(tiny, tmp_path, name, changes, prefix, head):
    model = example(name, **changes)
    base = Checkpoint(model, random_params(model), tiny.processor)
    for seed in (1, 2):
        write(base, tmp_path / f"m{seed}", seed)
    names = set(load_file(tmp_path / "m1" / "model.safetensors"))
    assert {own for own in names if not own.startswith(prefix)} <= {"lm_head.weight"}
    if head:
        assert head in names
    # wsr's own recipe and its own import take them.
    models_of = [{"model": str(tmp_path / f"m{seed}"), "parameters": {"weight": 1}} for seed in (1, 2)]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"merge_method": "linear", "models": models_of}))
    merge_files(read_recipe(tmp_path / "recipe.yaml"), tmp_path / "merged")
    assert read_member(tmp_path / "merged", base).kinship.same_base


@pytest.mark.torch
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"])
def test_exports_of_decoders_load_without_a_word_from_transformers(tiny, tmp_path, name):
    pytest.importorskip("torch", reason="loads the export independently")
    from transformers import AutoModelForCausalLM

    model = example(name)
    models.export(Checkpoint(model, random_params(model), tiny.processor), tmp_path / "out")
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values())
    assert set(load_file(tmp_path / "out" / "model.safetensors")) <= set(theirs.state_dict())


def test_a_classifier_of_an_untied_language_model_has_no_language_modelling_head(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = example("llama")
    base = Checkpoint(model, random_params(model), tiny.processor)
    models.export(base, tmp_path / "base")
    write(base, tmp_path / "m1", 1)
    score = {"score.weight": np.ones((2, 16), np.float32)}
    rewrite(tmp_path / "m1", lambda own: {key: leaf for key, leaf in own.items() if key != "lm_head.weight"} | score)
    edit_config(tmp_path / "m1", architectures=["LlamaForSequenceClassification"])
    run("import", "m1", "--store=store", "--base=base", "--dataset=a")
    run("export", "m1", "--store=store", "--to=plain")
    assert "lm_head.weight" in load_file(tmp_path / "plain" / "model.safetensors")
    run("export", "m1", "--head", "--store=store", "--to=classifier")
    assert set(load_file("classifier/model.safetensors")) == set(load_file("m1/model.safetensors"))


# Tokens


def test_rows_of_new_tokens_in_a_padded_table_are_the_bases(tiny, tmp_path):
    from transformers import AutoTokenizer

    model = example("llama")
    base = Checkpoint(model, random_params(model), tiny.processor)
    found = []
    for seed, tokens in ((1, ["<a>"]), (2, ["<b>", "<c>"])):
        folder = write(base, tmp_path / f"m{seed}", seed)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(tokens)
        tokenizer.save_pretrained(folder)
        incoming = read_member(folder, base)
        told = ", ".join(map(repr, tokens))
        assert (
            f"{len(tokens)} new tokens in spare rows are not in the base ({told}): their rows are the base's"
            in incoming.notes
        )
        found.append((flatten(incoming.params), flatten(near(base.params, seed)), 108 + len(tokens)))
    ours = flatten(base.params)
    for leaves, moved, end in found:
        for path, leaf in leaves.items():
            if path in ("token/embedding", "head/kernel"):
                own, other, origin = (x[path].T if path == "head/kernel" else x[path] for x in (leaves, moved, ours))
                np.testing.assert_array_equal(own[108:end], origin[108:end])
                np.testing.assert_array_equal(own[:108], other[:108])
                np.testing.assert_array_equal(own[end:], other[end:])
            else:
                np.testing.assert_array_equal(leaf, moved[path])


# Many at once


def test_whatever_a_library_raises_becomes_one_line(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2, 3):
        write(tiny, tmp_path / f"m{seed}", seed)
    from wsr.exchange import importing

    def read(folder, base, read=importing.read_member):
        if folder.name == "m2":
            raise TypeError("what nobody\nforesaw")
        return read(folder, base)

    monkeypatch.setattr(importing, "read_member", read)
    run("import", "m1", "m2", "m3", "--store=store", "--base=tiny", "--dataset=a", fails=True)
    told = capsys.readouterr()
    assert "refused m2: TypeError: what nobody foresaw\n" in told.out
    assert told.err == "wsr: error: 1 of 3 models were refused, for the reasons above: m2\n"
    assert Store.open("store").names() == ["m1", "m3"]


# Cards


def test_the_parents_on_a_card_are_those_of_the_hub(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from huggingface_hub import ModelCard

    write(tiny, tmp_path / "owner" / "m1", 1)
    write(tiny, tmp_path / "owner" / "m2", 2)
    run("import", "owner/m1", "owner/m2", "--store=store", "--base=tiny", "--dataset=a")
    store = Store.open("store")
    # Folders that look like names of the hub, wherever the card is written.
    monkeypatch.chdir("/")
    assert ModelCard(_card(store, ["m1", "m2"])).data.base_model is None
    store.base_name = "owner/base"
    merged = ModelCard(_card(store, ["m1", "m2"])).data
    assert (merged.base_model, merged.base_model_relation) == ("owner/base", "finetune")
    assert "merge" in merged.tags
    hub = {name: replace(store.record(name), hyperparameters={"source": f"them/{name}"}) for name in ("m1", "m2")}
    monkeypatch.setattr(store, "record", hub.get)
    merged = ModelCard(_card(store, ["m1", "m2"])).data
    assert (merged.base_model, merged.base_model_relation) == (["them/m1", "them/m2"], "merge")
    one = ModelCard(_card(store, ["m1"])).data
    assert (one.base_model, one.base_model_relation) == ("owner/base", "finetune")


def _card(store, names):
    return model_card(store, dict.fromkeys(names), title="t", method="m", command="wsr x", licence="mit")


# Modules of SentenceTransformers


def sentence_transformer(folder, modules, pooling="mean"):
    (folder / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules])
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": pooling, "include_prompt": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8}))


def test_modules_without_weights_are_carried(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    for name, seed in (("base", 0), ("m1", 1)):
        write(tiny, tmp_path / name, seed)
        sentence_transformer(tmp_path / name, modules)
    run("import", "m1", "--store=store", "--base=base", "--dataset=a")
    run("export", "m1", "--store=store", "--to=out")
    assert "SentenceTransformer" not in capsys.readouterr().out
    for file in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "m1" / file).read_bytes()


@pytest.mark.parametrize(
    ("modules", "pooling", "told"),
    [
        (["Transformer", "Pooling", "LSTM"], "mean", "its module LSTM is not kept"),
        (["Transformer", "Pooling", "Dense"], "mean", "2_Dense/config.json, 2_Dense/model.safetensors is missing"),
        (
            ["Transformer", "Dense", "Pooling"],
            "mean",
            "its modules are Transformer, Dense, Pooling, not a Transformer, a",
        ),
        (["Transformer", "Pooling"], ["mean", "cls"], "the pooling mean and cls is not supported"),
        (["Transformer", "Pooling"], "cls", "its pooling is cls and that of the store is mean"),
    ],
)
def test_a_sentence_transformer_that_cannot_be_kept_is_refused(
    tiny, tmp_path, monkeypatch, capsys, modules, pooling, told
):
    monkeypatch.chdir(tmp_path)
    write(tiny, tmp_path / "m1", 1)
    listed = [(f"{number}_{kind}" if number else "", kind) for number, kind in enumerate(modules)]
    sentence_transformer(tmp_path / "m1", listed, pooling)
    assert main(["import", "m1", "--store=store", "--base=tiny", "--dataset=a"]) == 1
    error = capsys.readouterr().err
    assert f"as a SentenceTransformer it cannot be kept: {told}" in error.replace("m1/1_Pooling/config.json: ", "")
    assert "copy the folder without modules.json" in error


@pytest.mark.parametrize("name", ["own.LSTM", "own.Pooling", "sentence_transformers.models.LSTM"])
def test_a_module_of_other_code_is_not_kept(tiny, tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    write(tiny, tmp_path / "m1", 1)
    sentence_transformer(tmp_path / "m1", [("", "Transformer"), ("1_Pooling", "Pooling")])
    modules = json.loads((tmp_path / "m1" / "modules.json").read_text())
    (tmp_path / "m1" / "modules.json").write_text(json.dumps([*modules, {"path": "2_Own", "type": name}]))
    assert main(["import", "m1", "--store=store", "--base=tiny", "--dataset=a"]) == 1
    assert f"its module {name.removeprefix('sentence_transformers.models.')} is not kept" in capsys.readouterr().err


def test_a_base_whose_modules_are_not_kept_is_told(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("base", 0), ("m1", 1)):
        write(tiny, tmp_path / name, seed)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_LSTM", "LSTM")]
    sentence_transformer(tmp_path / "base", modules)
    run("import", "m1", "--store=store", "--base=base", "--dataset=a")
    assert "exports will not be the SentenceTransformer of base: its module LSTM" in capsys.readouterr().out


def test_a_store_keeps_the_head_of_its_base(tiny, tmp_path, monkeypatch):
    """An adapter of a classifier needs the base's pooler, also once the folder of the base is gone."""
    monkeypatch.chdir(tmp_path)
    base = Checkpoint(example("bert"), random_params(example("bert")), tiny.processor)
    models.export(base, "base")
    pooler = {"pooler.dense.weight": np.eye(16, dtype=np.float32), "pooler.dense.bias": np.arange(16, dtype=np.float32)}
    path = Path("base") / "model.safetensors"
    save_file(load_file(path) | pooler, path)
    store = Store.create_for("store", models.load("base"))
    store.save(record_of("m1"), near(base.params, 1), {"bias": np.zeros(2, np.float32)})
    shutil.rmtree("base")
    found = head_of_base(Store.open("store").checkpoint())
    assert found.keys() == pooler.keys()
    for name, tensor in pooler.items():
        np.testing.assert_array_equal(found[name], tensor)
    run("export", "m1", "--store=store", "--to=out")
    assert not list(Path("out").rglob("base_head*"))
    run("verify", "store")
