"""What the tests ask of every architecture with a counterpart in transformers: a new one joins by one entry of a table.

The classes and the names of weights are the registry's; an entry says which random models to compare with PyTorch.
"""

import functools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wsr import models
from wsr.models.counterpart import Counterpart
from wsr.models.huggingface.config import read_config
from wsr.models.huggingface.weights import from_huggingface

Changes = Mapping[str, Any]
"""Attributes of a config, under transformers' names."""


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """One architecture's entry."""

    sizes: Changes
    """Of a random model: hidden states of width 24, 40 tokens."""
    variants: Mapping[str, Changes] = field(default_factory=dict)
    """Other configs that must agree with PyTorch, and what to call them."""
    heads: tuple[str, ...] = ()
    """Classes of transformers with a head, whose files must be readable without it."""
    token_types: bool = False
    """Whether the second text of a pair is told from the first."""
    deep: Changes | None = None
    """A variant of twelve layers, for which the tolerance is 1e-4."""
    largest: Changes
    """The largest public checkpoint."""
    parameters: int
    """Of its encoder, without pooler and heads."""
    max_length: int = 512
    """Its longest text."""
    auto_class: str = "AutoModel"
    """The class of transformers that loads an export."""


# Wide, so that activations leave the range where exact and tanh GELU agree.
SPREAD = {"initializer_range": 0.3}
BERT_SIZES = {
    **SPREAD,
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 20,
    "type_vocab_size": 2,
}
BERT_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

LLAMA_SIZES = {
    "initializer_range": 0.2,
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}
LLAMA3_ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 100.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 2.0,
    "original_max_position_embeddings": 16,
}
MODERNBERT_ROTARY = {
    "full_attention": {"rope_type": "linear", "rope_theta": 100.0, "factor": 2.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
}
GEMMA_SIZES = {**LLAMA_SIZES, "head_dim": 8}
GEMMA2_SIZES = {**GEMMA_SIZES, "query_pre_attn_scalar": 5, "sliding_window": 4}
GEMMA3_ROTARY = {
    "full_attention": {"rope_type": "linear", "rope_theta": 100.0, "factor": 8.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 10.0},
}
DEBERTA_V3 = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
}

