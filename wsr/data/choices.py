"""Questions with several answers, of which one is right, and pairs of a preferred and a rejected answer.

A decoder answers without generating: each answer has a log-likelihood after its question.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64, Integer

from wsr.data.classes import shown
from wsr.data.dataset import Split
from wsr.data.delimited import Dialect
from wsr.data.examples import Columns
from wsr.data.identity import Hashes, text_hashes
from wsr.data.load import refuse_other_kind, source_of, spec_of
from wsr.data.records import Records
from wsr.errors import WsrError
from wsr.runtime.seeds import generator

QUESTION = ("question", "query", "context", "ctx", "prompt")
"""Usual names of the column that holds the question."""
ANSWERS = ("choices", "answers", "endings", "options")
"""Usual names of the column that holds the list of answers."""
RIGHT = ("label", "answer", "answerKey", "gold", "target")
"""Usual names of the column that says which answer is right."""
PREFERENCE = ("chosen", "rejected")
"""Columns of a pair of answers; the first is preferred."""


@dataclass(frozen=True, eq=False)
class Choices:
    """Tokenised questions; each of their answers is a window of its own, which starts with the question."""

    name: str
    windows: Split
    """One window per answer: the tokens of its question, then its own. The token type is 1 at each token that is
    followed by a token of the answer. Labels have no meaning."""
    first_answer: Int64[np.ndarray, " questions"]
    """Index of each question's first answer."""
    right: Int64[np.ndarray, " questions"]
    """Index of each question's right answer."""
    characters: Int64[np.ndarray, " answers"]
    """Number of characters of each answer."""
    content_hash: str
    """sha256 of the tokens and the right answers."""
    notes: tuple[str, ...] = ()
    """How many questions were cut, one line each."""
    text_hashes: Hashes | None = None
    """Hash of every question with each of its answers; see ``wsr.data.identity``."""
    max_length: int | None = None
    """Largest number of tokens of a question with an answer."""
    built_in: bool = False
    """Whether the questions were found in the package's own table, by their name."""

    def __len__(self) -> int:
        return len(self.first_answer)

    def scored_hashes(self, splits: Sequence[str] = ()) -> Hashes | None:
        """Returns the hashes of the texts on which points are scored: questions have no splits."""
        return self.text_hashes

    def take(self, questions: Integer[np.ndarray, " taken"]) -> "Choices":
        """Returns some of the questions, with a content hash of their own.

        Args:
          questions: their numbers.
        """
        windows, first_answer = self.windows.take_groups(self.first_answer, questions)
        right = first_answer + (self.right - self.first_answer)[questions]
        counts = np.diff(self.first_answer, append=len(self.windows))[questions]
        answers = np.repeat(self.first_answer[questions] - first_answer, counts) + np.arange(counts.sum())
        return replace(
            self,
            windows=windows,
            first_answer=first_answer,
            right=right,
            characters=self.characters[answers],
            content_hash=_hash(windows, first_answer, right),
            notes=(),
            text_hashes=None if self.text_hashes is None else self.text_hashes[answers],
        )

    def log_likelihoods(self, of_windows: Float[np.ndarray, "points answers"]) -> Float[np.ndarray, "points answers"]:
        """Returns the log-likelihood of each answer after its question, in nats.

        Args:
          of_windows: loss of each window: the sum over the answer's tokens divided by the window's number of tokens.
        """
        return -of_windows.astype(np.float64) * self.windows.lengths


class _Question(NamedTuple):
    text: str
    answers: tuple[str, ...]
    right: int


