"""SigLIP with the tokenizer that it has on the hub, ``spiece.model``: against SiglipTokenizer and SiglipModel."""

import json
import random

import jax.numpy as jnp
import numpy as np
import pytest
from sentencepiece_models import SIGLIP, TEXTS, WORDS, put, train
from test_models_siglip import PROCESSOR, TEXT, VISION

from wsr import models
from wsr.cli import main
from wsr.engine.zero_shot import zero_shot_head
from wsr.errors import WsrError
from wsr.models.huggingface.tokenizer import read_tokenizer
from wsr.store import Store

SETTINGS = {"tokenizer_class": "SiglipTokenizer", "model_max_length": 20, "do_lower_case": True}
SETTINGS |= {"pad_token": "</s>", "model_input_names": ["input_ids"]}
ODD = (
    "",
    " ",
    "!?!",
    "- begins with a mark",
    "  ! two",
    "ends with a mark -",
    "a\tb\nc\x1cd\u00a0e\u2003f",
    "an ▁ in ▁it▁",
    "ΟΔΟΣ Σ ΣΑΣ",
    "İstanbul ẞ Ǆ",
    "don't_one-way (what?) ~`^|\\",
    "“quotes” — dash…",
    "ＷＩＤＥ！ ﬁ ½ x²",
    "\u200bzero\u200b width",
)
CLASSES = ("cat", "Dog_hut", "elk, one-way")


@pytest.fixture(scope="module")
def content():
    """A unigram model with SigLIP's special pieces."""
    return train(**SIGLIP)


def tokenizers(folder, content, **changes):
    """Ours and SiglipTokenizer of transformers."""
    from transformers import SiglipConfig, SiglipTokenizer

    put(folder, "spiece.model", content, **{**SETTINGS, **changes})
    SiglipConfig().save_pretrained(folder)
    return read_tokenizer(folder), SiglipTokenizer.from_pretrained(folder)


def random_texts(count=300):
    """Words with capitals, punctuation and white space between them."""
    drawn = random.Random(0)
    between = (" ", "  ", ", ", " - ", "-", ".", "\t", "...", "▁", " 中 ", "é", "'")
    for _ in range(count):
        words = [own.upper() if drawn.random() < 0.2 else own for own in drawn.choices(WORDS, k=5)]
        yield "".join(part for word in words for part in (word, drawn.choice(between)))


@pytest.mark.parametrize("lower", [True, False])
def test_ids_are_those_of_siglips_tokenizer(content, tmp_path, lower):
    ours, theirs = tokenizers(tmp_path, content, do_lower_case=lower)
    assert ours.is_fast
    assert ours.get_vocab() == theirs.get_vocab()
    for text in (*TEXTS, *ODD, *random_texts()):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], repr(text)
    named = ("pad_token_id", "eos_token_id", "unk_token_id", "model_max_length", "padding_side", "model_input_names")
    assert [getattr(ours, name) for name in named] == [getattr(theirs, name) for name in named]
    assert (ours("A")["input_ids"] != ours("a")["input_ids"]) != lower


@pytest.mark.parametrize("how", [{"padding": "max_length", "truncation": True}, {"max_length": 5, "truncation": True}])
def test_padding_and_cutting_are_those_of_siglips_tokenizer(content, tmp_path, how):
    ours, theirs = tokenizers(tmp_path, content)
    texts = [*TEXTS, " ".join(WORDS)]
    found, expected = (own(texts, return_attention_mask=True, **how) for own in (ours, theirs))
    assert found["input_ids"] == expected["input_ids"]
    assert found["attention_mask"] == expected["attention_mask"]
    pairs = [own(TEXTS[0], TEXTS[1])["input_ids"] for own in (ours, theirs)]
    assert pairs[0] == pairs[1]


def test_a_model_of_another_kind_is_refused(tmp_path):
    with pytest.raises(WsrError, match="expected a unigram model for SiglipTokenizer, found another kind"):
        tokenizers(tmp_path / "bpe", train("bpe", **SIGLIP))
    with pytest.raises(WsrError, match="would have another tokens of one text than SiglipTokenizer"):
        tokenizers(tmp_path / "ends", train(treat_whitespace_as_suffix=True, **SIGLIP))


@pytest.fixture(scope="module")
def folder(content, tmp_path_factory):
    """A random whole SigLIP as the hub has it, and the model of transformers."""
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")
    from transformers import SiglipConfig, SiglipModel

    place = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(vision_config=VISION, text_config={**TEXT, "vocab_size": 90})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(place)
    PROCESSOR.save_pretrained(place)
    return put(place, "spiece.model", content, **SETTINGS), model


@pytest.mark.torch
def test_logits_of_zero_shot_heads_are_those_of_transformers(folder, tmp_path):
    import torch
    from transformers import SiglipTokenizer

    place, model = folder
    store = Store.create_for(tmp_path / "store", models.load(str(place)))
    embeddings = np.random.default_rng(0).standard_normal((4, 24)).astype(np.float32)
    templates = ("A photo of a {}.",)
    prompts = [templates[0].format(name.replace("_", " ")) for name in CLASSES]
    tokens = SiglipTokenizer.from_pretrained(place)(prompts, padding="max_length", return_tensors="pt")
    with torch.no_grad():
        texts = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
        texts = texts / texts.norm(dim=-1, keepdim=True)
        images = torch.tensor(embeddings)
        images = images / images.norm(dim=-1, keepdim=True)
        expected = (images @ texts.T * model.logit_scale.exp() + model.logit_bias).numpy()
    for base in (models.load(str(place)), store.checkpoint()):
        found = zero_shot_head(base, CLASSES, templates).logits(jnp.asarray(embeddings))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.torch
def test_exports_have_the_tokenizer_of_the_text_tower(folder, content, tmp_path):
    from transformers import AutoTokenizer, SiglipTextModel

    place, _ = folder
    store = Store.create_for(tmp_path / "store", models.load(str(place)))
    models.export(store.checkpoint(), tmp_path / "exported")
    assert main(["export", "base", f"--store={tmp_path / 'store'}", f"--to={tmp_path / 'out'}"]) == 0
    expected = AutoTokenizer.from_pretrained(place)(list(TEXTS))["input_ids"]
    for out in (tmp_path / "exported", tmp_path / "out"):
        assert (out / "spiece.model").read_bytes() == content
        assert AutoTokenizer.from_pretrained(out)(list(TEXTS))["input_ids"] == expected
    # The text tower alone goes out with a fast tokenizer.
    SiglipTextModel.from_pretrained(place).save_pretrained(tmp_path / "text")
    put(tmp_path / "text", "spiece.model", content, **SETTINGS)
    tower = models.load(str(tmp_path / "text"))
    models.export(tower, tmp_path / "tower")
    assert "spiece.model" not in [own.name for own in (tmp_path / "tower").iterdir()]
    again = AutoTokenizer.from_pretrained(tmp_path / "tower")
    assert again.is_fast
    assert again(list(TEXTS))["input_ids"] == expected
    assert json.loads((tmp_path / "tower" / "config.json").read_text())["vocab_size"] == 90
