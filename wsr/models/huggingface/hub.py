"""Downloads model folders from the Hugging Face hub, through its client and cache."""

import re
from contextlib import suppress
from pathlib import Path

from wsr.errors import WsrError
from wsr.runtime.hub_client import watched

TIMEOUT_SECONDS = 10.0
FILES = (
    *("*.json", "*.txt", "*.jinja", "*.model", "*.tiktoken", "*.spm", "*.bpe", "README.md"),
    *("model.safetensors", "model-*.safetensors", "adapter_model.safetensors"),
    "[0-9]_*/model.safetensors",  # modules of a SentenceTransformer
)
"""Patterns of the files that are downloaded: weights in safetensors, and what belongs to them; no code, no pickles."""
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def download(name: str, revision: str | None = None) -> Path:
    """Returns the local folder of the hub's model ``name``; a model in the hub's cache needs no network.

    Args:
      name: the model.
      revision: a commit, tag or branch; None is the newest commit.

    Raises:
      WsrError: the hub cannot be reached or has no such model.
    """
    from huggingface_hub import snapshot_download

    files = list(FILES)
    try:
        with watched() as watch:
            return Path(snapshot_download(name, revision=revision, allow_patterns=files, etag_timeout=TIMEOUT_SECONDS))
    except Exception as error:  # The client and its transport raise errors of many kinds.
        if watch.reason is not None:
            with suppress(Exception):
                return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=True))
        reason = watch.reason or " ".join(str(error).split())
        raise WsrError(
            f"{name!r} is not a local folder and could not be downloaded from the Hugging Face hub ({reason}); "
            "without a network, use a local folder with config.json and model.safetensors, 'minilm' or 'tiny'"
        ) from error


def card_text(name: str) -> str | None:
    """Returns the README.md of the hub's model ``name``, from the cache or from the hub; None if it cannot be read."""
    from huggingface_hub import hf_hub_download

    for offline in (True, False):
        try:
            with watched():
                path = hf_hub_download(name, "README.md", etag_timeout=TIMEOUT_SECONDS, local_files_only=offline)
            return Path(path).read_text(encoding="utf-8", errors="replace")
        except Exception:  # The client and its transport raise errors of many kinds.
            continue
    return None


def is_name(name: str) -> bool:
    """Returns whether ``name`` has the form of a hub name: "name" or "owner/name"."""
    return _NAME.fullmatch(name) is not None


def path_or_name(where: str) -> str:
    """Returns ``where``, with ``./`` in front if it is a folder that could be taken for a model on the hub.

    Records keep this form: another process may run in another folder.
    """
    return f"./{where}" if is_name(where) and Path(where).is_dir() else where
