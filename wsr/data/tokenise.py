"""Texts to tokens with a Hugging Face fast tokenizer, once: the result is kept by the hash of its content."""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from wsr.data.dataset import Split
from wsr.errors import WsrError
from wsr.runtime.assets import cache_folder
from wsr.runtime.atomic import write_atomically


def tokenise(
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    labels: Int32[np.ndarray, " texts"] | Float32[np.ndarray, " texts"],
    tokenizer: Any,
    max_length: int,
    tokenizer_hash: str,
) -> Split:
    """Returns the tokens of ``texts``, or of pairs, cut to ``max_length`` with their special tokens.

    ``tokenizer_hash`` is that of ``hash_tokenizer``. Of a pair the longer text is cut first. Token types are
    0 where the tokenizer has none (RoBERTa).
    Raises: ``WsrError`` where ``max_length`` leaves no room for text.
    """
    special = tokenizer.num_special_tokens_to_add(pair=pairs is not None)
    if max_length <= special:
        raise WsrError(f"max_length={max_length} leaves no room for text beside {special} special tokens")
    path = cache_folder() / "tokens" / f"{_content_hash(texts, pairs, tokenizer_hash, max_length)}.npz"
    split = _cached(path, labels)
    if split is None:
        split = _tokenise(texts, pairs, labels, tokenizer, max_length)
        _keep(path, split)
    return split


def hash_tokenizer(tokenizer: Any) -> str:
    """Returns the sha256 of all that makes the tokens of a fast tokenizer."""
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    # What an earlier call left in the tokenizer; ``tokenise`` asks for its own at each call.
    serialised.update(truncation=None, padding=None)
    settings = {"tokenizer": serialised, "inputs": tokenizer.model_input_names}
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _tokenise(texts: Sequence[str], pairs: Sequence[str] | None, labels: Any, tokenizer: Any, max_length: int) -> Split:
    encoded = tokenizer(
        list(texts),
        None if pairs is None else list(pairs),
        truncation="longest_first",
        max_length=max_length,
        return_attention_mask=False,
        return_token_type_ids="token_type_ids" in tokenizer.model_input_names,
        verbose=False,
    )
    token_ids = encoded["input_ids"]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in token_ids])]).astype(np.int64)
    flat = np.concatenate(token_ids).astype(np.int32)
    types = encoded.get("token_type_ids")
    return Split(
        flat,
        np.zeros_like(flat) if types is None else np.concatenate(types).astype(np.int32),
        offsets,
        labels,
    )


def _content_hash(texts: Sequence[str], pairs: Sequence[str] | None, tokenizer_hash: str, max_length: int) -> str:
    digest = hashlib.sha256(f"{tokenizer_hash} {max_length} {pairs is not None}".encode())
    for text in (*texts, *(pairs or ())):
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _cached(path: Path, labels: Any) -> Split | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Split(arrays["token_ids"], arrays["token_types"], arrays["offsets"], labels)
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        print(f"{path}: damaged ({error}); tokenising again", flush=True)
        return None


def _keep(path: Path, split: Split) -> None:
    content = io.BytesIO()
    np.savez(content, token_ids=split.token_ids, token_types=split.token_types, offsets=split.offsets)
    write_atomically(path, content.getvalue())
