"""Fingerprints of tokenizers and image processors that do not depend on the version of their library."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from wsr.data.image_processor import ImageProcessor

TEXTS = (
    "The quick brown fox doesn't jump over 13 lazy dogs.",
    "  NAÏVE Café, résumé: “quotes” — dash… \t tab",
    "unbelievably antidisestablishmentarianism #hashtag @name https://example.org/a?b=c",
    "中文 と 日本語 и русский عربي ☃ 𝕏",
)


def fingerprint(processor: Any) -> dict[str, str]:
    """Returns hashes that tell a tokenizer or image processor from others.

    Unlike ``wsr.data.tokenise.hash_tokenizer``, they do not change with the version of the tokenizer's library.

    Args:
      processor: a tokenizer, an ``ImageProcessor``, or None.

    Returns:
      By name: hashes of a tokenizer's vocabulary and of its tokens for some texts, or the hash of an image processor's
      settings; empty for None.
    """
    if processor is None:
        return {}
    if isinstance(processor, ImageProcessor):
        return {"preparation of images": _sha256(repr(processor))}
    tokens = processor(list(TEXTS), truncation=False, padding=False, verbose=False)["input_ids"]
    return {"vocabulary": _sha256(sorted(processor.get_vocab().items())), "tokens of one text": _sha256(tokens)}


def other_fingerprint(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Returns the names of the hashes in which two fingerprints differ.

    Args:
      found: a fingerprint.
      expected: another; hashes that only one of the two has are not compared.
    """
    return [name for name in expected if name in found and found[name] != expected[name]]


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
