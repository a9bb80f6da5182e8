"""SentenceTransformers in and out of a store and through a recipe, against their own library."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

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


@pytest.mark.parametrize("pooling", ["cls", "mean", "lasttoken"])
def test_an_export_is_the_sentence_transformer_that_the_member_was(tmp_path: Path, pooling: str) -> None:
    _population(tmp_path, pooling, dense=False)
    store = f"--store={tmp_path / 'store'}"
    assert main(["import", str(tmp_path / "m1"), str(tmp_path / "m2"), store, f"--base={tmp_path / 'base'}"]) == 0
    assert main(["export", "m1", store, f"--to={tmp_path / 'out'}"]) == 0
    theirs, ours = (SentenceTransformer(str(tmp_path / name)) for name in ("m1", "out"))
    assert [type(module) for module in ours] == [type(module) for module in theirs]
    assert (ours.max_seq_length, ours.prompts) == (theirs.max_seq_length, theirs.prompts)
    np.testing.assert_allclose(ours.encode(TEXTS), theirs.encode(TEXTS), atol=1e-6)


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
