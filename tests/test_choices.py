"""Questions with several answers: files, tokens, log-likelihoods against PyTorch, losses, and the command line."""

import json

import numpy as np
import pytest
from models_support import random_params
from scipy.special import log_softmax
from test_language_model import _pair
from test_store import record_of
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from wsr import models
from wsr.cli import main
from wsr.data.choices import load_choices
from wsr.engine.choices import ChoiceEvaluation, evaluate_choices
from wsr.engine.evaluate import EXACT
from wsr.engine.settings import Settings
from wsr.errors import WsrError
from wsr.region.region import from_params
from wsr.store import Store
from wsr.store.results import Results

QUESTIONS = [
    {"question": "ab ba", "choices": ["ab", "ba ba"], "label": 1},
    {"question": "abba: ", "choices": ["a", "bab", "bb"], "label": "C"},
    {"question": "", "choices": ["aab", "b"], "label": "b"},
    {"question": "ba", "choices": {"text": ["ab ab", "bb"], "label": ["1", "2"]}, "label": "2"},
]
"""Right answers by index, letter, text and own letter; a question that ends with a space, and one without text."""
RIGHT = [1, 2, 1, 1]
METRICS = ["choice_loss", "accuracy", "accuracy_per_character"]


def _tokenizer(first_token: bool) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 40 tokens, some of which begin with a space; with a token that starts a text, or without."""
    own = Tokenizer(BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    own.decoder = decoders.ByteLevel()
    texts = ["ab ba abba bab ab ba ba ab: ab"] * 4
    own.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=14, special_tokens=["<s>", "</s>"]))
    if first_token:
        own.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", own.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(tokenizer_object=own, bos_token="<s>", eos_token="</s>")


def _written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch, the oracle of the parity tests, is not installed")


def _their_log_likelihood(torch, theirs, tokenizer, question, answer):
    """The sum over the tokens that the answer adds to the question, as lm-evaluation-harness counts them."""
    text = question.rstrip()
    answer = question[len(text) :] + " " + answer
    before = tokenizer(text)["input_ids"] or [tokenizer.bos_token_id]
    ids = (
        tokenizer(text + answer)["input_ids"]
        if text
        else before + tokenizer(answer, add_special_tokens=False).input_ids
    )
    with torch.no_grad():
        logs = theirs(torch.tensor([ids])).logits[0].log_softmax(-1).double()
    return sum(float(logs[at - 1, ids[at]]) for at in range(len(before), len(ids)))


@pytest.mark.torch
@pytest.mark.parametrize(("name", "first_token"), [("gpt2", False), ("llama", True)])
def test_log_likelihoods_of_every_point_of_a_line(torch, tmp_path, name, first_token):
    tokenizer = _tokenizer(first_token)
    questions = load_choices(_written(tmp_path / "questions.jsonl", QUESTIONS), tokenizer, max_length=24)
    theirs, ours, base = _pair(torch, name, name == "gpt2")
    other, _, member = _pair(torch, name, name == "gpt2", seed=1)
    ends = [{key: value.clone() for key, value in model.state_dict().items()} for model in (theirs, other)]
    alphas = np.array([0.0, 0.4, 1.0])
    found = evaluate_choices(from_params(ours, base, {"other": member}), alphas[:, None], questions)
    for alpha, own in zip(alphas, found.log_likelihoods, strict=True):
        theirs.load_state_dict({key: (1 - alpha) * ends[0][key] + alpha * ends[1][key] for key in ends[0]})
        expected = [
            _their_log_likelihood(torch, theirs, tokenizer, row["question"], answer)
            for row in QUESTIONS
            for answer in (row["choices"]["text"] if isinstance(row["choices"], dict) else row["choices"])
        ]
        np.testing.assert_allclose(own, expected, atol=2e-5, rtol=1e-5)
    assert np.ptp(found.choice_loss) > 0.01


@pytest.fixture(scope="module")
def region():
    """Two members around a random GPT-2 that knows the tiny checkpoint's vocabulary."""
    model = models.build("gpt2", {**models.architectures()["gpt2"].example, "vocab_size": 108})
    return from_params(model, random_params(model), {f"m{seed}": random_params(model, seed) for seed in (1, 2)})


def test_losses_and_accuracies_of_known_log_likelihoods(region, tmp_path):
    questions = load_choices(_written(tmp_path / "questions.jsonl", QUESTIONS), _tokenizer(False))
    assert questions.right.tolist() == [1, 4, 6, 8]
    assert questions.characters.tolist() == [2, 5, 1, 3, 2, 3, 1, 5, 2]
    values = -np.random.default_rng(0).gamma(4.0, 5.0, (6, 9))
    values[0] -= 2000  # no underflow
    found = ChoiceEvaluation(region, np.zeros((6, 2)), questions, values, (EXACT,) * 6)
    parts = np.split(values, [2, 5, 7], axis=1)
    expected = [-log_softmax(part, axis=1)[:, right] for part, right in zip(parts, RIGHT, strict=True)]
    np.testing.assert_allclose(found.losses, np.stack(expected, axis=1), rtol=1e-9, atol=1e-12)
    chosen = [part.argmax(axis=1) == right for part, right in zip(parts, RIGHT, strict=True)]
    np.testing.assert_allclose(found.accuracy, np.mean(chosen, axis=0))
    each = np.split(values / questions.characters, [2, 5, 7], axis=1)
    chosen = [part.argmax(axis=1) == right for part, right in zip(each, RIGHT, strict=True)]
    np.testing.assert_allclose(found.accuracy_per_character, np.mean(chosen, axis=0))
    assert 0 < found.accuracy.mean() < 1


