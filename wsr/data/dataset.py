"""A dataset: texts or images and their labels in four disjoint splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64, Integer

from wsr.data.identity import Hashes, PartHashes, joined_hashes
from wsr.data.images import ImageSplit
from wsr.data.text_sketch import TextSketch
from wsr.errors import WsrError

SPLITS = ("finetune", "probe", "validation", "test")
"""The four splits of every dataset. A probe never sees a text that a member was fine-tuned on."""


@dataclass(frozen=True, eq=False)
class Split:
    """Tokenised texts and their labels; the tokens of all texts are concatenated.

    Raises:
      ValueError: if the arrays contradict one another.

    Example:
      >>> import wsr
      >>> data = wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      >>> probe = data.splits["probe"]
      >>> len(probe), int(probe.lengths.max()), probe.labels[:5].tolist()
      (60, 39, [1, 0, 1, 0, 1])
    """

    token_ids: Int32[np.ndarray, " tokens"]
    """Tokens of all texts, special tokens included."""
    token_types: Int32[np.ndarray, " tokens"]
    """0 for the first text of a pair, 1 for the second."""
    offsets: Int64[np.ndarray, " texts_and_one"]
    """Text t holds the tokens ``offsets[t]`` to ``offsets[t + 1]``."""
    labels: Int32[np.ndarray, " texts"] | Float32[np.ndarray, " texts"]
    """Number of the class of each text, or a real number for regression."""
    text_hashes: Hashes | None = None
    """Hash of each text or pair, see ``wsr.data.identity``; None where no text was read."""
    part_hashes: PartHashes | None = None
    """Hashes of both texts of each pair; None for single texts."""

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.labels) + 1:
            raise ValueError(f"{len(self.labels)} labels need {len(self.labels) + 1} offsets, not {len(self.offsets)}")
        if len(self.token_ids) != len(self.token_types) or self.offsets[-1] != len(self.token_ids):
            raise ValueError(
                f"{len(self.token_ids)} token ids, {len(self.token_types)} token types, "
                f"offsets up to {self.offsets[-1]}"
            )
        if self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets must start at 0 and never fall")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Int64[np.ndarray, " texts"]:
        """Number of tokens of each text."""
        return np.diff(self.offsets)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All arrays that a model can see."""
        return self.token_ids, self.token_types, self.offsets, self.labels

    def content(self, text: int) -> bytes:
        """Returns the tokens of one text as bytes: equal texts have equal content."""
        piece = slice(self.offsets[text], self.offsets[text + 1])
        return self.token_ids[piece].tobytes() + self.token_types[piece].tobytes()

    def take(self, indices: Integer[np.ndarray, " taken"]) -> "Split":
        """Returns a split of the texts ``indices``, in that order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        hashes, parts = (None if own is None else own[indices] for own in (self.text_hashes, self.part_hashes))
        return Split(self.token_ids[source], self.token_types[source], offsets, self.labels[indices], hashes, parts)

    def take_groups(
        self, first: Int64[np.ndarray, " groups"], taken: Integer[np.ndarray, " taken"]
    ) -> tuple["Split", Int64[np.ndarray, " taken"]]:
        """Returns a split of some groups of consecutive texts, and the index of each one's first text in it.

        Args:
          first: index of each group's first text; together the groups are all texts.
          taken: the groups, in the order in which they will stand.
        """
        counts = np.diff(first, append=len(self))[taken]
        starts = np.cumsum(counts) - counts
        return self.take(np.repeat(first[taken] - starts, counts) + np.arange(counts.sum())), starts

    def followed_by(self, others: Sequence["Split"]) -> "Split":
        """Returns a split of these texts, followed by those of ``others``."""
        splits = (self, *others)
        starts = np.cumsum([0, *(len(split.token_ids) for split in splits)])
        offsets = [split.offsets[1:] + start for split, start in zip(splits, starts[:-1], strict=True)]
        return Split(
            np.concatenate([split.token_ids for split in splits]),
            np.concatenate([split.token_types for split in splits]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
            np.concatenate([split.labels for split in splits]),
            joined_hashes([split.text_hashes for split in splits]),
            joined_hashes([split.part_hashes for split in splits]),
        )


AnySplit: TypeAlias = Split | ImageSplit
"""A split of texts or of images."""
_Kind = TypeVar("_Kind", bound=AnySplit)


def joined(splits: Sequence[_Kind]) -> _Kind:
    """Returns one split of the texts or images of all splits, in order."""
    return splits[0].followed_by(splits[1:])  # type: ignore[arg-type, return-value]  # all of one kind


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A dataset in four disjoint splits: ``finetune``, ``probe``, ``validation`` and ``test``.

    Example:
      >>> import wsr
      >>> wsr.load_dataset("made_up_a1", wsr.load("tiny").processor, max_length=48)
      Dataset made_up_a1 (family made_up_a): 2 classes, accuracy
        finetune 240, probe 60, validation 40, test 60
    """

    name: str
    family: str
    """The task family, such as ``nli``."""
    classes: int
    """Number of classes; 1 for regression."""
    label_names: tuple[str, ...]
    """Names of the classes; empty for regression."""
    metric: str
    """Name of the metric, one of ``wsr.data.metrics.METRICS``."""
    splits: Mapping[str, AnySplit]
    content_hash: str
    """sha256 of the tokens or pixels and the labels of all splits."""
    notes: tuple[str, ...] = ()
    """What was assumed, left out, cut, repeated or contradictory while reading, with counts, one line each."""
    text_hashes: Hashes | None = None
    """Hash of every text of the source, those that ``sizes`` leaves out included; see ``wsr.data.identity``."""
    max_length: int | None = None
    """Number of tokens at which texts were cut; None for images."""
    built_in: bool = False
    """Whether the dataset was found in the package's own table, by its name."""

    def __repr__(self) -> str:
        kind = "regression" if self.regression else f"{self.classes} classes"
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"Dataset {self.name} (family {self.family}): {kind}, {self.metric}\n  {sizes}"

    @property
    def regression(self) -> bool:
        """Whether the labels are real numbers."""
        return self.classes == 1

    def texts(self, name: str) -> Split:
        """Returns a split of texts.

        Args:
          name: the split: ``finetune``, ``probe``, ``validation`` or ``test``.

        Raises:
          WsrError: if the dataset holds images.
        """
        split = self.splits[name]
        if not isinstance(split, Split):
            raise WsrError(f"{self.name} is a dataset of images; expected a dataset of texts")
        return split

    def scored_hashes(self, splits: Sequence[str] = ("probe", "test")) -> Hashes | None:
        """Returns the hashes of the texts on which points are scored.

        Args:
          splits: the splits that are used.
        """
        return joined_hashes([self.splits[name].text_hashes for name in splits])

    def part_hashes(self, splits: Sequence[str] = ("finetune", "probe", "validation", "test")) -> Hashes | None:
        """Returns the hashes of the single texts of pairs; None for a dataset of single texts or images.

        Args:
          splits: the splits that are read.
        """
        own = [split.part_hashes if isinstance(split := self.splits[name], Split) else None for name in splits]
        parts = joined_hashes(own)
        return None if parts is None else parts.ravel()

    def about(self, trained_on: AnySplit) -> dict[str, Any]:
        """Returns what a member's record says about its data, as JSON values.

        Args:
          trained_on: the examples that the member is fine-tuned on.
        """
        hashes = trained_on.text_hashes
        parts = trained_on.part_hashes if isinstance(trained_on, Split) else None
        return {
            "built_in": self.built_in,
            "label_names": list(self.label_names),
            "max_length": self.max_length,
            "texts": None if hashes is None else TextSketch.of(hashes).to_json(),
            **({} if parts is None else {"texts_of_pairs": TextSketch.of(parts.ravel()).to_json()}),
        }

    def unseen_by_probe(self) -> Bool[np.ndarray, " texts"]:
        """Returns which texts of the test split have a class that no text of the probe split has."""
        labels = self.splits["test"].labels
        if self.regression:
            return np.zeros(len(labels), bool)
        return ~np.isin(labels, self.splits["probe"].labels)

    def with_split(self, name: str, split: AnySplit) -> "Dataset":
        """Returns a copy of the dataset with the split ``name`` replaced, and a new content hash."""
        splits = {**self.splits, name: split}
        return replace(self, splits=splits, content_hash=hash_splits(splits))


def differences(stored: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """Returns in words how the data of a stored member differ from other data, both as ``Dataset.about`` tells them."""
    found = [
        f"{name} is {stored[name]!r} in the store and {own[name]!r} here"
        for name in ("max_length", "label_names")
        if name in stored and stored[name] != own[name]
    ]
    there, here = stored.get("texts"), own.get("texts")
    if there and here and there["sha256"] != here["sha256"]:
        shared = TextSketch.from_json(there).share_of(TextSketch.from_json(here).smallest).share
        found.append(
            f"it was fine-tuned on {there['texts']:,} different texts in the store and on {here['texts']:,} here, of "
            f"which about {100 * shared:.0f} % are the same"
        )
    return found


def hash_splits(splits: Mapping[str, AnySplit]) -> str:
    """Returns the sha256, in hexadecimal, of all arrays of ``splits`` that a model can see."""
    digest = hashlib.sha256()
    for name in SPLITS:
        for array in splits[name].arrays:
            # Little-endian bytes with dtype and length: different contents never give the same bytes.
            digest.update(f"{name} {array.dtype.name} {len(array)}\n".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).data)
    return digest.hexdigest()
