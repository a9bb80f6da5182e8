"""Every architecture with every head that transformers has for it: import, export with the head, the same logits."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from oracles import ORACLES, counterpart, their_config
from safetensors.numpy import load_file

from wsr import models
from wsr.exchange.member import read_member
from wsr.geometry.trees import flatten
from wsr.models.huggingface.folder import write_folder
from wsr.models.huggingface.heads import stored_classifier

WORDS = 108  # of the tokenizer of "tiny"
LABELS = {"id2label": {0: "x", 1: "y", 2: "z"}, "label2id": {"x": 0, "y": 1, "z": 2}}
ENCODER_HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
DECODER_HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering")
CAUSAL_HEADS = (*DECODER_HEADS, "CausalLM")
HEADS = {
    "bert": (*ENCODER_HEADS, "NextSentencePrediction", "PreTraining", "LMHeadModel"),
    "roberta": (*ENCODER_HEADS, "CausalLM"),
    "xlm_roberta": (*ENCODER_HEADS, "CausalLM"),
    "distilbert": ENCODER_HEADS,
    "electra": (*ENCODER_HEADS, "PreTraining", "CausalLM"),
    "albert": (*ENCODER_HEADS, "PreTraining"),
    "mpnet": ENCODER_HEADS,
    "deberta_v2": ENCODER_HEADS,
    "modernbert": ENCODER_HEADS,
    "t5": (*DECODER_HEADS, "ConditionalGeneration"),
    "gpt2": (*DECODER_HEADS, "DoubleHeadsModel", "LMHeadModel"),
    "llama": CAUSAL_HEADS,
    "qwen2": CAUSAL_HEADS,
    "qwen3": CAUSAL_HEADS,
    "gemma": ("SequenceClassification", "TokenClassification", "CausalLM"),
    "gemma2": ("SequenceClassification", "TokenClassification", "CausalLM"),
    "gemma3_text": ("SequenceClassification", "CausalLM"),
    "clip_text": (),
}
"""Ends of the names of all classes with a head, by architecture; those that read images have tests of their own. A
causal language model of an encoder reads in both directions unless its config says ``is_decoder``, which is refused."""
SETTINGS = [
    ("modernbert", "SequenceClassification", {"classifier_pooling": "mean"}),
    ("modernbert", "SequenceClassification", {"classifier_activation": "relu", "classifier_bias": True}),
    ("modernbert", "MaskedLM", {"decoder_bias": False}),
    ("deberta_v2", "SequenceClassification", {"pooler_hidden_act": "tanh"}),
    ("deberta_v2", "MaskedLM", {"legacy": False}),
    ("electra", "MultipleChoice", {"summary_type": "mean", "summary_activation": "tanh"}),
    ("bert", "SequenceClassification", {"num_labels": 1, "problem_type": "regression"}),
    ("bert", "SequenceClassification", {"problem_type": "multi_label_classification"}),
    ("bert", "MaskedLM", {"tie_word_embeddings": False}),
    ("t5", "ConditionalGeneration", {"tie_word_embeddings": False}),
    ("t5", "ConditionalGeneration", {"num_decoder_layers": 1}),
    *((name, "CausalLM", {"tie_word_embeddings": False}) for name in ("llama", "qwen2", "qwen3")),
    ("gpt2", "LMHeadModel", {"tie_word_embeddings": False}),
]
CELLS = [(name, head, {}) for name, heads in HEADS.items() for head in heads] + SETTINGS

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


def test_every_architecture_is_in_the_matrix():
    assert HEADS.keys() == ORACLES.keys()


@pytest.mark.parametrize("name", HEADS)
def test_every_class_with_a_head_is_in_the_matrix(torch, name):
    import transformers

    encoder = getattr(transformers, counterpart(name).model_class)
    module = sys.modules[encoder.__module__]
    classes = {
        own
        for own, kind in vars(module).items()
        if isinstance(kind, type)
        and issubclass(kind, transformers.PreTrainedModel)
        and kind.config_class is encoder.config_class
        and kind.__module__ == module.__name__
    }
    with_heads = {own for own in classes if "For" in own or "Head" in own}
    assert {_class_name(name, head) for head in HEADS[name]} == with_heads


@pytest.mark.parametrize(
    ("name", "head", "settings"),
    CELLS,
    ids=["-".join((name, head, *map(str, more))) for name, head, more in CELLS],
)
def test_an_exported_head_gives_the_same_logits(torch, tiny, tmp_path, name, head, settings):
    base, member, theirs = _family(torch, tiny, tmp_path, name, head, settings)

    checkpoint = models.load(str(base))
    incoming = read_member(member, checkpoint)
    # As JSON, the form in which a store keeps it.
    about = json.loads(json.dumps(dict(incoming.about)))
    leaves = flatten(incoming.params)
    classifier = stored_classifier(incoming.head, about)
    write_folder(checkpoint.model, leaves.__getitem__, tiny.processor, tmp_path / "out", head=classifier)

    again, info = type(theirs).from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    for ours, expected in zip(_logits(torch, again.eval(), head), _logits(torch, theirs, head), strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert written["architectures"] == [type(theirs).__name__]
    assert again.config.id2label == theirs.config.id2label
    assert again.config.problem_type == theirs.config.problem_type
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(load_file(member / "model.safetensors"))


def _family(torch, tiny, place: Path, name, head, settings):
    """A base and a member with a head, near it, as folders; and the member in PyTorch."""
    import transformers

    torch.manual_seed(0)
    labels = LABELS if "Classification" in head and "num_labels" not in settings else {}
    padding = {} if name in ("roberta", "xlm_roberta", "mpnet") else {"pad_token_id": 0}
    begin = {"decoder_start_token_id": 0} if name == "t5" else {}
    config = their_config(name, vocab_size=WORDS + 4, **padding, **begin, **labels, **settings)
    model = getattr(transformers, _class_name(name, head))(config).eval()
    for folder, spread in (("base", 0.1), ("member", 0.01)):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(spread * torch.randn_like(parameter))
        model.save_pretrained(place / folder)
        tiny.processor.save_pretrained(place / folder)
    return place / "base", place / "member", model


def _class_name(name: str, head: str) -> str:
    causal = counterpart(name).language_model_class
    if head == "CausalLM" and causal:
        return causal
    stem = counterpart(name).model_class.removesuffix("Model").removesuffix("Encoder")
    return f"{stem}{head}" if head.endswith("Model") else f"{stem}For{head}"


def _logits(torch, model, head):
    """Logits of two texts, of which the second is padded; those at the padding mean nothing."""
    padding = model.config.pad_token_id or 0
    ids = torch.tensor([[5, 10, 11, 12, 13, 6], [5, 20, 21, 6, padding, padding]])
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    batch = {"input_ids": ids, "attention_mask": mask}
    if head in ("MultipleChoice", "DoubleHeadsModel"):
        batch = {name: value[None] for name, value in batch.items()}
    if head == "ConditionalGeneration":
        batch["decoder_input_ids"] = ids
    if model.config.model_type == "t5" and head == "SequenceClassification":
        batch["input_ids"] = torch.where(mask == 1, torch.where(ids == 6, 1, ids), padding)  # texts end with </s>
    with torch.no_grad():
        found = model(**batch)
    names = [own for own in found if own.endswith("logits")]
    assert names
    for name in names:
        logits = found[name].numpy()
        yield logits[mask.bool().numpy()] if logits.shape[:2] == mask.shape else logits
