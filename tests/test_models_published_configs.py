"""Configs as published checkpoints have them, with attributes of older versions; and what is refused by name."""

import json

import pytest

from wsr import models
from wsr.errors import WsrError
from wsr.models.huggingface.config import read_config

LLAMA_3_1 = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}
QWEN2 = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 896,
    "initializer_range": 0.02,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "max_window_layers": 21,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = {
    **QWEN2,
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "max_window_layers": 28,
    "rope_scaling": None,
    "sliding_window": None,
}
GPT2 = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
FLAN_T5 = {
    "model_type": "t5",
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 1024,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "feed_forward_proj": "gated-gelu",
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "n_positions": 512,
    "num_decoder_layers": 8,
    "num_heads": 6,
    "num_layers": 8,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_max_distance": 128,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {"summarization": {"max_length": 200}},
    "tie_word_embeddings": False,
    "use_cache": True,
    "vocab_size": 32128,
}
MODERNBERT = {
    "model_type": "modernbert",
    "architectures": ["ModernBertForMaskedLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 50281,
    "classifier_activation": "gelu",
    "classifier_bias": False,
    "classifier_dropout": 0.0,
    "classifier_pooling": "mean",
    "cls_token_id": 50281,
    "decoder_bias": True,
    "deterministic_flash_attn": False,
    "embedding_dropout": 0.0,
    "eos_token_id": 50282,
    "global_attn_every_n_layers": 3,
    "global_rope_theta": 160000.0,
    "gradient_checkpointing": False,
    "hidden_activation": "gelu",
    "hidden_size": 768,
    "initializer_cutoff_factor": 2.0,
    "initializer_range": 0.02,
    "intermediate_size": 1152,
    "layer_norm_eps": 1e-05,
    "local_attention": 128,
    "local_rope_theta": 10000.0,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "mlp_dropout": 0.0,
    "norm_bias": False,
    "norm_eps": 1e-05,
    "num_attention_heads": 12,
    "num_hidden_layers": 22,
    "pad_token_id": 50283,
    "position_embedding_type": "absolute",
    "sep_token_id": 50282,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "vocab_size": 50368,
}


@pytest.fixture
def read(tmp_path):
    def from_file(config, **changes):
        (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
        name, own = read_config(tmp_path)
        present = models.architectures()[name].counterpart.present
        models.build(name, {**own, **dict.fromkeys(present, True), "pooling": "mean", **_shallow(own)})
        return own

    return from_file


def _shallow(config):
    """One layer, which is built faster than many."""
    layers = next(name for name in ("num_hidden_layers", "n_layer", "num_layers") if name in config)
    return {layers: 1, **({"layer_types": config["layer_types"][:1]} if "layer_types" in config else {})}


def test_llama_3_1(read):
    found = read(LLAMA_3_1)
    assert found["rope_parameters"] == {**LLAMA_3_1["rope_scaling"], "rope_theta": 500000.0}
    assert (found["head_dim"], found["num_key_value_heads"]) == (128, 8)
    assert read({**LLAMA_3_1, "rope_scaling": None})["rope_parameters"]["rope_type"] == "default"


def test_qwen(read):
    assert read(QWEN2)["rope_parameters"] == {"rope_theta": 1000000.0, "rope_type": "default"}
    assert read(QWEN3)["head_dim"] == 128


def test_gpt2_and_t5_and_modernbert(read):
    assert read(GPT2)["n_inner"] is None
    assert read(FLAN_T5)["feed_forward_proj"] == "gated-gelu"
    found = read(MODERNBERT)
    assert found["layer_types"][:4] == ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert found["rope_parameters"]["sliding_attention"]["rope_theta"] == 10000.0


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (QWEN2, {"use_sliding_window": True}, r"layer_types = .*sliding_window = 32768;"),
        (QWEN3, {"layer_types": ["sliding_attention"] * 24}, "unsupported: layer_types = "),
        (LLAMA_3_1, {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "rope_type = 'dynamic'"),
        (LLAMA_3_1, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope_type = 'yarn'"),
        (QWEN2, {"partial_rotary_factor": 0.5}, "unknown partial_rotary_factor = 0.5"),
        (LLAMA_3_1, {"hidden_act": "swiglu"}, "hidden_act = 'swiglu'; known: "),
        (LLAMA_3_1, {"head_dim": 3}, "even number of features in a head, found 3"),
        (GPT2, {"add_cross_attention": True}, "unsupported: add_cross_attention = True"),
        (FLAN_T5, {"is_decoder": True}, "unsupported: is_decoder = True"),
        (FLAN_T5, {"feed_forward_proj": "gated-swish"}, "feed_forward_proj = 'gated-swish'; known: "),
        (MODERNBERT, {"layer_types": ["full_attention"] * 3}, r"layer_types = .*22 layers|num_hidden_layers"),
    ],
)
def test_what_would_change_the_hidden_states_is_refused_by_name(read, config, changes, message):
    with pytest.raises(WsrError, match=message):
        read(config, **changes)
