"""The page on architectures against the registry, and configs as they are published."""

import json
import re
from pathlib import Path

import pytest
from oracles import NAMES, counterpart, our_config, their_config

from wsr import models
from wsr.errors import WsrError
from wsr.models.huggingface.config import read_config

PAGE = (Path(__file__).parents[1] / "docs" / "architectures.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in re.findall(r"^\| (`.*) \|$", PAGE, flags=re.MULTILINE)
    if len(cells := [cell.strip() for cell in line.split("|")]) == 4 and cells[0] != "name"
}
REFUSED = [(name, attribute) for name in NAMES for attribute in re.findall(r"`(\"[^`]+)`", ROWS.get(name, [""])[-1])]


def test_the_page_has_a_row_for_every_architecture_with_a_counterpart():
    known = {
        name: f"`{architecture.counterpart.model_type}`"
        for name, architecture in models.architectures().items()
        if architecture.counterpart
    }
    assert {name: cells[0] for name, cells in ROWS.items()} == known


@pytest.mark.parametrize(("name", "attribute"), REFUSED)
def test_what_the_page_calls_refused_is_refused_by_name(name, attribute):
    ((key, value),) = json.loads(f"{{{attribute}}}").items()
    named = {"activation": "hidden_act"}.get(key, key)  # DistilBERT's is checked under BERT's name
    with pytest.raises(WsrError, match=f"(config|unsupported): {named} "):
        models.build(name, {**our_config(their_config(name, **{key: value}))[1], "pooling": "cls"})


COMMON = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 768,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
}


@pytest.mark.parametrize(
    ("name", "published", "expected"),
    [
        pytest.param(
            "distilbert",
            {
                "model_type": "distilbert",
                "activation": "gelu",
                "attention_dropout": 0.1,
                "dim": 768,
                "dropout": 0.1,
                "hidden_dim": 3072,
                "initializer_range": 0.02,
                "max_position_embeddings": 512,
                "n_heads": 12,
                "n_layers": 6,
                "pad_token_id": 0,
                "qa_dropout": 0.1,
                "seq_classif_dropout": 0.2,
                "sinusoidal_pos_embds": False,
                "tie_weights_": True,
                "vocab_size": 30522,
            },
            {"n_layers": 6, "dropout": 0.1},
            id="a DistilBERT of 2019",
        ),
        pytest.param(
            "electra",
            {
                **COMMON,
                "model_type": "electra",
                "embedding_size": 128,
                "hidden_size": 256,
                "intermediate_size": 1024,
                "layer_norm_eps": 1e-12,
                "num_attention_heads": 4,
                "pad_token_id": 0,
                "position_embedding_type": "absolute",
                "summary_activation": "gelu",
                "summary_last_dropout": 0.1,
                "summary_type": "first",
                "summary_use_proj": True,
                "type_vocab_size": 2,
                "vocab_size": 30522,
            },
            {"embedding_size": 128},
            id="a small ELECTRA",
        ),
        pytest.param(
            "albert",
            {
                **COMMON,
                "model_type": "albert",
                "attention_probs_dropout_prob": 0,
                "bos_token_id": 2,
                "classifier_dropout_prob": 0.1,
                "down_scale_factor": 1,
                "embedding_size": 128,
                "eos_token_id": 3,
                "gap_size": 0,
                "hidden_act": "gelu_new",
                "hidden_dropout_prob": 0,
                "inner_group_num": 1,
                "layer_norm_eps": 1e-12,
                "net_structure_type": 0,
                "num_hidden_groups": 1,
                "num_memory_blocks": 0,
                "pad_token_id": 0,
                "type_vocab_size": 2,
                "vocab_size": 30000,
            },
            {"hidden_act": "gelu_new", "hidden_dropout_prob": 0.0},
            id="an ALBERT of version 2",
        ),
        pytest.param(
            "deberta_v2",
            {
                **COMMON,
                "model_type": "deberta-v2",
                "relative_attention": True,
                "position_buckets": 256,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "pos_att_type": "p2c|c2p",
                "layer_norm_eps": 1e-7,
                "max_relative_positions": -1,
                "position_biased_input": False,
                "pooler_dropout": 0,
                "pooler_hidden_act": "gelu",
                "pooler_hidden_size": 768,
                "type_vocab_size": 0,
                "vocab_size": 128100,
            },
            {"pos_att_type": ["p2c", "c2p"], "conv_kernel_size": 0, "conv_act": "tanh", "position_buckets": 256},
            id="a DeBERTa of version 3",
        ),
        pytest.param(
            "deberta_v2",
            {
                **COMMON,
                "model_type": "deberta-v2",
                "relative_attention": True,
                "position_buckets": 256,
                "norm_rel_ebd": "layer_norm",
                "share_att_key": True,
                "pos_att_type": "p2c|c2p",
                "layer_norm_eps": 1e-7,
                "conv_kernel_size": 3,
                "conv_act": "gelu",
                "max_relative_positions": -1,
                "position_biased_input": False,
                "attention_head_size": 64,
                "hidden_size": 1536,
                "intermediate_size": 6144,
                "num_attention_heads": 24,
                "num_hidden_layers": 24,
                "type_vocab_size": 0,
                "vocab_size": 128100,
            },
            {"conv_kernel_size": 3, "conv_act": "gelu", "pos_att_type": ["p2c", "c2p"]},
            id="an xlarge DeBERTa of version 2",
        ),
        pytest.param(
            "deberta_v2",
            {"model_type": "deberta-v2", "relative_attention": True},
            {"position_buckets": -1, "share_att_key": False, "norm_rel_ebd": "none", "pos_att_type": None},
            id="a DeBERTa that says nothing",
        ),
    ],
)
def test_configs_of_published_files_are_read(tmp_path, name, published, expected):
    (tmp_path / "config.json").write_text(json.dumps({**published, "architectures": ["Some"], "output_past": True}))
    read_as, config = read_config(tmp_path)
    assert read_as == name == {counterpart(known).model_type: known for known in NAMES}[published["model_type"]]
    assert {key: config[key] for key in expected} == expected
