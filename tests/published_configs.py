"""Configs as published on the Hugging Face hub, with the attributes that people and older libraries add to them.

Written from memory of the public files; what matters is which attributes they have. ``SMALL`` scales them down.
"""

from typing import Any

from published_bases import (
    ALBERT,
    BERT,
    DEBERTA_CLASSIFIER,
    DEBERTA_V3,
    DISTILBERT,
    ELECTRA,
    EMBEDDING_GEMMA,
    GEMMA,
    GEMMA2,
    GEMMA3,
    GPT2,
    LLAMA_3_2,
    MODERNBERT,
    MPNET,
    MULTILINGUAL_BERT,
    QWEN2,
    QWEN3,
    ROBERTA,
    T5,
    TINY_LLAMA,
    VIT,
    XLM_ROBERTA,
)

FIVE_STARS = {str(number): f"{number + 1} stars" for number in range(5)}
SENTIMENT = {"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
LOADED: dict[str, dict[str, Any]] = {
    "bert-base-uncased": BERT,
    "bert-base-multilingual-cased": MULTILINGUAL_BERT,
    "bert-large-squad": {**BERT, "architectures": ["BertForQuestionAnswering"], "hidden_size": 1024},
    "bert-base-NER": {
        **MULTILINGUAL_BERT,
        "_num_labels": 3,
        "architectures": ["BertForTokenClassification"],
        "id2label": {"0": "O", "1": "B-PER", "2": "I-PER"},
        "label2id": {"B-PER": 1, "I-PER": 2, "O": 0},
        "output_past": True,
    },
    "bert-multilingual-sentiment": {
        **MULTILINGUAL_BERT,
        "_num_labels": 5,
        "finetuning_task": "sentiment-analysis",
        "id2label": FIVE_STARS,
        "label2id": {label: int(number) for number, label in FIVE_STARS.items()},
        "output_past": True,
    },
    "finbert": {
        **BERT,
        "_name_or_path": "/home/someone/lm",
        "is_decoder": False,
        "num_labels": 3,
        "output_attentions": False,
        "output_hidden_states": False,
        "pruned_heads": {},
        "torchscript": False,
        "use_bfloat16": False,
    },
    "bge-small-en": {
        **BERT,
        "_name_or_path": "/root/.cache/torch/sentence_transformers/BAAI_bge-small-en/",
        "architectures": ["BertModel"],
        "classifier_dropout": None,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
    },
    "multilingual-e5-small": {**BERT, "architectures": ["BertModel"], "tokenizer_class": "XLMRobertaTokenizer"},
    "all-MiniLM-L6-v2": {**BERT, "architectures": ["BertModel"], "_name_or_path": "nreimers/MiniLM-L6-H384-uncased"},
    "ms-marco-MiniLM-L6-v2": {
        **BERT,
        "architectures": ["BertForSequenceClassification"],
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity",
    },
    "ms-marco-TinyBERT-L2-v2": {
        **BERT,
        "architectures": ["BertForSequenceClassification"],
        "sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0.dev0"},
    },
    "legal-bert": {**BERT, "output_past": True, "eos_token_ids": 0, "bos_token_id": 0},
    "distilbert-base-uncased": DISTILBERT,
    "distilbert-sst-2": {
        **DISTILBERT,
        **SENTIMENT,
        "architectures": ["DistilBertForSequenceClassification"],
        "finetuning_task": "sst-2",
        "output_past": True,
    },
    "distilbert-squad": {**DISTILBERT, "architectures": ["DistilBertForQuestionAnswering"], "output_past": True},
    "distilbert-multilingual": {**DISTILBERT, "output_past": True, "vocab_size": 119547},
    "roberta-base": ROBERTA,
    "roberta-large-mnli": {
        **ROBERTA,
        "_num_labels": 3,
        "architectures": ["RobertaForSequenceClassification"],
        "id2label": {"0": "CONTRADICTION", "1": "NEUTRAL", "2": "ENTAILMENT"},
        "label2id": {"CONTRADICTION": 0, "NEUTRAL": 1, "ENTAILMENT": 2},
    },
    "twitter-roberta-sentiment": {
        **ROBERTA,
        "architectures": ["RobertaForSequenceClassification"],
        "classifier_dropout": None,
        "gradient_checkpointing": False,
        "position_embedding_type": "absolute",
        "torch_dtype": "float32",
    },
    "roberta-base-squad2": {**ROBERTA, "language": "english", "name": "Roberta", "gradient_checkpointing": False},
    "xlm-roberta-base": XLM_ROBERTA,
    "xlm-roberta-language-detection": {**XLM_ROBERTA, "problem_type": "single_label_classification"},
    "all-mpnet-base-v2": {**MPNET, "_name_or_path": "microsoft/mpnet-base"},
    "electra-small-discriminator": ELECTRA,
    "electra-base-generator": {**ELECTRA, "architectures": ["ElectraForMaskedLM"], "embedding_size": 768},
    "albert-base-v2": ALBERT,
    "albert-xxlarge-v1": {**ALBERT, "hidden_act": "gelu", "layers_to_keep": []},
    "deberta-v3-base": DEBERTA_V3,
    "deberta-v3-mnli": DEBERTA_CLASSIFIER,
    "nli-deberta-v3": {**DEBERTA_CLASSIFIER, "sentence_transformers": {"version": "4.1.0"}, "legacy": True},
    "deberta-v2-xlarge": {
        **DEBERTA_V3,
        "attention_head_size": 4,
        "conv_act": "gelu",
        "conv_kernel_size": 3,
        "type_vocab_size": 0,
    },
    "ModernBERT-base": MODERNBERT,
    "ModernBERT-nli": {
        **MODERNBERT,
        "architectures": ["ModernBertForSequenceClassification"],
        "classifiers_size": [3, 2],
        "reference_compile": False,
        "repad_logits_with_grad": False,
        "sparse_pred_ignore_index": -100,
        "sparse_prediction": False,
        "tasks": ["glue/mnli"],
    },
    "t5-small": T5,
    "flan-t5-small": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_decoder_layers": 8},
    "gpt2": GPT2,
    "distilgpt2": {**GPT2, "_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
    "Llama-3.2-1B": LLAMA_3_2,
    "Llama-3.2-1B-unsloth": {
        **LLAMA_3_2,
        "pad_token_id": 128004,
        "unsloth_fixed": True,
        "unsloth_version": "2025.3.19",
    },
    "TinyLlama-chat": TINY_LLAMA,
    "SmolLM2-135M": {
        **TINY_LLAMA,
        "is_llama_config": True,
        "rope_interleaved": False,
        "tie_word_embeddings": True,
        "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"}},
    },
    "Qwen2.5-0.5B": QWEN2,
    "Qwen3-0.6B": QWEN3,
    "gemma-2b": GEMMA,
    "gemma-2-2b": GEMMA2,
    "gemma-3-1b-it": GEMMA3,
    "embeddinggemma-300m": EMBEDDING_GEMMA,
    "vit-base-patch16": VIT,
}
"""Those whose hidden states must be transformers' own."""

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "Qwen2.5-0.5B-bnb-4bit": (
        {**QWEN2, "quantization_config": {"load_in_4bit": True, "quant_method": "bitsandbytes"}},
        "its weights are quantised",
    ),
    "jina-embeddings-v2": (
        {**BERT, "auto_map": {"AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel"}},
        "it needs code from its own repository",
    ),
}
"""Those that are refused, each with the reason."""

