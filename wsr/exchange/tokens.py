"""The tokens of a folder by number, from any kind of tokenizer that is read."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.runtime.model_folder import read_json, sentencepiece_file


def vocabulary(folder: Path) -> dict[int, str] | None:
    """Returns the tokens of a folder by number, from tokenizer.json or older tokenizers' files; None without any."""
    try:
        content = tokenizer_json(folder)
        if content is not None:
            words = content["model"]["vocab"]
            # Unigram models list pairs of a token and its score.
            pairs = words.items() if isinstance(words, dict) else ((own[0], n) for n, own in enumerate(words))
            added = ((own["content"], own["id"]) for own in content.get("added_tokens") or ())
            return {number: token for token, number in (*pairs, *added)}
        if (folder / "vocab.txt").exists():
            return dict(enumerate((folder / "vocab.txt").read_text(encoding="utf-8").splitlines()))
        if (folder / "vocab.json").exists():
            return {number: token for token, number in read_json(folder / "vocab.json").items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise WsrError(f"{folder}: the tokenizer cannot be read: {type(error).__name__}: {error}") from error
    return None


def tokenizer_json(folder: Path) -> dict[str, Any] | None:
    """Returns the content of tokenizer.json, or what it would be for a SentencePiece model that can be read; else None.

    Args:
      folder: a Hugging Face folder.
    """
    if (folder / "tokenizer.json").exists():
        return read_json(folder / "tokenizer.json")
    if sentencepiece_file(folder) is None:
        return None
    state = tuple(sorted((file.name, file.stat().st_mtime_ns) for file in folder.iterdir()))
    converted = _converted(folder, state)
    return None if converted is None else json.loads(converted)


@lru_cache
def _converted(folder: Path, _state: tuple[tuple[str, int], ...]) -> str | None:
    """Returns a SentencePiece model as the text of a tokenizer.json, made once while the files stay as they are."""
    try:
        text: str = tokenizer_of(folder).backend_tokenizer.to_str()
    except WsrError:  # of an architecture that only recipes read, for example
        return None
    return text


def tokenizer_of(folder: Path) -> Any:
    """Returns the tokenizer of a folder, see ``read_tokenizer``; JAX is loaded only here."""
    from wsr.models.huggingface.tokenizer import read_tokenizer

    return read_tokenizer(folder)
