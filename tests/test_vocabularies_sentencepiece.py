"""Recipes over models whose vocabularies are different SentencePiece models, against rows matched in NumPy."""

import json

import jax
import numpy as np
import pytest
from incoming_folders import edit_config, rewrite
from oracles import their_config
from safetensors.numpy import load_file, save_file
from sentencepiece_models import SIGLIP, TEXTS, processor, put, train
from transformers import AutoTokenizer

from wsr import models
from wsr.cli import main
from wsr.exchange import tokens as their_tokens
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.tokenizer import read_tokenizer

TABLE = "shared.weight"
SPARE = 4
"""Rows without a token, as T5 has."""


def write(folder, content, seed):
    """Writes a random T5 encoder with a SentencePiece model; returns its tokens in the order of its rows."""
    theirs = processor(content)
    tokens = [theirs.id_to_piece(piece) for piece in range(len(theirs))]
    tokens += [f"<extra_id_{number}>" for number in range(99, -1, -1)]
    their_config("t5", vocab_size=len(tokens) + SPARE).save_pretrained(folder)
    put(folder, "spiece.model", content)
    name, config = read_config(folder)
    model = models.build(name, {**config, "pooling": "mean"})
    params = model.init(jax.random.key(seed))
    models.export(models.Checkpoint(model, params, read_tokenizer(folder)), folder / "whole")
    put(folder / "whole", "spiece.model", content)
    return tokens


@pytest.fixture
def place(tmp_path):
    """Two models, ``a`` and ``b``, and the tokens of both."""
    contents = {"a": train(**SIGLIP), "b": train(pieces=100, seed=1, more=("zebra", "jumps"), **SIGLIP)}
    tokens = {name: write(tmp_path / name, own, seed) for seed, (name, own) in enumerate(contents.items())}
    # One base: all but the tables are near each other.
    near = load_file(tmp_path / "a" / "whole" / "model.safetensors")
    rewrite(tmp_path / "b" / "whole", lambda own: {k: v if k == TABLE else near[k] * 1.01 for k, v in own.items()})
    return tmp_path, contents, tokens


def merge(place, tokenizer):
    listed = [{"model": str(place / name / "whole"), "parameters": {"weight": 1}} for name in ("a", "b")]
    (place / "recipe.yaml").write_text(json.dumps({"merge_method": "linear", "models": listed}))
    return main(
        ["merge", f"--recipe={place / 'recipe.yaml'}", f"--tokenizer={tokenizer}", f"--to={place / 'out'}", "--force"]
    )


def ids(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text)["input_ids"] for text in TEXTS]


def test_rows_are_matched_by_the_strings_of_pieces(place):
    place, contents, tokens = place
    assert merge(place, "base") == 0
    first, second = (load_file(place / name / "whole" / "model.safetensors")[TABLE] for name in ("a", "b"))
    rows = {token: row for row, token in enumerate(tokens["b"])}
    assert 0 < len(rows.keys() - tokens["a"]) < len(rows.keys() & tokens["a"])
    expected = [
        (own + second[rows[token]]) / 2 if token in rows else own
        for token, own in zip(tokens["a"], first, strict=False)
    ]
    found = load_file(place / "out" / "model.safetensors")[TABLE]
    np.testing.assert_allclose(found, [*expected, *first[-SPARE:]], rtol=0, atol=1e-6)
    assert (place / "out" / "spiece.model").read_bytes() == contents["a"]
    assert ids(place / "out") == [[*processor(contents["a"]).encode(text), 1] for text in TEXTS]


def test_a_damaged_sentencepiece_model_is_told(place, capsys):
    place, _, _ = place
    (place / "b" / "whole" / "spiece.model").write_bytes(b"no model")
    assert merge(place, "base") == 1
    assert "b/whole/spiece.model: no SentencePiece model" in capsys.readouterr().err


