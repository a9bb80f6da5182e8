"""What tells two tokenizers apart, whichever version of their library reads them."""

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
    """Returns hashes of a tokenizer's vocabulary and of what it makes of some texts, or of how images are prepared.

    Nothing for None. Not ``hash_tokenizer``, which changes with the version of the library that serialises.
    """
    if processor is None:
        return {}
    if isinstance(processor, ImageProcessor):
        return {"preparation of images": _sha256(repr(processor))}
    tokens = processor(list(TEXTS), truncation=False, padding=False, verbose=False)["input_ids"]
    return {"vocabulary": _sha256(sorted(processor.get_vocab().items())), "tokens of one text": _sha256(tokens)}


def other_fingerprint(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """Returns in what two tokenizers differ, as far as both are known."""
    return [name for name in expected if name in found and found[name] != expected[name]]


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
