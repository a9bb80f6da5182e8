"""Recipes over files of different vocabularies: against the same files brought under one vocabulary by hand."""

import json
import shutil

import numpy as np
import pytest
from incoming_folders import edit_config, rewrite, write
from safetensors.numpy import load_file

from wsr import models
from wsr.cli import main

TABLE = "embeddings.word_embeddings.weight"


@pytest.fixture
def place(tiny, tmp_path):
    """Two models of one vocabulary, and ``mixed``: the second with its tokens in another order and padded rows."""
    for seed, name in enumerate(("a", "b"), start=1):
        write(tiny, tmp_path / name, seed)
    shutil.copytree(tmp_path / "b", tmp_path / "mixed")
    rows = len(load_file(tmp_path / "b" / "model.safetensors")[TABLE])
    order = np.random.default_rng(0).permutation(rows)  # token i of b is token order[i] of mixed
    renumber(tmp_path / "mixed", lambda number: int(order[number]))
    padding = np.full((5, 16), 9, np.float32)
    rewrite(tmp_path / "mixed", lambda own: own | {TABLE: np.concatenate([own[TABLE][np.argsort(order)], padding])})
    pad = json.loads((tmp_path / "b" / "config.json").read_text())["pad_token_id"]
    edit_config(tmp_path / "mixed", vocab_size=rows + 5, pad_token_id=int(order[pad]))
    return tmp_path


def renumber(folder, number):
    """Gives the tokens of a folder other numbers."""
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] = {token: number(own) for token, own in content["model"]["vocab"].items()}
    for entry in content["added_tokens"]:
        entry["id"] = number(entry["id"])
    for mark in ("cls", "sep"):
        token, own = content["post_processor"][mark]
        content["post_processor"][mark] = [token, number(own)]
    (folder / "tokenizer.json").write_text(json.dumps(content))


def add_token(folder, token, seed):
    """Adds a token with a row of its own."""
    content = json.loads((folder / "tokenizer.json").read_text())
    numbers = [*content["model"]["vocab"].values(), *(own["id"] for own in content["added_tokens"])]
    entry = {**content["added_tokens"][0], "content": token, "id": max(numbers) + 1, "special": False}
    content["added_tokens"].append(entry)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    row = np.random.default_rng(seed).standard_normal((1, 16)).astype(np.float32)
    rewrite(folder, lambda own: own | {TABLE: np.concatenate([own[TABLE][: max(numbers) + 1], row])})
    edit_config(folder, vocab_size=max(numbers) + 2)
    return row[0]


def merge(place, names, to="out", method="linear", base=None, **options):
    listed = [{"model": str(place / name), "parameters": {"weight": 1}} for name in names]
    recipe = {"merge_method": method, "models": listed} | ({"base_model": str(place / base)} if base else {})
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    flags = [f"--{name}={value}" for name, value in options.items()]
    return main(["merge", f"--recipe={place / 'recipe.yaml'}", *flags, f"--to={place / to}"])


def tensors(folder):
    return load_file(folder / "model.safetensors")


def refusal(capsys, *words, **options):
    assert merge(*words, **options) == 1
    return capsys.readouterr().err


@pytest.mark.parametrize(("method", "base"), [("linear", None), ("task_arithmetic", "a"), ("ties", "a")])
def test_rows_are_matched_by_the_strings_of_tokens(place, method, base):
    others = ["a", "b"] if base is None else ["b"]
    assert merge(place, others, "expected", method, base) == 0
    mixed = [name.replace("b", "mixed") for name in others]
    assert merge(place, mixed, "found", method, base, tokenizer="base") == 0
    expected, found = tensors(place / "expected"), tensors(place / "found")
    assert expected.keys() == found.keys()
    for name, own in expected.items():
        np.testing.assert_array_equal(found[name], own, err_msg=name)
    assert (place / "found" / "tokenizer.json").read_bytes() == (place / "a" / "tokenizer.json").read_bytes()


def test_texts_of_common_tokens_keep_their_hidden_states_under_another_tokenizer(place):
    """One model under the vocabulary of a folder."""
    assert merge(place, ["b"], "found", tokenizer=place / "mixed") == 0
    ours, theirs = (models.load(str(place / name)) for name in ("b", "found"))
    assert theirs.model.config["vocab_size"] == ours.model.config["vocab_size"]
    ids = [own.processor("a good film")["input_ids"] for own in (ours, theirs)]
    assert ids[0] != ids[1]
    rows = [tensors(place / name)[TABLE][own] for name, own in zip(("b", "found"), ids, strict=True)]
    np.testing.assert_array_equal(*rows)
    config = json.loads((place / "found" / "config.json").read_text())
    assert config["pad_token_id"] == theirs.processor.pad_token_id


def test_a_union_has_the_added_tokens_of_all(place):
    first, second = add_token(place / "a", "<one>", 5), add_token(place / "b", "<two>", 6)
    assert merge(place, ["a", "b"], tokenizer="union") == 0
    found = models.load(str(place / "out"))
    numbers = [found.processor.convert_tokens_to_ids(token) for token in ("<one>", "<two>")]
    table = tensors(place / "out")[TABLE]
    assert numbers == [len(table) - 2, len(table) - 1]
    # A token that one model has keeps its row.
    np.testing.assert_array_equal(table[numbers], [first, second])
    common = (tensors(place / "a")[TABLE][:-1] + tensors(place / "b")[TABLE][:-1]) / 2
    np.testing.assert_allclose(table[:-2], common, atol=1e-7)
    assert found.processor("<one><two>", add_special_tokens=False)["input_ids"] == numbers


def test_what_is_ambiguous_or_unknown_is_refused(place, capsys):
    assert "expected base, union or a folder with a tokenizer" in refusal(capsys, place, ["a", "b"], tokenizer="own")
    shutil.copytree(place / "mixed", place / "more")
    add_token(place / "more", "<more>", 7)
    told = refusal(capsys, place, ["a", "b"], tokenizer=place / "more")
    assert "no model has '<more>' (1 tokens)" in told
    content = json.loads((place / "b" / "tokenizer.json").read_text())
    words = content["model"]["vocab"]
    last = max(words, key=words.__getitem__)
    content["model"]["vocab"] = {("unheard" if token == last else token): own for token, own in words.items()}
    (place / "b" / "tokenizer.json").write_text(json.dumps(content))
    told = refusal(capsys, place, ["a", "b"], tokenizer="union")
    assert "'unheard' (1 tokens) are no added tokens of its tokenizer" in told
    content["added_tokens"].append({**content["added_tokens"][0], "content": "unheard", "id": 0})
    (place / "b" / "tokenizer.json").write_text(json.dumps(content))
    assert "has two rows" in refusal(capsys, place, ["a", "b"], tokenizer="base")
    (place / "b" / "tokenizer.json").unlink()
    assert "no tokenizer, so the rows of its tokens are not known" in refusal(
        capsys, place, ["a", "b"], tokenizer="base"
    )
    assert not (place / "out").exists()


def test_members_of_a_store_have_one_vocabulary(place, capsys):
    assert main(["merge", f"--store={place}", "--tokenizer=base", f"--to={place / 'out'}"]) == 1
    assert "--tokenizer is for --recipe without --store" in capsys.readouterr().err
