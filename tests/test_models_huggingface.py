"""Hugging Face folders: strict import, refusals that name everything at once, export and back."""

import inspect
import json
import logging

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from models_support import every_token, one_a_row, random_params, random_texts
from oracles import CASES, ORACLES, counterpart, our_config, their_config
from safetensors.numpy import load_file, save_file

from wsr import models
from wsr.errors import WsrError
from wsr.models import huggingface
from wsr.models.huggingface.config import to_config
from wsr.models.huggingface.weights import from_huggingface, to_huggingface

TEXTS = random_texts(0, [7, 3, 5], 100)
VOCABULARY = 112  # Qwen2's class of tokenizers adds an entry to the 108 of "tiny"


@pytest.fixture
def folder(tiny, tmp_path):
    """A good Hugging Face folder; the tests break it."""
    models.export(tiny, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


def _edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _rewrite(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def _same(params, others):
    return jax.tree.all(jax.tree.map(lambda a, b: a.dtype == b.dtype and bool((a == b).all()), params, others))


# Round trips


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_export_and_load_give_the_same_bits(tmp_path, pooling):
    checkpoint = models.load("tiny", pooling=pooling)
    models.export(checkpoint, tmp_path / "out")
    again = models.load(str(tmp_path / "out"))
    assert again.model.config == checkpoint.model.config
    assert _same(again.params, checkpoint.params)
    text = "Two words, 1 number"
    assert again.processor(text)["input_ids"] == checkpoint.processor(text)["input_ids"]


@pytest.mark.parametrize("name", sorted(ORACLES))
def test_the_weight_map_is_its_own_inverse(name):
    model = models.build(name, models.architectures()[name].example)
    params = random_params(model)
    tensors = to_huggingface(model, params)
    prefixed = {f"{counterpart(name).prefix}{key}": tensor for key, tensor in tensors.items()}
    for names in (tensors, prefixed):
        again, dropped = from_huggingface(model, names)
        assert _same(again, params)
        assert dropped == ()


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_a_config_goes_out_and_comes_back(name, variant):
    changes = ORACLES[name].variants[variant] if variant else {}
    read_as, config = our_config(their_config(name, **changes))
    model = models.build(read_as, {**config, "pooling": "mean"})
    assert our_config(to_config(model)) == (name, config)
    assert {**model.config} == {**config, "pooling": "mean"}


@pytest.mark.torch
@pytest.mark.parametrize("name", sorted(ORACLES))
def test_transformers_loads_an_export_with_the_same_hidden_states(torch, tiny, tmp_path, name):
    import transformers

    example = models.architectures()[name].example
    model = models.build(name, {**example, "vocab_size": VOCABULARY, "pooling": "cls"})
    checkpoint = models.Checkpoint(model, random_params(model), tiny.processor)
    models.export(checkpoint, tmp_path / "out")
    assert models.load(str(tmp_path / "out")).model.config == model.config
    poolers = inspect.signature(getattr(transformers, counterpart(name).model_class).__init__).parameters
    without = {"add_pooling_layer": False} if "add_pooling_layer" in poolers else {}
    auto = getattr(transformers, ORACLES[name].auto_class)
    theirs, info = auto.from_pretrained(tmp_path / "out", output_loading_info=True, **without)
    assert not info["missing_keys"]
    # The head of a language model is none of the bare decoder's.
    assert set(info["unexpected_keys"]) <= set(counterpart(name).present.values())
    ids, types = TEXTS[0]
    ours = model.encode(checkpoint.params, every_token(one_a_row([(ids, types)], len(ids))))
    with torch.no_grad():
        expected = theirs.eval()(torch.tensor([ids])).last_hidden_state[0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)


@pytest.mark.torch
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in sorted(ORACLES) for kind in ORACLES[name].heads])
def test_a_model_with_a_head_saved_by_transformers(torch, tiny, tmp_path, name, kind, caplog):
    import transformers

    # Its decoder weight, where there is one, is tied to the token table and so is absent from the file.
    torch.manual_seed(0)
    theirs = getattr(transformers, kind)(their_config(name, vocab_size=VOCABULARY)).eval()
    theirs.save_pretrained(tmp_path)
    tiny.processor.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="wsr"):
        loaded = models.load(str(tmp_path))
    assert loaded.model.config["pooling"] == counterpart(name).pooling
    encoder = set(to_huggingface(loaded.model, loaded.params))
    stored = set(load_file(tmp_path / "model.safetensors"))
    dropped = sorted(key for key in stored if key.removeprefix(counterpart(name).prefix) not in encoder)
    assert len(encoder) == len(stored) - len(dropped)
    assert not dropped or f"dropped: {', '.join(dropped)}" in caplog.text
    ids = TEXTS[0][0]
    with torch.no_grad():
        encode = theirs.get_encoder() if theirs.config.is_encoder_decoder else theirs.base_model
        states = encode(torch.tensor([ids])).last_hidden_state[0].numpy()
    expected = {"cls": states[0], "last": states[-1], "mean": states.mean(axis=0)}[counterpart(name).pooling]
    found = loaded.model.encode(loaded.params, one_a_row([TEXTS[0]], 7))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


