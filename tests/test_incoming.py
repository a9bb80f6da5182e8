"""Models of others as members: what is taken over, what is said, and what is refused with which reasons."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from incoming_folders import edit_config, near, rewrite, write, write_independent
from models_support import random_params
from safetensors.numpy import load_file, save_file

from wsr.errors import WsrError
from wsr.exchange.head import tell_of_tied_decoder
from wsr.exchange.likely_bases import likeliest_base, stores_beside
from wsr.exchange.member import read_member, require_base
from wsr.geometry.trees import flatten
from wsr.models import Checkpoint, architectures, build, load
from wsr.store import Store

TOKENS = "embeddings.word_embeddings.weight"


@pytest.fixture
def folder(tiny, tmp_path):
    """A model near the tiny checkpoint."""
    return write(tiny, tmp_path / "model", 1)


def same(params, others):
    pairs = zip(flatten(params).values(), flatten(others).values(), strict=True)
    return flatten(params).keys() == flatten(others).keys() and all(np.array_equal(a, b) for a, b in pairs)


def refusal(folder, base):
    with pytest.raises(WsrError) as caught:
        read_member(folder, base)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    return str(caught.value)


# What is taken over


def test_a_model_near_the_base_is_read_bit_for_bit(tiny, folder):
    incoming = read_member(folder, tiny)
    assert same(incoming.params, near(tiny.params, 1))
    assert incoming.head == {}
    assert incoming.about["dtype"] == "float32"
    assert "no pooler in the file" in incoming.notes
    require_base(incoming)


@pytest.mark.parametrize("name", [name for name, own in architectures().items() if own.counterpart])
def test_every_architecture_of_hugging_face_can_be_a_member(tiny, tmp_path, name):
    example = dict(architectures()[name].example)
    if "vocab_size" in example:
        example["vocab_size"] = 128  # the tokenizer of some has a token more
    base = Checkpoint(model := build(name, example), random_params(model), tiny.processor)
    folder = write(base, tmp_path / "model", 1)
    if "vocab_size" in example:  # as read from a folder of the architecture, whose class may add tokens
        base = replace(base, processor=load(folder).processor)
    incoming = read_member(folder, base)
    assert same(incoming.params, near(base.params, 1))
    assert incoming.kinship.same_base
    assert not read_member(write_independent(base, tmp_path / "other", 2), base).kinship.same_base


def test_heads_and_pooler_are_kept_apart_under_their_own_names(tiny, folder):
    random = np.random.default_rng(0)
    head = {
        "classifier.weight": random.standard_normal((3, 16), np.float32),
        "classifier.bias": random.standard_normal(3).astype(np.float16),
        "bert.pooler.dense.weight": random.standard_normal((16, 16), np.float32),
    }
    buffers = {"bert.embeddings.position_ids": np.arange(64)[None]}
    rewrite(folder, lambda tensors: {f"bert.{name}": own for name, own in tensors.items()} | head | buffers)
    labels = {"0": "bad", "1": "good", "2": "so so"}
    edit_config(folder, architectures=["BertForSequenceClassification"], id2label=labels, classifier_dropout=0.3)
    incoming = read_member(folder, tiny)
    assert same(incoming.params, near(tiny.params, 1))
    assert set(incoming.head) == set(head)
    for name, tensor in head.items():
        assert incoming.head[name].dtype == np.float32
        np.testing.assert_array_equal(incoming.head[name], tensor.astype(np.float32))
    assert incoming.about["prefix"] == "bert."
    assert incoming.about["config"]["id2label"] == labels
    assert any(note.startswith("stored separately as its head: bert.pooler.dense.weight, ") for note in incoming.notes)
    assert not any("no pooler" in note for note in incoming.notes)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_any_float_becomes_float32_and_half_precision_says_what_it_took(tiny, folder, dtype):
    full = near(tiny.params, 1)
    rewrite(folder, lambda tensors: {name: own.astype(dtype) for name, own in tensors.items()})
    incoming = read_member(folder, tiny)
    expected = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(np.float32), full)
    assert same(incoming.params, expected)
    notes = [note for note in incoming.notes if note.startswith("stored as")]
    if dtype == np.float64:
        assert notes == []
        return

    def flat(params):
        return np.concatenate([np.ravel(leaf) for leaf in flatten(params).values()]).astype(np.float64)

    origin = flat(tiny.params)
    lost = np.linalg.norm(origin.astype(np.float32).astype(dtype).astype(np.float64) - origin)
    share = 100 * lost / np.linalg.norm(flat(expected) - origin)
    assert notes[0].startswith(f"stored as {np.dtype(dtype).name}: rounding weights like the base's")
    assert f"{share:.3g} %" in notes[0]
    assert len(notes) == 1


def test_a_task_vector_that_is_nothing_but_rounding_is_told(tiny, tmp_path):
    folder = write(tiny, tmp_path / "m", 1, scale=1e-6)
    rewrite(folder, lambda tensors: {name: own.astype(ml_dtypes.bfloat16) for name, own in tensors.items()})
    assert any("most of its task vector is rounding" in note for note in read_member(folder, tiny).notes)


def test_a_base_of_the_same_precision_cannot_tell_what_rounding_took(tiny, folder):
    rounded = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16).astype(jnp.float32), tiny.params)
    rewrite(folder, lambda tensors: {name: own.astype(ml_dtypes.bfloat16) for name, own in tensors.items()})
    notes = read_member(folder, Checkpoint(tiny.model, rounded, tiny.processor)).notes
    assert any("is unknown" in note for note in notes)


def test_what_only_training_reads_may_differ(tiny, folder):
    edit_config(folder, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2, initializer_range=0.5)
    assert read_member(folder, tiny).kinship.same_base


def test_tied_decoders_are_not_kept_twice(tiny, folder):
    edit_config(folder, architectures=["BertForMaskedLM"])
    assert any("tied to the token embedding and not in the file" in note for note in read_member(folder, tiny).notes)
    extra = {"cls.predictions.bias": np.ones(108, np.float32)}
    rewrite(folder, lambda tensors: {**tensors, **extra, "cls.predictions.decoder.weight": tensors[TOKENS].copy()})
    incoming = read_member(folder, tiny)
    assert set(incoming.head) == {"cls.predictions.bias"}
    assert any(note.startswith("cls.predictions.decoder.weight is tied") for note in incoming.notes)


# Vocabularies


def _resize(folder, tiny, rows, *, tokens=()):
    """The folder with another count of rows in its table, and more tokens in its tokenizer."""

    def change(tensors):
        table = tensors[TOKENS]
        more = np.full((max(0, rows - len(table)), table.shape[1]), 7, np.float32)
        head = {"cls.predictions.bias": np.arange(rows, dtype=np.float32)}
        return {**tensors, TOKENS: np.concatenate([table, more])[:rows], **head}

    rewrite(folder, change)
    edit_config(folder, vocab_size=rows)
    if tokens:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_tokens(list(tokens))
        tokenizer.save_pretrained(folder)


def test_rows_of_added_tokens_are_cut_and_this_is_said(tiny, folder):
    _resize(folder, tiny, 112, tokens=("wordone", "wordtwo"))
    incoming = read_member(folder, tiny)
    assert same(incoming.params, near(tiny.params, 1))
    assert "the last 4 of 112 tokens are not in the base: their rows are removed" in incoming.notes
    np.testing.assert_array_equal(incoming.head["cls.predictions.bias"], np.arange(108))


def test_more_rows_without_a_tokenizer_are_refused(tiny, folder):
    _resize(folder, tiny, 112)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    said = refusal(folder, tiny)
    assert "vocab_size is 112 there and 108 in the base, and without a tokenizer" in said


def test_missing_rows_of_no_token_come_from_the_base_and_fewer_than_tokens_are_refused(tiny, folder):
    padded = build("tiny", {**tiny.model.config, "vocab_size": 120})
    params = flatten(tiny.params)
    table = np.asarray(params["embeddings/token/embedding"])
    params["embeddings/token/embedding"] = np.concatenate([table, np.full((12, 16), 3, np.float32)])
    from wsr.geometry.trees import nest

    base = Checkpoint(padded, nest(params), tiny.processor)
    incoming = read_member(folder, base)
    assert "12 rows without a token are missing: taken from the base" in incoming.notes
    found = flatten(incoming.params)["embeddings/token/embedding"]
    np.testing.assert_array_equal(found[:108], flatten(near(tiny.params, 1))["embeddings/token/embedding"])
    np.testing.assert_array_equal(found[108:], 3)
    for path in folder.glob("tokenizer*"):  # whose 108 entries would not fit 90 rows
        path.unlink()
    _resize(folder, tiny, 90)
    assert "vocab_size is 90 there and 108 in the base" in refusal(folder, tiny)


def test_another_vocabulary_of_the_same_size_is_refused(tiny, folder):
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["a"], words["b"] = words["b"], words["a"]
    path.write_text(json.dumps(content))
    said = refusal(folder, tiny)
    assert "another vocabulary: token" in said
    assert "(and 1 more)" in said


def test_a_folder_without_a_tokenizer_is_taken_with_a_note(tiny, folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer in the folder: assumed to have the base's tokens" in read_member(folder, tiny).notes


# Refusals


def test_all_differences_come_in_one_line(tiny, folder):
    def damage(tensors):
        tensors.pop("embeddings.LayerNorm.bias")
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((16, 32), np.float32)
        return tensors

    rewrite(folder, damage)
    edit_config(folder, num_hidden_layers=3, layer_norm_eps=1e-3, hidden_act="relu")
    said = refusal(folder, tiny)
    for part in (
        "config num_hidden_layers is 3 there and 2 in the base",
        "config layer_norm_eps is 0.001 there and 1e-12 in the base",
        "config hidden_act is 'relu' there and 'gelu' in the base",
        "missing embeddings.LayerNorm.bias",
        "unexpected encoder.layer.2.output.dense.bias",
        "shape of encoder.layer.0.intermediate.dense.weight is (16, 32), expected (32, 16)",
    ):
        assert part in said


@pytest.mark.parametrize("rows", ["many", 0, True, 10**12, 10**30])
def test_a_vocabulary_of_no_size_is_refused(tiny, folder, rows):
    edit_config(folder, vocab_size=rows)
    said = refusal(folder, tiny)
    assert f"vocab_size is {rows!r} there and 108 in the base" in said or "shape of embeddings.word_embeddings" in said


def test_another_architecture_is_refused(tiny, folder):
    edit_config(folder, model_type="roberta")
    assert "model_type is 'roberta' there and 'bert' in the base" in refusal(folder, tiny)


def test_a_broken_run_is_refused(tiny, folder):
    rewrite(folder, lambda tensors: {name: np.where(own == own.max(), np.nan, own) for name, own in tensors.items()})
    assert "a broken run: NaN or infinity in embeddings/norm/bias, embeddings/norm/scale" in refusal(folder, tiny)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_pickles_are_never_opened(tiny, folder, name):
    (folder / "model.safetensors").rename(folder / name)
    assert f"found {name} but no model.safetensors; opening a pickle can run code" in refusal(folder, tiny)


def test_links_that_leave_the_folder_are_refused_and_those_of_the_hubs_cache_are_not(tiny, folder, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file():
            (blobs / f"hash-{path.name}").write_bytes(path.read_bytes())
            (snapshot / path.name).symlink_to(blobs / f"hash-{path.name}")
    assert read_member(snapshot, tiny).kinship.same_base
    path = folder / "model.safetensors"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to("../elsewhere")
    assert "links out of the folder are not followed: model.safetensors" in refusal(folder, tiny)
    path.unlink()
    (tmp_path / "elsewhere").rename(folder / "own.safetensors")
    path.symlink_to("own.safetensors")
    assert read_member(folder, tiny).kinship.same_base


def test_an_index_that_leaves_its_folder_is_refused(tiny, folder):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {TOKENS: "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "expected names of safetensors files in the same folder" in refusal(folder, tiny)


# The base


@pytest.mark.long
def test_a_model_of_another_base_is_told_from_its_weights_and_its_base_is_found(tiny, tmp_path):
    other = Checkpoint(tiny.model, near(jax.tree.map(jnp.zeros_like, tiny.params), 9, scale=0.2), tiny.processor)
    store = Store.create(
        tmp_path / "stores" / "other",
        model_name="tiny",
        model_config=dict(tiny.model.config),
        base_name="tiny",
        base_params=other.params,
    )
    folder = write(other, tmp_path / "model", 1)
    incoming = read_member(folder, tiny)
    assert not incoming.kinship.same_base
    with pytest.raises(WsrError, match=r"not fine-tuned from this base: cosine .* at least 0.5 is required\); try"):
        require_base(incoming, "; try")
    assert stores_beside(tmp_path / "stores" / "mine") == [store.path]
    found = likeliest_base(folder, stores_beside(tmp_path / "stores" / "mine"))
    assert found.startswith(f"the base of {store.path} (cosine with the base 0.99")
    assert likeliest_base(write(tiny, tmp_path / "own", 1)).startswith("'tiny' (cosine with the base 0.99")
    assert likeliest_base(write_independent(tiny, tmp_path / "alone", 5), [store.path]) is None


def test_the_folder_that_a_config_names_is_looked_at(tiny, tmp_path):
    other = write_independent(tiny, tmp_path / "base", 7)
    folder = tmp_path / "model"
    write(tiny, folder, 1)
    tensors = load_file(other / "model.safetensors")
    save_file({name: own + np.float32(1e-3) for name, own in tensors.items()}, folder / "model.safetensors")
    edit_config(folder, _name_or_path=str(other))
    assert likeliest_base(folder).startswith(repr(str(other)))


@pytest.mark.parametrize(
    ("kind", "more", "tied"),
    [
        ("BertForMaskedLM", {}, True),
        ("BertForMaskedLM", {"tie_word_embeddings": False}, False),
        ("ElectraForMaskedLM", {}, True),
        ("ElectraForPreTraining", {}, False),
        ("BertForSequenceClassification", {}, False),
    ],
)
def test_only_a_tied_decoder_is_called_tied(kind, more, tied):
    notes = []
    tell_of_tied_decoder({"architectures": [kind], **more}, ("bert.embeddings.word_embeddings.weight",), notes)
    assert bool(notes) == tied
    without = []
    for decoder in ("cls.predictions.decoder.weight", "vocab_projector.weight", "generator_lm_head.weight"):
        tell_of_tied_decoder({"architectures": [kind], **more}, (decoder,), without)
    assert not without
