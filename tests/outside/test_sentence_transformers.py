"""Bases that sentence-transformers saved, and exports that it loads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast

import wsr

TEXTS = ["w1 w2 w3", "w4 w5 w6 w7 w8 w9"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small BERT."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        initializer_range=0.3,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(35))]
    BertTokenizerFast({word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("mode", "pooling"), [("mean", "mean"), ("cls", "cls"), ("lasttoken", "last")])
def test_a_base_as_it_is_saved_today_comes_in_and_goes_out(
    encoder: Path, tmp_path: Path, mode: str, pooling: str
) -> None:
    model = SentenceTransformer(modules=[Transformer(str(encoder)), Pooling(16, pooling_mode=mode)])  # type: ignore[arg-type]
    model.save_pretrained(str(tmp_path / "in"))
    checkpoint = wsr.load(tmp_path / "in")
    assert checkpoint.model.config["pooling"] == pooling
    wsr.export(checkpoint, tmp_path / "out")
    written = Pooling.load(str(tmp_path / "out" / "1_Pooling"))
    again = SentenceTransformer(modules=[Transformer(str(tmp_path / "out")), written])
    np.testing.assert_allclose(again.encode(TEXTS), model.encode(TEXTS), atol=1e-5)