# Names, dtypes and files


def _old_names(tensors):
    rename = {"weight": "gamma", "bias": "beta"}
    old = {}
    for name, tensor in tensors.items():
        *module, leaf = name.split(".")
        old[".".join([*module, rename[leaf] if module[-1] == "LayerNorm" else leaf])] = tensor
    assert any(name.endswith("LayerNorm.gamma") for name in old)
    return old


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(_old_names, id="gamma and beta"),
        pytest.param(lambda tensors: {f"bert.{name}": value for name, value in tensors.items()}, id="prefix"),
        pytest.param(lambda tensors: {f"bert.{name}": value for name, value in _old_names(tensors).items()}, id="both"),
    ],
)
def test_other_names_of_the_same_weights(folder, tiny, change):
    _rewrite(folder, change)
    assert _same(models.load(str(folder)).params, tiny.params)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_any_float_is_read_as_float32(folder, tiny, dtype):
    _rewrite(folder, lambda tensors: {name: value.astype(dtype) for name, value in tensors.items()})
    rounded = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf).astype(dtype), jnp.float32), tiny.params)
    assert _same(models.load(str(folder)).params, rounded)


def test_pooler_heads_and_buffers_are_dropped_and_reported(tiny):
    tensors = to_huggingface(tiny.model, tiny.params)
    extra = (
        "bert.embeddings.position_ids",
        "bert.embeddings.token_type_ids",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "cls.predictions.decoder.weight",
        "lm_head.dense.weight",
    )
    params, dropped = from_huggingface(tiny.model, tensors | {name: np.zeros(2, np.int64) for name in extra})
    assert _same(params, tiny.params)
    assert dropped == extra


def _shard(folder, names=("model-1.safetensors", "model-2.safetensors")):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    where = {key: names[index % 2] for index, key in enumerate(sorted(tensors))}
    for name in ("model-1.safetensors", "model-2.safetensors"):
        save_file({key: tensors[key] for key in tensors if where[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return where


def test_sharded_weights(folder, tiny):
    _shard(folder)
    assert _same(models.load(str(folder)).params, tiny.params)


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "..\\x"])
def test_an_index_that_leaves_its_folder_is_refused(folder, name):
    where = _shard(folder)
    index = {"weight_map": {**where, "embeddings.LayerNorm.bias": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WsrError, match="expected names of safetensors files in the same folder") as caught:
        models.load(str(folder))
    assert name in str(caught.value)


def test_a_shard_without_its_tensor_or_not_there_is_named(folder):
    where = _shard(folder)
    save_file({"other": np.zeros(1, np.float32)}, folder / "model-2.safetensors")
    with pytest.raises(WsrError, match=r"files lack: .*embeddings.LayerNorm.weight in model-2.safetensors"):
        models.load(str(folder))
    assert where["embeddings.LayerNorm.weight"] == "model-2.safetensors"
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(WsrError, match=r"files that it names are missing: model-2.safetensors"):
        models.load(str(folder))


# Refusals


def test_missing_unexpected_doubled_and_misshapen_weights_are_listed_together(folder):
    def damage(tensors):
        del tensors["embeddings.LayerNorm.bias"]
        del tensors["encoder.layer.1.output.dense.weight"]
        tensors["encoder.layer.2.output.dense.bias"] = np.zeros(16, np.float32)
        tensors["bert.embeddings.LayerNorm.gamma"] = np.ones(16, np.float32)
        tensors["embeddings.word_embeddings.weight"] = np.zeros((7, 16), np.float32)
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((16, 32), np.float32)
        tensors["encoder.layer.0.intermediate.dense.bias"] = np.zeros(32, np.int32)
        return tensors

    _rewrite(folder, damage)
    with pytest.raises(WsrError) as caught:
        models.load(str(folder))
    assert "\n" not in str(caught.value)
    for part in (
        "missing embeddings.LayerNorm.bias",
        "missing encoder.layer.1.output.dense.weight",
        "unexpected encoder.layer.2.output.dense.bias",
        "doubled embeddings.LayerNorm.weight",
        "shape of embeddings.word_embeddings.weight is (7, 16), expected (108, 16)",
        "shape of encoder.layer.0.intermediate.dense.weight is (16, 32), expected (32, 16)",
        "dtype of encoder.layer.0.intermediate.dense.bias is int32",
    ):
        assert part in str(caught.value)


def test_config_attributes_that_change_the_computation_are_refused_by_name(folder):
    _edit_config(
        folder,
        position_embedding_type="relative_key",
        is_decoder=True,
        add_cross_attention=True,
        is_causal=True,
    )
    with pytest.raises(WsrError) as caught:
        models.load(str(folder))
    for part in (
        "add_cross_attention = True",
        "is_decoder = True",
        "position_embedding_type = 'relative_key'",
        "is_causal = True",
    ):
        assert part in str(caught.value)


def test_config_attributes_that_change_nothing_are_accepted(folder, tiny):
    _edit_config(
        folder,
        position_embedding_type="absolute",
        gradient_checkpointing=False,
        torch_dtype="float32",
        classifier_dropout=None,
        id2label={"0": "no", "1": "yes", "2": "perhaps"},
        label2id={"no": 0, "yes": 1, "perhaps": 2},
        pooler_type="first_token_transform",
        directionality="bidi",
    )
    assert _same(models.load(str(folder)).params, tiny.params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "swish"}, "hidden_act = 'swish'; known: gelu"),
        ({"model_type": "word2vec"}, "model_type = 'word2vec' is not supported; known: .*roberta"),
        ({"hidden_size": "wide"}, "not a valid bert config"),
    ],
)
def test_configs_that_are_no_encoder_here(folder, changes, message):
    _edit_config(folder, **changes)
    with pytest.raises(WsrError, match=message):
        models.load(str(folder))


