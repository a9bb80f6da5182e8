"""What the rest of the package sees of a dataset: tokenised texts and labels in four disjoint splits."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Int32, Int64, Integer

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

    def take(self, indices: Integer[np.ndarray, " taken"]) -> "Split":
        """Returns the texts ``indices``, in that order."""
        lengths = self.lengths[indices]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.offsets[:-1][indices] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Split(self.token_ids[source], self.token_types[source], offsets, self.labels[indices])


def joined(splits: Sequence[Split]) -> Split:
    """Returns the texts of all splits, one split after the other."""
    starts = np.cumsum([0, *(len(split.token_ids) for split in splits)])
    offsets = [split.offsets[1:] + start for split, start in zip(splits, starts[:-1], strict=True)]
    return Split(
        np.concatenate([split.token_ids for split in splits]),
        np.concatenate([split.token_types for split in splits]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
        np.concatenate([split.labels for split in splits]),
    )


@dataclass(frozen=True, eq=False)
class Dataset:
    """One dataset as every room reads it. ``classes == 1`` means regression."""

    name: str
    family: str
    classes: int
    label_names: tuple[str, ...]
    metric: str
    splits: Mapping[str, Split]
    content_hash: str
    notes: tuple[str, ...] = ()
    """What was left out or kept together on the way here, with counts."""

    @property
    def regression(self) -> bool:
        """Whether labels are real numbers."""
        return self.classes == 1

    def with_split(self, name: str, split: Split) -> "Dataset":
        """The dataset with another split in the place of one of its own; a content of its own."""
        splits = {**self.splits, name: split}
        return replace(self, splits=splits, content_hash=hash_splits(splits))


def hash_splits(splits: Mapping[str, Split]) -> str:
    """Returns the sha256 of all that a model can see of ``splits``, in hexadecimal."""
    digest = hashlib.sha256()
    for name in SPLITS:
        split = splits[name]
        for array in (split.token_ids, split.token_types, split.offsets, split.labels):
            # Little-endian bytes with dtype and length, so that no two contents run together.
            digest.update(f"{name} {array.dtype.name} {len(array)}\n".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