def test_a_folder_gives_its_sentencepiece_model(place):
    place, contents, tokens = place
    assert merge(place, place / "b" / "whole") == 0
    assert (place / "out" / "spiece.model").read_bytes() == contents["b"]
    assert ids(place / "out") == ids(place / "b" / "whole")
    found = load_file(place / "out" / "model.safetensors")[TABLE]
    assert len(found) == len(tokens["b"]) == json.loads((place / "out" / "config.json").read_text())["vocab_size"]


def test_a_union_has_the_added_tokens_of_a_sentencepiece_model(place):
    place, contents, tokens = place
    put(place / "b" / "whole", "spiece.model", contents["a"])
    table = load_file(place / "a" / "whole" / "model.safetensors")[TABLE]
    rewrite(place / "b" / "whole", lambda own: own | {TABLE: table + 1})
    edit_config(place / "b" / "whole", vocab_size=len(table))
    added = {"content": "<two>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    settings = {"added_tokens_decoder": {str(len(tokens["a"])): {**added, "special": True}}}
    (place / "b" / "whole" / "tokenizer_config.json").write_text(json.dumps(settings))
    assert merge(place, "union") == 0
    found = AutoTokenizer.from_pretrained(place / "out")
    row = found.convert_tokens_to_ids("<two>")
    assert row == len(tokens["a"])
    np.testing.assert_allclose(load_file(place / "out" / "model.safetensors")[TABLE][row], table[row] + 1, atol=1e-6)
    assert ids(place / "out") == ids(place / "a" / "whole")
    assert found("<two>", add_special_tokens=False)["input_ids"] == [row]
    assert not (place / "out" / "spiece.model").exists()


# Configs on the hub leave out the number of rows where it is the default, 32,000.
@pytest.mark.parametrize("size", [{"vocab_size": 96}, pytest.param({}, marks=pytest.mark.long)])
def test_the_text_towers_of_siglips_are_matched_too(tmp_path, size):
    random, contents = np.random.default_rng(0), [train(**SIGLIP), train(pieces=80, seed=1, **SIGLIP)]
    name, tables = "text_model.embeddings.token_embedding.weight", []
    for number, content in enumerate(contents):
        folder = put(tmp_path / str(number), "spiece.model", content)
        config = {"model_type": "siglip", "text_config": {"model_type": "siglip_text_model", **size}}
        (folder / "config.json").write_text(json.dumps(config))
        tables.append(random.normal(size=(size.get("vocab_size", 32000), 2)).astype(np.float32))
        save_file({name: tables[-1], "logit_scale": np.ones(1, np.float32)}, folder / "model.safetensors")
    listed = [{"model": str(tmp_path / name), "parameters": {"weight": 1}} for name in "01"]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"merge_method": "linear", "models": listed}))
    command = ["merge", f"--recipe={tmp_path / 'recipe.yaml'}", f"--to={tmp_path / 'out'}"]
    assert main([*command, "--tokenizer=base", "--force"]) == 0
    found, (ours, theirs) = load_file(tmp_path / "out" / "model.safetensors")[name], map(processor, contents)
    for row in range(len(ours)):
        piece = ours.id_to_piece(row)
        other = theirs.piece_to_id(piece)
        same = theirs.id_to_piece(other) == piece
        expected = (tables[0][row] + tables[1][other]) / 2 if same else tables[0][row]
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found[len(ours) :], tables[0][len(ours) :])


def test_a_sentencepiece_model_is_converted_once_and_anew_if_it_changes(place, monkeypatch):
    root, contents, _ = place
    made, make = [], their_tokens.tokenizer_of
    monkeypatch.setattr(their_tokens, "tokenizer_of", lambda folder: made.append(folder) or make(folder))
    assert merge(root, "base") == 0
    assert sorted(folder.parent.name for folder in made) == ["a", "b"]
    put(root / "a" / "whole", "spiece.model", contents["b"])
    assert their_tokens.vocabulary(root / "a" / "whole") == their_tokens.vocabulary(root / "b" / "whole")
