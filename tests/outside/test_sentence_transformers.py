"""SentenceTransformers in and out of a store and through a recipe, against their own library."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

import wsr
from wsr.cli import main

TEXTS = ["w1 w2 w3 w4", "w10 w11 w12 w13 w14 w15 w16 w17 w18"]
CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=24,
    initializer_range=0.2,
)


def _moved(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for own in model.parameters():
            own.add_(0.02 * torch.randn(own.shape, generator=generator))
    return model


def _population(place: Path, pooling: str, *, dense: bool) -> None:
    torch.manual_seed(0)
    model, projection = BertModel(CONFIG).eval(), Dense(16, 8)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(35))]
    for seed, name in enumerate(("base", "m1", "m2")):
        own = _moved(copy.deepcopy(model), seed) if seed else model
        own.save_pretrained(place / f"plain-{name}")
        BertTokenizerFast({word: number for number, word in enumerate(words)}).save_pretrained(place / f"plain-{name}")
        modules = [Transformer(str(place / f"plain-{name}"), max_seq_length=8), Pooling(16, pooling_mode=pooling)]
        modules += [_moved(copy.deepcopy(projection), seed)] if dense else []
        SentenceTransformer(modules=[*modules, Normalize()], prompts={"query": "w5 "}).save_pretrained(
            str(place / name)
        )


MODES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""The poolings of the library, with our names."""
FLAGS = {mode: f"pooling_mode_{mode}{'' if mode.endswith('token') else '_tokens'}" for mode in MODES}
FLAGS |= {"cls": "pooling_mode_cls_token", "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens"}


def _old_spelling(folder: Path, pooling: str) -> None:
    content = {"word_embedding_dimension": 16, **{flag: mode == pooling for mode, flag in FLAGS.items()}}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(content))


def _old_layout(folder: Path) -> None:
    """Moves the Transformer into a folder of its own, as early versions of the library saved it."""
    (folder / "0_Transformer").mkdir()
    for file in list(folder.iterdir()):
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json", "README.md"):
            file.rename(folder / "0_Transformer" / file.name)
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules))


def _imported(place: Path) -> str:
    store = f"--store={place / 'store'}"
    assert main(["import", str(place / "m1"), str(place / "m2"), store, f"--base={place / 'base'}"]) == 0
    return store


@pytest.mark.parametrize("dense", [False, True], ids=["", "dense"])
@pytest.mark.parametrize("pooling", MODES)
def test_an_export_is_the_sentence_transformer_that_the_member_was(tmp_path: Path, pooling: str, dense: bool) -> None:
    """And its embeddings are our own features, followed by the modules in NumPy."""
    _population(tmp_path, pooling, dense=dense)
    store = _imported(tmp_path)
    assert main(["export", "m1", store, f"--to={tmp_path / 'out'}"]) == 0
    theirs, exported = (SentenceTransformer(str(tmp_path / name)) for name in ("m1", "out"))
    assert [type(module) for module in exported] == [type(module) for module in theirs]
    assert (exported.max_seq_length, exported.prompts) == (theirs.max_seq_length, theirs.prompts)
    np.testing.assert_allclose(exported.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)

    ours = wsr.load(tmp_path / "out")
    assert ours.model.config["pooling"] == MODES[pooling]
    tokens = [ours.processor(text, truncation=True, max_length=8)["input_ids"] for text in TEXTS]
    features = np.stack([np.asarray(ours.model.encode(ours.params, _alone(own)))[0] for own in tokens])
    if dense:
        weights = load_file(tmp_path / "out" / "2_Dense" / "model.safetensors")
        features = np.tanh(features @ weights["linear.weight"].T + weights["linear.bias"])
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(features, theirs.encode(TEXTS), atol=1e-5)


def _alone(tokens: list[int]) -> dict[str, np.ndarray]:
    """A batch of one text, followed by padding."""
    row = np.array([[*tokens, 0, 0]], np.int32)
    ids = np.where(np.arange(row.shape[1]) < len(tokens), 0, -1)[None].astype(np.int32)
    places = np.arange(row.shape[1], dtype=np.int32)[None] * (ids >= 0)
    return {"token_ids": row, "token_types": 0 * row, "positions": places, "text_ids": ids, "starts": np.zeros(1, "i4")}


