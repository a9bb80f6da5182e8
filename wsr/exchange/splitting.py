"""Whether two tokenizers of the same tokens split texts alike: they may treat capitals, accents or spaces otherwise."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsr.exchange.tokens import tokenizer_json

_TEXTS = (
    "The Café's NAÏVE plan: 12,345.67 € (wasn't it?) over-simplified, snake_case, CamelCase, 2024-05-06T07:08",
    "ＷＩＤＥ ﬁne ½ x² 中文字 日本語 한국어 العربية हिन्दी Ёлка 😀",
    "  two  spaces,\ttab\nline ",
)
"""What tokenizers treat in different ways: capitals, accents, numbers, punctuation, scripts, white space."""
_WORDS = 200
_MARKS = re.compile("^##|</w>$|^[Ġ▁]")
"""How tokens say that they begin, continue or end a word."""


def splits_otherwise(ours: Any, theirs: Any) -> str | None:
    """Returns an example of a text that two tokenizers split into other tokens; None if none is found.

    Besides some fixed texts, words of their own vocabulary are compared, as they are and in capitals.

    Args:
      ours: a tokenizer of the package ``tokenizers``.
      theirs: another with the same tokens.
    """
    pair = [_unlimited(own) for own in (ours, theirs)]
    for text in (*_TEXTS, *_own_words(pair[0])):
        if _tokens(pair[0], text) != _tokens(pair[1], text):
            # One word shows more than a text.
            shown = next((word for word in text.split() if _tokens(pair[0], word) != _tokens(pair[1], word)), text)
            here, there = (" ".join(_tokens(own, shown)) for own in pair)
            return f"{shown[:60]!r} is split into {there[:60]!r} there and {here[:60]!r} here"
    return None


def folders_split_otherwise(ours: Path, theirs: Path) -> str | None:
    """Returns the same for two folders; None if one of them has neither tokenizer.json nor a SentencePiece model.

    Args:
      ours: a folder with a tokenizer.
      theirs: another.
    """
    from tokenizers import Tokenizer

    contents = [tokenizer_json(folder) for folder in (ours, theirs)]
    if None in contents or contents[0] == contents[1]:
        return None
    try:
        pair = [Tokenizer.from_str(json.dumps(content)) for content in contents]
    except Exception:  # the library raises plain exceptions
        return None
    return splits_otherwise(*pair)


def _unlimited(tokenizer: Any) -> Any:
    """Returns a copy that neither cuts nor fills up a text."""
    copy = type(tokenizer).from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _own_words(tokenizer: Any) -> Iterator[str]:
    tokens = sorted(tokenizer.get_vocab())
    words = " ".join(_MARKS.sub("", token) for token in tokens[:: -(-len(tokens) // _WORDS)])
    yield words
    yield words.upper()


def _tokens(tokenizer: Any, text: str) -> list[str]:
    found: list[str] = tokenizer.encode(text, add_special_tokens=False).tokens
    return found