@pytest.mark.parametrize("content", [None, "{", "[]", "\xff"])
def test_a_config_that_is_missing_or_broken_is_named(folder, content):
    path = folder / "config.json"
    path.unlink()
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(WsrError, match=r"config\.json: (no such file|not readable as JSON|expected a JSON object)"):
        models.load(str(folder))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_and_never_opened(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(WsrError, match=f"found {name} but no model.safetensors; opening a pickle can run code"):
        models.load(str(folder))


def test_weights_that_are_missing_or_cut_short_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WsrError, match=r"model\.safetensors: not readable as safetensors"):
        models.load(str(folder))
    path.unlink()
    with pytest.raises(WsrError, match="found neither"):
        models.load(str(folder))


def test_a_tokenizer_of_another_model_is_refused(folder):
    def shrink(tensors):
        tensors["embeddings.word_embeddings.weight"] = tensors["embeddings.word_embeddings.weight"][:90]
        return tensors

    _edit_config(folder, vocab_size=90)
    _rewrite(folder, shrink)
    with pytest.raises(WsrError, match="tokenizer has 108 entries and the model only 90"):
        models.load(str(folder))


def test_a_folder_without_a_tokenizer_is_refused(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(WsrError, match=r"no tokenizer; expected one of tokenizer\.json"):
        models.load(str(folder))


@pytest.mark.parametrize(
    ("content", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted_mean"),
        # sentence-transformers 5.4 and later
        ({"pooling_mode": "mean", "embedding_dimension": 16}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "mean_sqrt"),
        ({"pooling_mode": "weightedmean"}, "weighted_mean"),
    ],
)
def test_the_pooling_of_old_and_new_versions_of_sentence_transformers(folder, content, pooling):
    (folder / huggingface.POOLING_FILE).write_text(json.dumps(content))
    assert models.load(str(folder)).model.config["pooling"] == pooling


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"pooling_mode_attention": True}, "the pooling pooling_mode_attention is not supported"),
        ({"pooling_mode": "median"}, "the pooling median is not supported"),
        ({"pooling_mode": ["mean", "cls"]}, "the pooling mean and cls is not supported"),
        ({"embedding_dimension": 16}, "it names no pooling"),
    ],
)
def test_a_pooling_that_is_not_offered_is_refused_unless_another_is_chosen(folder, content, told):
    (folder / huggingface.POOLING_FILE).write_text(json.dumps(content))
    with pytest.raises(WsrError, match=f"{told}; choose cls, max, mean, mean_sqrt, weighted_mean, last with --pooling"):
        models.load(str(folder))
    assert models.load(str(folder), pooling="mean").model.config["pooling"] == "mean"


def test_export_refuses_a_folder_in_use_and_models_without_a_counterpart(folder, tiny, tmp_path):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(WsrError, match="exists and is not empty"):
        models.export(tiny, folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = models.Model("mine", {}, 1, 1, tiny.model.init, tiny.model.encode)
    with pytest.raises(WsrError, match="mine has no Hugging Face counterpart"):
        models.export(models.Checkpoint(other, tiny.params, tiny.processor), tmp_path / "new")


# The packaged checkpoint


@pytest.mark.real
@pytest.mark.torch
def test_minilm_agrees_with_transformers_on_real_text(torch):
    from transformers import AutoModel

    from wsr.runtime import assets

    checkpoint = models.load("minilm")
    theirs = AutoModel.from_pretrained(assets.fetch("minilm")).eval()
    sentences = ["The film was wonderful.", "I loved this movie, really.", "Stocks fell sharply on Monday."]
    texts = [(ids, [0] * len(ids)) for ids in checkpoint.processor(sentences)["input_ids"]]
    features = np.asarray(checkpoint.model.encode(checkpoint.params, one_a_row(texts, 12)))
    with torch.no_grad():
        expected = [theirs(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy() for ids, _ in texts]
    np.testing.assert_allclose(features, expected, atol=1e-5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert unit[0] @ unit[1] > 0.5 > unit[0] @ unit[2]