def test_a_preference_has_the_loss_of_bradley_and_terry(region, tmp_path):
    rows = [{"prompt": "ab", "chosen": "ba", "rejected": "bb"}, {"prompt": "ba", "chosen": "a", "rejected": "ab"}]
    questions = load_choices(_written(tmp_path / "pairs.jsonl", rows), _tokenizer(False))
    values = np.array([[-3.0, -2.0, -1.0, -9.0]])
    found = ChoiceEvaluation(region, np.zeros((1, 2)), questions, values, (EXACT,))
    np.testing.assert_allclose(found.losses, [[np.log1p(np.exp(1.0)), np.log1p(np.exp(-8.0))]])
    assert found.accuracy.tolist() == [0.5]


def test_a_long_question_is_cut_from_the_left(tmp_path):
    rows = [{"question": "ab ba " * 30, "choices": ["ab", "ba ba"], "label": 0}]
    path = _written(tmp_path / "long.jsonl", rows)
    whole = load_choices(path, _tokenizer(False))
    cut = load_choices(path, _tokenizer(False), max_length=12)
    assert cut.notes == ("long: 2 answers have a question cut at 12 tokens",)
    assert not whole.notes
    for answer in range(2):
        ids = [found.windows.take(np.array([answer])).token_ids for found in (whole, cut)]
        np.testing.assert_array_equal(ids[0][-12:], ids[1])
    assert cut.windows.token_types.sum() == whole.windows.token_types.sum()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "a", "choices": ["b", "a"], "label": 2}, "line 2, column 'label': 2 names none of the 2 answers"),
        ({"question": "a", "choices": ["b", "b"], "label": "b"}, "'b' names none"),
        ({"question": "a", "choices": "b", "label": 0}, "line 2, column 'choices': expected a list of at least two"),
        ({"question": 3, "choices": ["b", "a"], "label": 0}, "line 2, column 'question': expected text, found 3"),
        ({"question": "a", "choices": ["b", "a " * 60], "label": 0}, "has 121 tokens; expected at most 39"),
    ],
)
def test_bad_rows_are_refused_by_line_and_column(tmp_path, row, message):
    with pytest.raises(WsrError, match=message):
        load_choices(_written(tmp_path / "bad.jsonl", [QUESTIONS[0], row]), _tokenizer(False), max_length=40)


def test_missing_columns_and_conversations_are_refused(tmp_path):
    with pytest.raises(WsrError, match="found no column choices, answers, endings or options; found question, label"):
        load_choices(_written(tmp_path / "a.jsonl", [{"question": "a", "label": 0}]), _tokenizer(False))
    talk = [{"role": "user", "content": "a"}]
    with pytest.raises(WsrError, match="expected text, found a list; write a conversation as one text"):
        load_choices(
            _written(tmp_path / "b.jsonl", [{"prompt": talk, "chosen": talk, "rejected": talk}]), _tokenizer(False)
        )


def test_points_are_kept_and_too_long_questions_refused(region, tiny, tmp_path):
    path = _written(tmp_path / "q.jsonl", QUESTIONS)
    questions, results = load_choices(path, tiny.processor, max_length=24), Results.in_memory()
    first = evaluate_choices(region, np.eye(2), questions, settings=Settings(results=results))
    again = evaluate_choices(region, np.eye(2), questions, settings=Settings(results=results))
    np.testing.assert_array_equal(first.log_likelihoods, again.log_likelihoods)
    assert len(results.keys()) == 2
    turned = load_choices(_written(path, QUESTIONS[::-1]), tiny.processor, max_length=24)
    evaluate_choices(region, np.eye(2), turned, settings=Settings(results=results))
    assert len(results.keys()) == 4
    assert list(first.to_frame().columns) == [*METRICS, "how", "m1", "m2"]
    long = load_choices(_written(path, [{**QUESTIONS[0], "question": "ab " * 40}]), tiny.processor)
    with pytest.raises(WsrError, match=r"a window has \d+ tokens, gpt2 reads at most 24"):
        evaluate_choices(region, np.eye(2), long)


def test_from_a_file_of_questions_to_a_table_of_points(region, tiny, tmp_path, capsys):
    models.export(models.Checkpoint(region.model, region.base, tiny.processor), tmp_path / "base")
    store = Store.create(
        tmp_path / "store",
        model_name="gpt2",
        model_config=dict(region.model.config),
        base_name=str(tmp_path / "base"),
        base_params=region.base,
    )
    metrics = {"test_score": 0.9, "chance": 0.5, "test_texts": 100}
    for member in region.members:
        store.save(record_of(member.name, metrics=metrics), member.load(), {"bias": np.zeros(2, np.float32)})
    path = _written(tmp_path / "q.jsonl", QUESTIONS)
    call = [f"--store={tmp_path / 'store'}", f"--on={path}", "--loss=choices", "--max_length=24", "--interior=1"]
    assert main(["evaluate", *call, f"--out={tmp_path / 'rows.jsonl'}"]) == 0
    printed = capsys.readouterr().out
    assert "choice loss" in printed
    assert "accuracy per character" in printed
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [row["metric"] for row in rows[:3]] == METRICS
    expected = evaluate_choices(region, np.eye(2), load_choices(path, tiny.processor, max_length=24))
    np.testing.assert_allclose([row["value"] for row in rows[3:9:3]], expected.choice_loss, atol=1e-6)
    np.testing.assert_allclose([row["value"] for row in rows[4:9:3]], expected.accuracy)
