"""Questions with several answers against lm-evaluation-harness: the same model, the same file, the same scores."""

import json

import numpy as np
import pytest
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

import wsr
from wsr.data.choices import load_choices

WORDS = "the cat sat on a mat and saw one dog run to his red house by day"
ROWS = 40


def _tokenizer(first_token):
    own = Tokenizer(BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    own.decoder = decoders.ByteLevel()
    own.train_from_iterator([WORDS] * 9, trainers.BpeTrainer(vocab_size=60, special_tokens=["<s>", "</s>"]))
    if first_token:
        own.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", own.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def _model(kind, vocabulary, seed):
    torch.manual_seed(seed)
    sizes = {"vocab_size": vocabulary, "bos_token_id": 0, "eos_token_id": 1, "initializer_range": 0.3}
    if kind == "gpt2":
        config = GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **sizes)
    else:
        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            **sizes,
        )
    return AutoModelForCausalLM.from_config(config).eval()


def _rows():
    draw = np.random.default_rng(0)
    words = WORDS.split()

    def text(least):
        return " ".join(draw.choice(words, size=int(draw.integers(least, 6))))

    rows = []
    for number in range(ROWS):
        # Different ones: between equal answers, rounding decides.
        answers = list(dict.fromkeys([text(1) for _ in range(int(draw.integers(2, 5)))] + ["a mat"]))
        question = "" if number == 3 else text(1) + (" " if number % 4 == 0 else "")
        rows.append({"question": question, "choices": answers, "label": int(draw.integers(len(answers)))})
    return rows


@pytest.mark.parametrize(("kind", "first_token"), [("gpt2", False), ("llama", True)])
def test_scores_of_a_member_and_of_a_point_between_two_are_theirs(tmp_path, monkeypatch, kind, first_token):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tokenizer = _tokenizer(first_token)
    for name, seed in (("base", 0), ("one", 1), ("other", 2)):
        _model(kind, len(tokenizer), seed).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    base, *members = (wsr.load(str(tmp_path / name)) for name in ("base", "one", "other"))
    region = wsr.from_params(base.model, base.params, {own.name: own.params for own in members})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    questions = load_choices(tmp_path / "q.jsonl", tokenizer, max_length=64)
    points = np.array([[1.0, 0.0], [0.3, 0.7]])
    ours = wsr.evaluate_choices(region, points, questions)
    for number, point in enumerate(points):
        wsr.export(base.with_params(region.params(point)), tmp_path / f"point{number}")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / f"point{number}").eval()
        task = ConfigurableTask(
            config={
                "task": "own",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(tmp_path / "q.jsonl")}},
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "{{question}}",
                "doc_to_choice": "choices",
                "doc_to_target": "label",
                "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
            }
        )
        theirs = evaluate(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8), {"own": task}, bootstrap_iters=0)
        found = theirs["results"]["own"]
        samples = sorted(theirs["samples"]["own"], key=lambda sample: sample["doc_id"])
        expected = [float(answer[0][0]) for sample in samples for answer in sample["resps"]]
        np.testing.assert_allclose(ours.log_likelihoods[number], expected, atol=1e-4)
        assert ours.accuracy[number] == pytest.approx(found["acc,none"], abs=1e-9)
        assert ours.accuracy_per_character[number] == pytest.approx(found["acc_norm,none"], abs=1e-9)
    assert np.ptp(ours.choice_loss) > 1e-3
