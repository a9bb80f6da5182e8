"""The identity of a text: a hash of its content, which says in which split it lies and which datasets share it."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar
from unicodedata import normalize

import numpy as np
from jaxtyping import Float64, UInt64

Hashes = UInt64[np.ndarray, " _"]
"""64-bit hashes of texts or images."""
PartHashes = UInt64[np.ndarray, "_ 2"]
"""64-bit hashes of the first and the second text of pairs, each alone."""

_Hashes = TypeVar("_Hashes", Hashes, PartHashes)


def plain(text: str) -> str:
    """Returns a text without what an uncased model does not see: capitals, and other spellings in Unicode or space.

    Canonically equal texts (an accented letter in one or in two characters) become one, as Unicode's form NFC.
    """
    return " ".join(normalize("NFC", text).casefold().split())


def text_hashes(texts: Sequence[str], pairs: Sequence[str] | None = None) -> Hashes:
    """Returns a 64-bit hash of each text or pair of texts, after ``plain``.

    Args:
      texts: the texts, or the first text of each pair.
      pairs: the second text of each pair; None for single texts.

    Example:
      >>> from wsr.data.identity import text_hashes
      >>> one, other, third = text_hashes(["A good film", "a  good film ", "a bad film"])
      >>> bool(one == other), bool(one == third)
      (True, False)
    """
    seconds = [""] * len(texts) if pairs is None else pairs
    digest = hashlib.sha256
    joined = (f"{plain(text)}\x1f{plain(pair)}" for text, pair in zip(texts, seconds, strict=True))
    content = b"".join(digest(one.encode()).digest()[:8] for one in joined)
    return np.frombuffer(content, "<u8").astype(np.uint64)


def part_hashes(texts: Sequence[str], pairs: Sequence[str]) -> PartHashes:
    """Returns the hashes of both texts of each pair, each as if it stood alone.

    Args:
      texts: the first texts.
      pairs: the second texts.
    """
    return np.stack([text_hashes(texts), text_hashes(pairs)], axis=1)


def positions(hashes: Hashes, purpose: int) -> Float64[np.ndarray, " _"]:
    """Returns a number in [0, 1) for each hash: uniform, the same in every process, and independent across purposes.

    Args:
      hashes: hashes of texts.
      purpose: what the numbers decide, such as the split.
    """
    # The finaliser of SplitMix64 (Steele, Lea and Flood 2014), which mixes every bit into every other.
    mixed = hashes + np.uint64((0x9E3779B97F4A7C15 * (purpose + 1)) % 2**64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return (mixed ^ (mixed >> np.uint64(31))) / 2.0**64


def joined_hashes(parts: Sequence[_Hashes | None]) -> _Hashes | None:
    """Returns the hashes of all parts, in order; None if one of them has none."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None
