"""Texts without labels, for the loss of a language model."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Integer

from wsr.data.dataset import Split
from wsr.data.delimited import Dialect
from wsr.data.examples import Columns, Examples, read_unlabelled
from wsr.data.identity import Hashes
from wsr.data.load import columns_of, refuse_other_kind, source_of, spec_of
from wsr.data.splits import Place, choose_splits
from wsr.data.table import BUILT_IN, registered
from wsr.data.tokenise import hash_tokenizer, tokenise
from wsr.errors import WsrError
from wsr.runtime.seeds import generator

_WHOLE = 2**30  # tokens; no text is cut


@dataclass(frozen=True, eq=False)
class Texts:
    """Tokenised texts, cut into windows; a long text continues in the next window."""

    name: str
    windows: Split
    """The windows of all texts, in order. Their labels have no meaning."""
    first_window: Int64[np.ndarray, " texts"]
    """Index of each text's first window."""
    content_hash: str
    """sha256 of the tokens and windows."""
    notes: tuple[str, ...] = ()
    """Which texts were left out while reading, with counts."""
    text_hashes: Hashes | None = None
    """Hash of every text of the source; see ``wsr.data.identity``."""
    hashes_of_scored: Hashes | None = None
    """Hash of each text of which the loss is measured."""
    max_length: int | None = None
    """Tokens per window."""
    built_in: bool = False
    """Whether the texts were found in the package's own table, by their name."""

    def __len__(self) -> int:
        return len(self.first_window)

    def scored_hashes(self, splits: Sequence[str] = ()) -> Hashes | None:
        """Returns the hashes of the texts on which points are scored; texts without labels have no splits."""
        return self.hashes_of_scored

    def take(self, texts: Integer[np.ndarray, " taken"]) -> "Texts":
        """Returns some of the texts, with a content hash of their own.

        Args:
          texts: their numbers.
        """
        windows, first_window = self.windows.take_groups(self.first_window, texts)
        hashes = None if self.hashes_of_scored is None else self.hashes_of_scored[texts]
        return replace(
            self,
            windows=windows,
            first_window=first_window,
            content_hash=_hash(windows, first_window),
            notes=(),
            hashes_of_scored=hashes,
        )

    @property
    def predicted(self) -> Int64[np.ndarray, " texts"]:
        """Number of predicted tokens of each text: all but the first token of each window."""
        return np.add.reduceat(self.windows.lengths - 1, self.first_window)

    def mean_losses(self, of_windows: Float[np.ndarray, "points windows"]) -> Float[np.ndarray, "points texts"]:
        """Returns the mean loss over each text's predicted tokens.

        Args:
          of_windows: loss of each window: the sum over its predicted tokens divided by its number of tokens.
        """
        sums = of_windows.astype(np.float64) * self.windows.lengths
        return np.add.reduceat(sums, self.first_window, axis=1) / self.predicted


def load_texts(
    name_or_path: str | Path,
    tokenizer: Any,
    *,
    max_length: int = 64,
    size: int | None = None,
    columns: Columns | None = None,
    dialect: Dialect | None = None,
) -> Texts:
    """Returns the texts of anything that ``load_dataset`` reads, or of files without labels.

    A ``.txt`` file holds one text per line; a folder of ``.txt`` files holds one text per file. A source without
    labels is used whole, because no member can have been fine-tuned on it here. Of a labelled dataset only the test
    split is used, which no member has seen.

    Args:
      name_or_path: see ``wsr.load_dataset``.
      tokenizer: a Hugging Face fast tokenizer.
      max_length: tokens per window.
      size: largest number of texts, drawn at random but always the same; None takes all.
      columns: the columns of text and label, if they have other names.
      dialect: how the cells of CSV and TSV files are separated; by default this is found in each file.

    Raises:
      WsrError: naming the file, row and column of bad data; or if no text has two tokens.

    Example:
      >>> import wsr
      >>> from wsr.data.texts import load_texts
      >>> texts = load_texts("made_up_a1", wsr.load("tiny").processor, max_length=16)
      >>> len(texts), int(texts.windows.lengths.max())
      (60, 16)
    """
    spec = spec_of(str(name_or_path))
    refuse_other_kind(spec, tokenizer)
    records = source_of(spec, dialect).read()
    built_in = str(name_or_path) in BUILT_IN
    columns, notes = columns_of(spec, records, columns, registered=str(name_or_path) in registered())
    roles = read_unlabelled(records, columns)
    notes += tuple(note for examples in roles.values() for note in examples.notes)
    if set(roles) == {"train"} and set(records["train"].columns) == set(columns.of_texts):
        places = [("train", number) for number in range(len(roles["train"]))]
    else:
        chosen, of_splits = choose_splits(spec.name, roles, by_name=built_in)
        places, notes = chosen["test"], notes + of_splits
    if size is not None and size < len(places):
        order = generator(0, spec.name, "subsample", "test").permutation(len(places))
        places = [places[at] for at in order[:size]]
    whole = _tokenised(places, roles, tokenizer)
    long_enough = np.flatnonzero(whole.lengths >= 2)
    if not len(long_enough):
        raise WsrError(f"{spec.name}: no text has two tokens, so there is no token to predict")
    if len(long_enough) < len(whole):
        notes = (*notes, f"{spec.name}: left out {len(whole) - len(long_enough)} texts with fewer than two tokens")
    kept = whole.take(long_enough)
    windows, first_window = _cut(kept, max_length)
    return Texts(
        spec.name,
        windows,
        first_window,
        _hash(windows, first_window),
        notes,
        np.unique(np.concatenate([examples.hashes for examples in roles.values()])),
        kept.text_hashes,
        max_length,
        built_in,
    )


def _tokenised(places: list[Place], roles: dict[str, Examples], tokenizer: Any) -> Split:
    examples, numbers = roles[places[0][0]], [number for _, number in places]  # all of one role
    pairs = None if examples.pairs is None else [examples.pairs[number] for number in numbers]
    texts = [examples.texts[number] for number in numbers]
    whole, _ = tokenise(texts, pairs, examples.labels[numbers], tokenizer, _WHOLE, hash_tokenizer(tokenizer))
    return replace(whole, text_hashes=examples.hashes[numbers])


def _cut(whole: Split, max_length: int) -> tuple[Split, Int64[np.ndarray, " texts"]]:
    """Returns windows of at most ``max_length`` tokens, and the index of each text's first window."""
    if max_length < 2:
        raise WsrError(f"max_length={max_length}: expected at least two tokens per window")
    windows = -(-whole.lengths // max_length)
    first_window = np.cumsum(windows) - windows
    within = np.arange(windows.sum()) - np.repeat(first_window, windows)
    starts = np.repeat(whole.offsets[:-1], windows) + within * max_length
    offsets = np.append(starts, whole.offsets[-1])
    return Split(whole.token_ids, whole.token_types, offsets, np.zeros(len(starts), np.int32)), first_window


def _hash(windows: Split, first_window: Int64[np.ndarray, " texts"]) -> str:
    digest = hashlib.sha256()
    for array in (windows.token_ids, windows.offsets, first_window):
        digest.update(f"{array.dtype.name} {len(array)}\n".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