_BERT_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 64,
    # Wide, so that activations leave the range where exact and tanh GELU agree.
    "initializer_range": 0.3,
}
SMALL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "mpnet", "deberta-v2", "vit"), _BERT_SMALL),
    "vit": {name: size for name, size in _BERT_SMALL.items() if name != "vocab_size"}
    | {"image_size": 16, "patch_size": 8},
    "electra": {**_BERT_SMALL, "embedding_size": 8},
    "albert": {**_BERT_SMALL, "embedding_size": 8},
    "modernbert": {**_BERT_SMALL, "num_hidden_layers": 4, "local_attention": 6, "pad_token_id": 0},
    "distilbert": {
        "dim": 16,
        "hidden_dim": 24,
        "n_heads": 4,
        "n_layers": 2,
        "vocab_size": 64,
        "initializer_range": 0.3,
    },
    "t5": {"d_ff": 24, "d_kv": 4, "d_model": 16, "num_heads": 4, "num_layers": 2, "vocab_size": 64},
    "gpt2": {"n_embd": 16, "n_head": 4, "n_layer": 2, "vocab_size": 64, "initializer_range": 0.3},
    **{name: {**_BERT_SMALL, "num_key_value_heads": 2} for name in ("llama", "qwen2", "qwen3", "gemma")},
    "gemma2": {**_BERT_SMALL, "num_key_value_heads": 2, "sliding_window": 4},
    "gemma3_text": {
        **_BERT_SMALL,
        "num_key_value_heads": 2,
        "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
"""By model type."""


def small(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a config with the sizes of a model that a test can build, and everything else as published."""
    sizes = dict(SMALL[config["model_type"]])
    if "head_dim" in config:
        sizes["head_dim"] = 8
    if (config.get("pad_token_id") or 0) >= 64:
        sizes["pad_token_id"] = 0
    return {**config, **sizes}
