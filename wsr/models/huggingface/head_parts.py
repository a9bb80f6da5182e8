"""The modules of each head in ``transformers``: an adapter lacks those that PEFT did not train."""

from collections.abc import Mapping

import numpy as np

from wsr.models.counterpart import Counterpart
from wsr.models.huggingface.weights import without_prefix

_BERT_POOLER = dict.fromkeys(
    ("SequenceClassification", "MultipleChoice", "NextSentencePrediction"), ("bert.pooler.dense",)
)
_MODERNBERT_HEAD = dict.fromkeys(
    ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"),
    ("head.dense", "head.norm"),
)
_PARTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "bert": {
        **_BERT_POOLER,
        "MaskedLM": ("cls.predictions",),
        "PreTraining": ("bert.pooler.dense", "cls.predictions", "cls.seq_relationship"),
    },
    "roberta": {"MultipleChoice": ("roberta.pooler.dense",), "MaskedLM": ("lm_head",)},
    "xlm-roberta": {"MultipleChoice": ("roberta.pooler.dense",), "MaskedLM": ("lm_head",)},
    "mpnet": {"MultipleChoice": ("mpnet.pooler.dense",), "MaskedLM": ("lm_head",)},
    "albert": {
        "SequenceClassification": ("albert.pooler",),
        "MultipleChoice": ("albert.pooler",),
        "MaskedLM": ("predictions",),
    },
    "distilbert": {
        "SequenceClassification": ("pre_classifier",),
        "MultipleChoice": ("pre_classifier",),
        "MaskedLM": ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
    },
    "electra": {
        "MultipleChoice": ("sequence_summary.summary",),
        "MaskedLM": ("generator_predictions", "generator_lm_head"),
        "PreTraining": ("discriminator_predictions",),
    },
    "deberta-v2": {
        "SequenceClassification": ("pooler.dense",),
        "MultipleChoice": ("pooler.dense",),
        "MaskedLM": ("cls.predictions",),
    },
    "modernbert": {**_MODERNBERT_HEAD, "MaskedLM": ("head.dense", "head.norm", "decoder")},
    "t5": {
        "SequenceClassification": ("transformer.decoder",),
        "QuestionAnswering": ("decoder",),
        "ConditionalGeneration": ("decoder",),
    },
}
"""By model type and end of the class's name, with the names in that class. The last layer (``_LAST``) and a decoder
tied to the token embedding are not listed."""
_LAST = {
    "SequenceClassification": "classifier",
    "TokenClassification": "classifier",
    "MultipleChoice": "classifier",
    "QuestionAnswering": "qa_outputs",
    "NextSentencePrediction": "cls.seq_relationship",
}
_OTHER_LAST = {
    ("modernbert", "QuestionAnswering"): "classifier",
    ("t5", "SequenceClassification"): "classification_head",
    ("gpt2", "SequenceClassification"): "score",
    **{
        (decoder, f"{kind}Classification"): "score"
        for decoder in ("llama", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")
        for kind in ("Sequence", "Token")
    },
}
"""The last layer of a class, by the end of its name, and where an architecture calls it otherwise."""


def class_of(counterpart: Counterpart, head: str) -> str:
    """Returns the class of an architecture with a head: ``BertForMaskedLM`` for ``MaskedLM``."""
    return f"{counterpart.model_class.removesuffix('Model').removesuffix('Encoder')}For{head}"


def complete(
    head: dict[str, np.ndarray],
    base_head: Mapping[str, np.ndarray],
    counterpart: Counterpart,
    model_class: str | None,
) -> list[str]:
    """Adds to the head of an adapter what it has from the base.

    Args:
      head: the adapter's tensors outside the encoder, by their names in its class; changed.
      base_head: the base's tensors outside the encoder, by their names without prefix.
      counterpart: of the architecture.
      model_class: class of the adapted model; None: nothing is added.

    Returns:
      The modules that are in neither.
    """
    model_type, kind = counterpart.model_type, (model_class or "").rpartition("For")[2]
    last = _OTHER_LAST.get((model_type, kind), _LAST.get(kind))
    parts = (*_PARTS.get(model_type, {}).get(kind, ()), *((last,) if last else ()))
    for part in parts:
        bare = without_prefix(counterpart, part)
        for name, tensor in base_head.items():
            if name.startswith(f"{bare}."):
                head.setdefault(f"{part}{name.removeprefix(bare)}", tensor)
    return [part for part in parts if not any(name.startswith(f"{part}.") for name in head)]
