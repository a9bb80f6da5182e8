"""A compact sketch of a set of texts, from which the overlap with other texts is measured without the texts."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from wsr.data.identity import Hashes

MOST = 512
"""Number of hashes that a sketch keeps. The overlap with at most this many texts is exact."""


@dataclass(frozen=True, eq=False)
class TextSketch:
    """The smallest hashes of a set of texts (bottom-k sketch, Cohen and Kaplan 2007).

    Example:
      >>> from wsr.data.identity import text_hashes
      >>> from wsr.data.text_sketch import TextSketch
      >>> seen = TextSketch.of(text_hashes(["a good film", "a bad film"]))
      >>> seen.share_of(text_hashes(["A good film", "a new film"])).share
      0.5
    """

    texts: int
    """Number of different texts."""
    sha256: str
    """sha256 of all hashes, sorted: sets of the same texts have the same."""
    smallest: Hashes
    """The ``MOST`` smallest hashes, sorted; a random sample, because hashes do not depend on what a text means."""

    @classmethod
    def of(cls, hashes: Hashes) -> "TextSketch":
        """Returns the sketch of a set of texts, given their hashes."""
        distinct = np.unique(hashes)
        digest = hashlib.sha256(distinct.astype("<u8").tobytes()).hexdigest()
        return cls(len(distinct), digest, distinct[:MOST])

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "TextSketch":
        """Returns the sketch that ``to_json`` wrote.

        Raises:
          ValueError: if the content is no sketch.
        """
        try:
            smallest = np.frombuffer(base64.b64decode(content["smallest"], validate=True), "<u8").astype(np.uint64)
            return cls(int(content["texts"]), str(content["sha256"]), smallest)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no sketch of texts: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Returns the sketch as JSON values; the hashes are little-endian bytes in base64."""
        content = base64.b64encode(self.smallest.astype("<u8").tobytes()).decode()
        return {"texts": self.texts, "sha256": self.sha256, "smallest": content}

    @property
    def exact(self) -> bool:
        """Whether the sketch holds the hashes of all texts."""
        return len(self.smallest) == self.texts

    def share_of(self, hashes: Hashes) -> "Share":
        """Returns which share of other texts the sketched set contains.

        Args:
          hashes: hashes of the other texts.
        """
        distinct = _distinct(hashes)
        # Every sketched text with a hash up to the largest one kept is known, so those are compared one by one.
        compared = distinct if self.exact else distinct[distinct <= self.smallest[-1]]
        return Share(_count_in(compared, self.smallest), len(compared), len(distinct))

    def share_in(self, hashes: Hashes) -> "Share":
        """Returns which share of the sketched texts is among other texts.

        Args:
          hashes: hashes of the other texts.
        """
        return Share(_count_in(self.smallest, _distinct(hashes)), len(self.smallest), self.texts)


@dataclass(frozen=True)
class Share:
    """A share of texts, measured on a random sample of them."""

    matched: int
    """Number of texts of the sample that are in the other set."""
    compared: int
    """Size of the sample."""
    texts: int
    """Number of texts of which the share is told."""

    @property
    def exact(self) -> bool:
        """Whether the sample is the whole."""
        return self.compared == self.texts

    @property
    def share(self) -> float:
        """The share of the sample; 0 if the sample is empty."""
        return self.matched / self.compared if self.compared else 0.0

    @property
    def at_most(self) -> float:
        """The share if it is exact, or the upper end of its one-sided 95 % interval (Clopper and Pearson 1934)."""
        from scipy.stats import beta

        if self.exact or self.matched == self.compared:
            return self.share if self.exact else 1.0
        return float(beta.ppf(0.95, self.matched + 1, self.compared - self.matched))


def _distinct(hashes: Hashes) -> Hashes:
    """Returns hashes sorted, each once; those of a large dataset come so, and sorting them per member would be slow."""
    return hashes if (hashes[1:] > hashes[:-1]).all() else np.unique(hashes)


def _count_in(hashes: Hashes, others: Hashes) -> int:
    """Returns how many of ``hashes`` are among ``others``, which are sorted."""
    if not len(others):
        return 0
    at = np.minimum(np.searchsorted(others, hashes), len(others) - 1)
    return int((others[at] == hashes).sum())
