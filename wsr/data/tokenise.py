"""Tokenises texts with a Hugging Face fast tokenizer, and caches the tokens on disk by a hash of their content."""

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
) -> tuple[Split, int]:
    """Returns the tokens of texts or pairs of texts, and the number of texts that were cut.

    Args:
      texts: the texts, or the first text of each pair.
      pairs: the second text of each pair; None for single texts.
      labels: the label of each text.
      tokenizer: a Hugging Face fast tokenizer. If it has no token types (RoBERTa), all are 0.
      max_length: longest text in tokens, special tokens included. The longer text of a pair is truncated first.
      tokenizer_hash: the result of ``hash_tokenizer``, a part of the cache's key.

    Raises:
      WsrError: if ``max_length`` leaves no room for text.
    """
    special = tokenizer.num_special_tokens_to_add(pair=pairs is not None)
    if max_length <= special:
        raise WsrError(f"max_length={max_length} leaves no room for text besides {special} special tokens")
    path = cache_folder() / "tokens" / f"{_content_hash(texts, pairs, tokenizer_hash, max_length)}.npz"
    found = _cached(path, labels)
    if found is None:
        found = _tokenise(texts, pairs, labels, tokenizer, max_length)
        _keep(path, *found)
    return found


def hash_tokenizer(tokenizer: Any) -> str:
    """Returns the sha256 of all settings of a fast tokenizer that determine its tokens."""
    serialised = json.loads(tokenizer.backend_tokenizer.to_str())
    # Settings that an earlier call left in the tokenizer; ``tokenise`` sets both at each call.
    serialised.update(truncation=None, padding=None)
    settings = {"tokenizer": serialised, "inputs": tokenizer.model_input_names}
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _tokenise(
    texts: Sequence[str], pairs: Sequence[str] | None, labels: Any, tokenizer: Any, max_length: int
) -> tuple[Split, int]:
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
    full = np.flatnonzero(np.diff(offsets) == max_length).tolist()
    cut = sum(bool(encoded.encodings[text].overflowing) for text in full)
    split = Split(
        flat,
        np.zeros_like(flat) if types is None else np.concatenate(types).astype(np.int32),
        offsets,
        labels,
    )
    return split, cut


def _content_hash(texts: Sequence[str], pairs: Sequence[str] | None, tokenizer_hash: str, max_length: int) -> str:
    digest = hashlib.sha256(f"cut counted {tokenizer_hash} {max_length} {pairs is not None}".encode())
    for text in (*texts, *(pairs or ())):
        content = text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


def _cached(path: Path, labels: Any) -> tuple[Split, int] | None:
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Split(arrays["token_ids"], arrays["token_types"], arrays["offsets"], labels), int(arrays["cut"])
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
        print(f"{path}: damaged ({error}); tokenising again", flush=True)
        return None


def _keep(path: Path, split: Split, cut: int) -> None:
    content = io.BytesIO()
    np.savez(content, token_ids=split.token_ids, token_types=split.token_types, offsets=split.offsets, cut=cut)
    write_atomically(path, content.getvalue())