@pytest.mark.parametrize("pooling", MODES)
def test_the_old_spelling_of_a_pooling(tmp_path: Path, pooling: str) -> None:
    _population(tmp_path, pooling, dense=False)
    for name in ("base", "m1", "m2"):
        _old_spelling(tmp_path / name, pooling)
    assert main(["export", "m1", _imported(tmp_path), f"--to={tmp_path / 'out'}"]) == 0
    theirs, exported = (SentenceTransformer(str(tmp_path / name)) for name in ("m1", "out"))
    assert exported[1].pooling_mode == pooling
    np.testing.assert_allclose(exported.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)


@pytest.mark.parametrize("words", [["export", "centroid"], ["merge"], ["merge", "--method=ties", "--density=1"]])
def test_a_point_combines_the_modules_too(tmp_path: Path, words: list[str]) -> None:
    """TIES does not sum modules: they are averaged."""
    _population(tmp_path, "mean", dense=True)
    assert main([*words, _imported(tmp_path), f"--to={tmp_path / 'out'}"]) == 0
    first, second, found = (SentenceTransformer(str(tmp_path / name)) for name in ("m1", "m2", "out"))
    expected = {name: (own + second.state_dict()[name]) / 2 for name, own in first.state_dict().items()}
    compared = [name for name in expected if "--method=ties" not in words or name.startswith("2.")]
    assert compared
    for name in compared:
        if "pooler" not in name:  # the store keeps no pooler of a point
            torch.testing.assert_close(found.state_dict()[name], expected[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("words", [["export", "m1"], ["merge", "--recipe"]])
def test_a_transformer_in_a_folder_of_its_own(tmp_path: Path, words: list[str]) -> None:
    _population(tmp_path, "cls", dense=True)
    for name in ("base", "m1", "m2"):
        _old_layout(tmp_path / name)
    theirs = SentenceTransformer(str(tmp_path / "m1"))
    if words[0] == "merge":
        models = [{"model": str(tmp_path / "m1"), "parameters": {"weight": 1}}]
        (tmp_path / "recipe.yaml").write_text(json.dumps({"merge_method": "linear", "models": models}))
        words = ["merge", f"--recipe={tmp_path / 'recipe.yaml'}"]
    else:
        words = [*words, _imported(tmp_path)]
    assert main([*words, f"--to={tmp_path / 'out'}"]) == 0
    exported = SentenceTransformer(str(tmp_path / "out"))
    assert (exported.max_seq_length, exported.prompts) == (theirs.max_seq_length, theirs.prompts)
    np.testing.assert_allclose(exported.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)
    BertModel.from_pretrained(tmp_path / "out")  # the Transformer lies in the folder itself


@pytest.mark.parametrize("include", [True, False])
def test_prompts_are_kept(tmp_path: Path, include: bool) -> None:
    _population(tmp_path, "mean", dense=False)
    for name in ("base", "m1", "m2"):
        model = SentenceTransformer(str(tmp_path / name), default_prompt_name="query")
        model[1].include_prompt = include
        model.save_pretrained(str(tmp_path / name))
    assert main(["export", "m1", _imported(tmp_path), f"--to={tmp_path / 'out'}"]) == 0
    theirs, exported = (SentenceTransformer(str(tmp_path / name)) for name in ("m1", "out"))
    assert exported.default_prompt_name == "query"
    np.testing.assert_allclose(exported.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)
    np.testing.assert_allclose(exported.encode(TEXTS, prompt=""), theirs.encode(TEXTS, prompt=""), atol=1e-6)
    assert np.abs(exported.encode(TEXTS) - exported.encode(TEXTS, prompt="")).max() > 1e-3


def test_a_recipe_merges_the_weights_of_modules(tmp_path: Path) -> None:
    _population(tmp_path, "mean", dense=True)
    models = [{"model": str(tmp_path / name), "parameters": {"weight": 1}} for name in ("m1", "m2")]
    (tmp_path / "recipe.yaml").write_text(json.dumps({"merge_method": "linear", "models": models}))
    assert main(["merge", f"--recipe={tmp_path / 'recipe.yaml'}", f"--to={tmp_path / 'out'}"]) == 0
    first, second, merged = (SentenceTransformer(str(tmp_path / name)) for name in ("m1", "m2", "out"))
    expected = {name: (own + second.state_dict()[name]) / 2 for name, own in first.state_dict().items()}
    assert expected.keys() == merged.state_dict().keys()
    for name, own in merged.state_dict().items():
        torch.testing.assert_close(own, expected[name].to(own.dtype), atol=1e-6, rtol=0)
