"""What the rest of the package sees of a dataset: texts or images and their labels in four disjoint splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer

from wsr.data.images import ImageSplit
from wsr.errors import WsrError

SPLITS = ("finetune", "probe", "validation", "test")
"""The four splits of every dataset. A probe never sees a text that a member was fine-tuned on."""


@dataclass(frozen=True, eq=False)
class Split:
    """Tokenised texts laid end to end: text ``t`` holds the tokens ``offsets[t]`` to ``offsets[t + 1]``."""

    token_ids: Int32[np.ndarray, " tokens"]
    token_types: Int32[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " texts_and_one"]
    labels: Int32[np.ndarray, " texts"] | Float32[np.ndarray, " texts"]

    def __post_init__(self) -> None:
        """Raises: ``ValueError`` where the arrays contradict one another."""
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
        """Tokens of each text."""
        return np.diff(self.offsets)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """All that a model can see."""
        return self.token_ids, self.token_types, self.offsets, self.labels

    def content(self, text: int) -> bytes:
        """What a model sees of one text: equal texts have equal content."""
        piece = slice(self.offsets[text], self.offsets[text + 1])
        return self.token_ids[piece].tobytes() + self.token_types[piece].tobytes()

    def take(self, indices: Integer[np.ndarray, " taken"]) -> "Split":
        """Returns the texts ``indices``, in that order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Split(self.token_ids[source], self.token_types[source], offsets, self.labels[indices])

    def followed_by(self, others: Sequence["Split"]) -> "Split":
        """Returns these texts and then those of the others."""
        splits = (self, *others)
        starts = np.cumsum([0, *(len(split.token_ids) for split in splits)])
        offsets = [split.offsets[1:] + start for split, start in zip(splits, starts[:-1], strict=True)]
        return Split(
            np.concatenate([split.token_ids for split in splits]),
            np.concatenate([split.token_types for split in splits]),
            np.concatenate([np.zeros(1, np.int64), *offsets]),
            np.concatenate([split.labels for split in splits]),
        )


AnySplit: TypeAlias = Split | ImageSplit
"""Texts or images: every room but those of text reads either."""
_Kind = TypeVar("_Kind", bound=AnySplit)


def joined(splits: Sequence[_Kind]) -> _Kind:
    """Returns the texts, or the images, of all splits, one split after the other."""
    return splits[0].followed_by(splits[1:])  # type: ignore[arg-type, return-value]  # all of one kind


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """One dataset as every room reads it. ``classes == 1`` means regression."""

    name: str
    family: str
    classes: int
    label_names: tuple[str, ...]
    metric: str
    splits: Mapping[str, AnySplit]
    content_hash: str
    notes: tuple[str, ...] = ()
    """What was left out or kept together on the way here, with counts."""

    def __repr__(self) -> str:
        kind = "regression" if self.regression else f"{self.classes} classes"
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"Dataset {self.name} (family {self.family}): {kind}, {self.metric}\n  {sizes}"

    @property
    def regression(self) -> bool:
        """Whether labels are real numbers."""
        return self.classes == 1

    def texts(self, name: str) -> Split:
        """Returns a split for a room of texts; raises ``WsrError`` where it holds images."""
        split = self.splits[name]
        if not isinstance(split, Split):
            raise WsrError(f"{self.name} is a dataset of images; texts are needed here")
        return split

    def with_split(self, name: str, split: AnySplit) -> "Dataset":
        """The dataset with another split in the place of one of its own; a content of its own."""
        splits = {**self.splits, name: split}
        return replace(self, splits=splits, content_hash=hash_splits(splits))


def hash_splits(splits: Mapping[str, AnySplit]) -> str:
    """Returns the sha256 of all that a model can see of ``splits``, in hexadecimal."""
    digest = hashlib.sha256()
    for name in SPLITS:
        for array in splits[name].arrays:
            # Little-endian bytes with dtype and length, so that no two contents run together.
            digest.update(f"{name} {array.dtype.name} {len(array)}\n".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
