"""LoRA adapters that PEFT saved, against PEFT's own merge."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertModel, BertTokenizerFast

import wsr
from wsr.models.huggingface.weights import to_huggingface

CONFIG = BertConfig(
    vocab_size=40,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=24,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[BertModel, Path]:
    """A small BERT, and its folder."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    model = BertModel(CONFIG, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(35))]
    BertTokenizerFast({word: number for number, word in enumerate(words)}).save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"query": 2}, "alpha_pattern": {"value": 5}},
        {"target_modules": "all-linear"},
    ],
    ids=["plain", "rank-stabilised", "patterns", "all-linear"],
)
def test_an_adapter_becomes_what_peft_merges(
    base: tuple[BertModel, Path], tmp_path: Path, options: dict[str, object]
) -> None:
    model, folder = base
    torch.manual_seed(1)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["query", "value"]} | options
    tuned = get_peft_model(copy.deepcopy(model), LoraConfig(**settings))
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:  # zero at the start
            torch.nn.init.normal_(weights, std=0.02)
    tuned.save_pretrained(tmp_path / "adapter")

    checkpoint = wsr.load(folder)
    store = wsr.Store.create_for(tmp_path / "store", checkpoint)
    member = wsr.import_(tmp_path / "adapter", store)

    expected = tuned.merge_and_unload().state_dict()
    for name, ours in to_huggingface(checkpoint.model, store.load(member.name)[0]).items():
        np.testing.assert_allclose(ours, expected[name].numpy(), atol=1e-6, err_msg=name)