def load_choices(
    name_or_path: str | Path,
    tokenizer: Any,
    *,
    max_length: int = 512,
    between: str = " ",
    encoder_decoder: bool = False,
    size: int | None = None,
    columns: Columns | None = None,
    dialect: Dialect | None = None,
) -> Choices:
    """Returns the questions of a file, folder or hub dataset, tokenised as by lm-evaluation-harness.

    A row holds a question, a list of answers, and the right answer: its index from 0, its letter, or its text. A row
    with the columns ``prompt``, ``chosen`` and ``rejected`` is a question with two answers. Of several splits the test
    split is used, or else the validation split.

    The text of an answer is tokenised together with its question, ``between`` in between; for an encoder-decoder it is
    tokenised alone, and the question ends with the token that ends a text. A question is cut from the left if it is too
    long with its longest answer.

    Args:
      name_or_path: see ``wsr.load_dataset``.
      tokenizer: a Hugging Face fast tokenizer.
      max_length: largest number of tokens of a question with an answer.
      between: text between question and answer.
      encoder_decoder: whether they are for a model with an encoder and a decoder, ``Model.encoder_decoder``.
      size: largest number of questions, drawn at random but always the same; None takes all.
      columns: names of the columns of question (``text``) and right answer (``label``), if they have other names.
      dialect: how the cells of CSV and TSV files are separated; by default this is found in each file.

    Raises:
      WsrError: naming the file, row and column of bad data.

    Example:
      >>> import pathlib, tempfile, wsr
      >>> from wsr.data.choices import load_choices
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "sums.jsonl"
      >>> length = path.write_text('{"question": "1 + 1 =", "choices": ["2", "3"], "label": 0}')
      >>> questions = load_choices(path, wsr.load("tiny").processor)
      >>> len(questions), questions.right.tolist(), len(questions.windows)
      (1, [0], 2)
    """
    spec = spec_of(str(name_or_path))
    refuse_other_kind(spec, tokenizer)
    roles = source_of(spec, dialect).read()
    table = next(roles[role] for role in ("test", "validation", "train") if role in roles)
    if not len(table):
        raise WsrError(f"{table.origin}: no questions")
    questions = _read(table, columns)
    if size is not None and size < len(questions):
        order = generator(0, spec.name, "subsample", "test").permutation(len(questions))
        questions = [questions[at] for at in order[:size]]
    windows, cut = _tokenised(spec.name, questions, tokenizer, max_length, between, encoder_decoder)
    counts = np.array([len(question.answers) for question in questions])
    first_answer = np.cumsum(counts) - counts
    right = first_answer + np.array([question.right for question in questions])
    each = [(question.text, answer) for question in questions for answer in question.answers]
    return Choices(
        spec.name,
        windows,
        first_answer,
        right,
        np.array([len(answer) for _, answer in each]),
        _hash(windows, first_answer, right),
        (*table.notes, *([f"{spec.name}: {cut} answers have a question cut at {max_length} tokens"] if cut else [])),
        text_hashes([text for text, _ in each], [answer for _, answer in each]),
        max_length,
    )


def _read(table: Records, columns: Columns | None) -> list[_Question]:
    named = columns or Columns()
    if all(name in table.columns for name in PREFERENCE):
        texts = _column(table, named.text, QUESTION, "--text_column")
        return [
            _Question(_text(table, row, texts), tuple(_text(table, row, name) for name in PREFERENCE), 0)
            for row in range(len(table))
        ]
    texts = _column(table, named.text, QUESTION, "--text_column")
    answers = _column(table, None, ANSWERS, None)
    right = _column(table, named.label, RIGHT, "--label_column")
    return [_question(table, row, texts, answers, right) for row in range(len(table))]


def _column(table: Records, named: object, usual: Sequence[str], flag: str | None) -> str:
    """The column that was named, or the first usual one that the table has."""
    found = [name for name in (named, *usual) if isinstance(name, str) and name in table.columns]
    if not found:
        raise WsrError(
            f"{table.origin}: found no column {', '.join(usual[:-1])} or {usual[-1]}; "
            f"found {', '.join(table.columns)}; "
            + (f"name it with {flag}, " if flag else "name the column of the list of answers 'choices', ")
            + "or give the columns prompt, chosen and rejected"
        )
    return found[0]


def _text(table: Records, row: int, column: str) -> str:
    cell = table.columns[column][row]
    if isinstance(cell, list):
        raise WsrError(
            f"{table.where(row, column)}: expected text, found a list; write a conversation as one text, as the "
            "model's chat template formats it"
        )
    if not isinstance(cell, str):
        raise WsrError(f"{table.where(row, column)}: expected text, found {shown(cell)}")
    return cell


def _question(table: Records, row: int, text: str, answers: str, right: str) -> _Question:
    cell, letters = table.columns[answers][row], None
    if isinstance(cell, Mapping):  # as ARC and CommonsenseQA write their answers
        letters, cell = cell.get("label"), cell.get("text")
    if not isinstance(cell, list) or len(cell) < 2 or not all(isinstance(one, str) and one for one in cell):
        raise WsrError(
            f"{table.where(row, answers)}: expected a list of at least two texts, found {shown(cell)}; lists need a "
            "JSONL or Parquet file"
        )
    known = [str(letter) for letter in letters] if letters else [chr(ord("A") + at) for at in range(len(cell))]
    given = table.columns[right][row]
    return _Question(_text(table, row, text), tuple(cell), _right(table, row, right, given, cell, known))