ORACLES = {
    "bert": Oracle(
        sizes=BERT_SIZES,
        variants={
            "tanh gelu": {"hidden_act": "gelu_new"},
            "tanh gelu of torch": {"hidden_act": "gelu_pytorch_tanh"},
            "relu": {"hidden_act": "relu"},
            "large epsilon": {"layer_norm_eps": 1e-2},
        },
        deep={"num_hidden_layers": 12},
        heads=("BertForMaskedLM", "BertForSequenceClassification"),
        token_types=True,
        # Published: 335,141,888 with the pooler of 1,049,600; RoBERTa's 355,359,744 and XLM-RoBERTa's 559,890,432 too.
        largest={**BERT_LARGE, "vocab_size": 30522, "max_position_embeddings": 512},
        parameters=334_092_288,
    ),
    "roberta": Oracle(
        sizes={**BERT_SIZES, "type_vocab_size": 1},
        variants={"tanh gelu": {"hidden_act": "gelu_new"}},
        heads=("RobertaForMaskedLM", "RobertaForSequenceClassification"),
        largest={**BERT_LARGE, "vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1},
        parameters=354_310_144,
    ),
    "xlm_roberta": Oracle(
        sizes={**BERT_SIZES, "type_vocab_size": 1},
        heads=("XLMRobertaForMaskedLM", "XLMRobertaForSequenceClassification"),
        largest={**BERT_LARGE, "vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1},
        parameters=558_840_832,
    ),
    "distilbert": Oracle(
        sizes={
            **SPREAD,
            "vocab_size": 40,
            "dim": 24,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": 20,
        },
        variants={"tanh gelu": {"activation": "gelu_new"}, "sinusoidal": {"sinusoidal_pos_embds": True}},
        heads=("DistilBertForMaskedLM", "DistilBertForSequenceClassification", "DistilBertForQuestionAnswering"),
        # The multilingual one.
        largest={"vocab_size": 119547},
        parameters=134_734_080,
    ),
    "electra": Oracle(
        sizes={**BERT_SIZES, "embedding_size": 16},
        variants={"no projection": {"embedding_size": 24}, "relu": {"hidden_act": "relu"}},
        heads=("ElectraForPreTraining", "ElectraForMaskedLM", "ElectraForSequenceClassification"),
        token_types=True,
        largest={**BERT_LARGE, "embedding_size": 1024},
        parameters=334_092_288,
    ),
    "albert": Oracle(
        sizes={**BERT_SIZES, "embedding_size": 16},
        variants={
            "embeddings as wide as layers": {"embedding_size": 24},
            "groups": {"num_hidden_groups": 2},
            "inner layers": {"inner_group_num": 2},
            "groups of inner layers": {"num_hidden_layers": 5, "num_hidden_groups": 3, "inner_group_num": 2},
            "exact gelu": {"hidden_act": "gelu"},
        },
        deep={"num_hidden_layers": 12},
        heads=("AlbertForPreTraining", "AlbertForMaskedLM", "AlbertForSequenceClassification"),
        token_types=True,
        largest={},  # The config class has the numbers of xxlarge; here and below counted from PyTorch's own model.
        parameters=205_814_272,
    ),
    "mpnet": Oracle(
        sizes={name: size for name, size in BERT_SIZES.items() if name != "type_vocab_size"},
        variants={"more buckets": {"relative_attention_num_buckets": 40}, "relu": {"hidden_act": "relu"}},
        heads=("MPNetForMaskedLM", "MPNetForSequenceClassification"),
        largest={"max_position_embeddings": 514},
        parameters=108_895_872,
    ),
    "deberta_v2": Oracle(
        sizes={**BERT_SIZES, **DEBERTA_V3, "position_buckets": 6},
        variants={
            "content to position": {"pos_att_type": "c2p"},
            "position to content": {"pos_att_type": "p2c"},
            "neither": {"pos_att_type": []},
            "projections of their own": {"share_att_key": False},
            "one projection of its own": {"share_att_key": False, "pos_att_type": "p2c"},
            "no buckets": {"position_buckets": -1},
            "fewer distances than places": {"position_buckets": -1, "max_relative_positions": 5},
            "buckets over a shorter reach": {"position_buckets": 4, "max_relative_positions": 8},
            "bare table of distances": {"norm_rel_ebd": "none"},
            "absolute positions": {"position_biased_input": True},
            "no token types": {"type_vocab_size": 0},
            "convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
            "wide convolution": {"conv_kernel_size": 5, "conv_act": "tanh"},
        },
        deep={"num_hidden_layers": 12},
        heads=("DebertaV2ForMaskedLM", "DebertaV2ForSequenceClassification"),
        token_types=True,
        # deberta-v2-xxlarge
        largest={**DEBERTA_V3, "num_hidden_layers": 48, "conv_kernel_size": 3, "conv_act": "gelu"},
        parameters=1_564_549_632,
    ),
    "modernbert": Oracle(
        sizes={
            **SPREAD,
            "vocab_size": 40,
            "hidden_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 32,
            "max_position_embeddings": 32,
            "pad_token_id": 0,
            "local_attention": 6,
        },
        variants={
            "odd window": {"local_attention": 9},
            "biases": {"attention_bias": True, "mlp_bias": True, "norm_bias": True},
            "other layers": {"layer_types": ["sliding_attention", "full_attention"] * 2},
            "theta": {"rope_parameters": MODERNBERT_ROTARY},
        },
        deep={"num_hidden_layers": 12},
        heads=("ModernBertForMaskedLM", "ModernBertForSequenceClassification"),
        largest={"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624},
        parameters=394_781_696,
        max_length=8192,
    ),
    "t5": Oracle(
        sizes={
            "vocab_size": 40,
            "d_model": 24,
            "d_kv": 8,
            "d_ff": 32,
            "num_layers": 2,
            "num_heads": 4,
            "relative_attention_num_buckets": 8,
            "relative_attention_max_distance": 12,
        },
        variants={
            "gated": {"feed_forward_proj": "gated-gelu"},
            "gated by silu": {"feed_forward_proj": "gated-silu"},
            "more buckets": {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
        },
        heads=("T5ForConditionalGeneration", "T5ForSequenceClassification", "T5ForTokenClassification"),
        deep={"num_layers": 12},
        largest={"d_model": 1024, "d_kv": 128, "d_ff": 65536, "num_layers": 24, "num_heads": 128},
        parameters=4_864_791_552,
        auto_class="AutoModelForTextEncoding",
    ),
    "clip_text": Oracle(
        sizes={
            "vocab_size": 40,
            "hidden_size": 24,
            "intermediate_size": 48,
            "projection_dim": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 20,
            # Wide, so that activations leave the range where quick and exact GELU agree.
            "initializer_factor": 3.0,
        },
        variants={"exact gelu": {"hidden_act": "gelu"}, "large epsilon": {"layer_norm_eps": 1e-2}},
        deep={"num_hidden_layers": 12, "initializer_factor": 1.0},
        # The text tower of CLIP ViT-bigG.
        largest={
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "num_hidden_layers": 32,
            "num_attention_heads": 20,
            "projection_dim": 1280,
            "hidden_act": "gelu",
        },
        parameters=693_021_440,
        max_length=77,
    ),
    "gpt2": Oracle(
        sizes={**SPREAD, "vocab_size": 40, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 20},
        variants={
            "inner width": {"n_inner": 30},
            "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
            "not scaled": {"scale_attn_weights": False},
        },
        heads=("GPT2LMHeadModel", "GPT2ForSequenceClassification", "GPT2ForTokenClassification"),
        deep={"n_layer": 12},
        # Published: 1,557,611,200.
        largest={"n_embd": 1600, "n_layer": 48, "n_head": 25},
        parameters=1_557_611_200,
        max_length=1024,
    ),
    "llama": Oracle(
        sizes=LLAMA_SIZES,
        variants={
            "wide heads and biases": {"head_dim": 8, "attention_bias": True, "mlp_bias": True},
            "own keys": {"num_key_value_heads": 4},
            "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 100.0, "factor": 4.0}},
            "llama3": {"rope_parameters": LLAMA3_ROTARY},
        },
        deep={"num_hidden_layers": 12},
        heads=("LlamaForCausalLM", "LlamaForSequenceClassification", "LlamaForTokenClassification"),
        # Llama 3.1 405B. Published: 405,853,388,800 with an untied head of 2,101,346,304; Qwen's figures likewise.
        largest={
            "vocab_size": 128256,
            "hidden_size": 16384,
            "num_hidden_layers": 126,
            "num_attention_heads": 128,
            "num_key_value_heads": 8,
            "intermediate_size": 53248,
            "max_position_embeddings": 131072,
        },
        parameters=403_752_042_496,
        max_length=131072,
    ),
    "qwen2": Oracle(
        sizes=LLAMA_SIZES,
        heads=("Qwen2ForCausalLM", "Qwen2ForSequenceClassification"),
        largest={
            "vocab_size": 152064,
            "hidden_size": 8192,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "intermediate_size": 29568,
        },
        parameters=71_460_495_360,
        max_length=32768,
    ),
    "qwen3": Oracle(
        sizes={**LLAMA_SIZES, "head_dim": 8},
        variants={"biases": {"attention_bias": True}},
        heads=("Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
        largest={
            "hidden_size": 5120,
            "num_hidden_layers": 64,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "intermediate_size": 25600,
            "max_position_embeddings": 40960,
        },
        parameters=31_984_210_944,
        max_length=40960,
    ),
    "gemma": Oracle(
        sizes=GEMMA_SIZES,
        variants={
            "biases": {"attention_bias": True},
            "one key head": {"num_key_value_heads": 1},
            "silu": {"hidden_act": "silu"},
        },
        deep={"num_hidden_layers": 12},
        heads=("GemmaForCausalLM", "GemmaForSequenceClassification", "GemmaForTokenClassification"),
        # Gemma 7B. Published: 8,537,680,896.
        largest={},
        parameters=8_537_680_896,
        max_length=8192,
    ),
    "gemma2": Oracle(
        sizes=GEMMA2_SIZES,
        variants={
            "low cap of scores": {"attn_logit_softcapping": 0.5},
            "no cap of scores": {"attn_logit_softcapping": None},
            "wider window": {"sliding_window": 6},
            "other layers": {"layer_types": ["full_attention", "sliding_attention"]},
            "own scale": {"query_pre_attn_scalar": 20},
        },
        deep={"num_hidden_layers": 12},
        heads=("Gemma2ForCausalLM", "Gemma2ForSequenceClassification", "Gemma2ForTokenClassification"),
        # Gemma 2 27B. Published: 27,227,128,320.
        largest={
            "hidden_size": 4608,
            "num_hidden_layers": 46,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "intermediate_size": 36864,
        },
        parameters=27_227_128_320,
        max_length=8192,
    ),
    "gemma3_text": Oracle(
        sizes={**GEMMA2_SIZES, "layer_types": ["sliding_attention", "full_attention"]},
        variants={
            "both directions": {"use_bidirectional_attention": True},
            "linear": {"rope_parameters": GEMMA3_ROTARY},
            "only local layers": {"layer_types": ["sliding_attention"] * 2},
            "biases": {"attention_bias": True},
        },
        deep={"num_hidden_layers": 12, "layer_types": None},
        heads=("Gemma3ForCausalLM", "Gemma3TextForSequenceClassification"),
        # The text model of Gemma 3 27B.
        largest={
            "hidden_size": 5376,
            "num_hidden_layers": 62,
            "num_attention_heads": 32,
            "num_key_value_heads": 16,
            "head_dim": 128,
            "intermediate_size": 21504,
        },
        parameters=27_009_346_304,
        max_length=131072,
    ),
}
"""By the architecture's name."""

NAMES = sorted(ORACLES)
CASES = [(name, variant) for name in NAMES for variant in ("", *ORACLES[name].variants)]
"""Every architecture as it is and in its variants."""


def counterpart(name: str) -> Counterpart:
    """Returns the counterpart of a registered architecture that has one."""
    found = models.architectures()[name].counterpart
    assert found is not None
    return found


def their_config(name: str, **changes: Any) -> Any:
    """Returns the config object of transformers for a small random model."""
    return _config(name, **{**ORACLES[name].sizes, **changes})


def largest_config(name: str) -> Any:
    """Returns the config object of transformers of the largest public checkpoint."""
    return _config(name, **ORACLES[name].largest)


def our_config(config: Any) -> tuple[str, dict[str, Any]]:
    """Returns the architecture and the config, but for the pooling, that a config object of transformers is read as.

    It is that of a model without the parts that not every checkpoint has.
    """
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        name, own = read_config(Path(folder))
    return name, {**own, **dict.fromkeys(counterpart(name).present, False)}


@functools.cache
def pair(name: str, variant: str = "") -> tuple[Any, models.Model, Any]:
    """Returns a random PyTorch encoder, the same one here, under "cls" pooling, and its parameters.

    ``variant`` is one of the oracle's, "deep" for its deep one, or "" for none.
    """
    oracle = ORACLES[name]
    return changed_pair(name, **{"": {}, "deep": oracle.deep or {}, **oracle.variants}[variant])


def changed_pair(name: str, **changes: Any) -> tuple[Any, models.Model, Any]:
    """Returns what ``pair`` does, for a config with any changes."""
    import torch
    import transformers

    torch.manual_seed(0)
    theirs = getattr(transformers, counterpart(name).model_class)(their_config(name, **changes)).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():  # Fresh models have zero biases and unit scales: hide nothing.
            parameter.add_(0.1 * torch.randn_like(parameter))
    read_as, config = our_config(theirs.config)
    assert read_as == name
    ours = models.build(name, {**config, "pooling": "cls"})
    params, _ = from_huggingface(ours, {key: value.numpy() for key, value in theirs.state_dict().items()})
    return theirs, ours, params


def _config(name: str, **attributes: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(counterpart(name).model_type, **attributes)