def _right(table: Records, row: int, column: str, given: object, answers: Sequence[str], letters: Sequence[str]) -> int:
    if isinstance(given, bool):
        given = str(given)
    if isinstance(given, (int, float)) and given == int(given) and 0 <= given < len(answers):
        return int(given)
    if isinstance(given, str):
        for known in (list(answers), list(letters), [str(at) for at in range(len(answers))]):
            if known.count(given.strip()) == 1:
                return known.index(given.strip())
    raise WsrError(
        f"{table.where(row, column)}: {shown(given)} names none of the {len(answers)} answers; expected an index "
        f"from 0 to {len(answers) - 1}, a letter from {letters[0]} to {letters[-1]}, or the text of one answer"
    )


def _tokenised(
    name: str,
    questions: Sequence[_Question],
    tokenizer: Any,
    max_length: int,
    between: str,
    encoder_decoder: bool,
) -> tuple[Split, int]:
    pairs = [_spaced(question.text, between + answer) for question in questions for answer in question.answers]
    ids, types, cut = [], [], 0
    divide = _divided_for_encoder if encoder_decoder else _divided
    for (context, answer), (start, own) in zip(pairs, divide(name, pairs, tokenizer), strict=True):
        if not own:
            raise WsrError(f"{name}: the answer {answer!r} has no token of its own after {context[-40:]!r}")
        if len(own) >= max_length:
            raise WsrError(
                f"{name}: the answer {answer[:40]!r}... has {len(own)} tokens; expected at most {max_length - 1}; "
                "raise max_length (on the command line --max_length)"
            )
        kept = (start + own)[-max_length:]
        cut += len(kept) < len(start) + len(own)
        ids.append(np.array(kept, np.int32))
        # The loss at a token is that of the next one, see ``Model.token_losses``.
        types.append((np.arange(len(kept)) >= len(kept) - len(own) - 1).astype(np.int32))
        types[-1][-1] = 0
    offsets = np.concatenate([[0], np.cumsum([len(own) for own in ids])]).astype(np.int64)
    return Split(np.concatenate(ids), np.concatenate(types), offsets, np.zeros(len(ids), np.int32)), cut


def _divided(name: str, pairs: Sequence[tuple[str, str]], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Returns the tokens of each question and those of its answer, for a decoder that reads both as one text."""
    contexts = _encoded([context for context, _ in pairs], tokenizer)
    wholes = _encoded([context + answer for context, answer in pairs], tokenizer)
    special, found = set(tokenizer.all_special_ids), []
    for before, whole in zip(contexts, wholes, strict=True):
        started = len(before) or int(bool(whole) and whole[0] in special)
        # Without a question, the answer follows the token that starts or ends a text.
        found.append((whole[:started] or [_first_token(name, tokenizer)], whole[started:]))
    return found


def _divided_for_encoder(
    name: str, pairs: Sequence[tuple[str, str]], tokenizer: Any
) -> list[tuple[list[int], list[int]]]:
    """Returns the tokens of each question, as a text of its own, and those of its answer, without any special token.

    lm-evaluation-harness divides them in the same way.
    """
    settings = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    contexts = tokenizer([context for context, _ in pairs], **settings)["input_ids"]
    answers = tokenizer([answer for _, answer in pairs], add_special_tokens=False, **settings)["input_ids"]
    return [
        (list(before) or [_first_token(name, tokenizer)], list(own))
        for before, own in zip(contexts, answers, strict=True)
    ]


def _spaced(context: str, answer: str) -> tuple[str, str]:
    """Returns both with the spaces at the end of the question moved to the answer: tokens rarely end with a space."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + answer


def _encoded(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """Returns the tokens of each text with the special tokens that start a text, and without those that end it."""
    special = set(tokenizer.all_special_ids)
    encoded = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False)
    found = []
    for ids in encoded["input_ids"]:
        end = len(ids)
        while end and ids[end - 1] in special:
            end -= 1
        found.append(list(ids[:end]))
    return found


def _first_token(name: str, tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise WsrError(f"{name}: a question is empty, and the tokenizer has no token that starts or ends a text")


def _hash(windows: Split, first_answer: Int64[np.ndarray, " questions"], right: Int64[np.ndarray, " questions"]) -> str:
    digest = hashlib.sha256()
    for array in (windows.token_ids, windows.token_types, windows.offsets, first_answer, right):
        digest.update(f"{array.dtype.name} {len(array)}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
