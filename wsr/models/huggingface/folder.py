"""Hugging Face model folders: strict import, and export that ``transformers.AutoModel`` loads."""

import json
import logging
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.huggingface.config import read_config, read_json, to_config
from wsr.models.huggingface.files import SINGLE, read_tensors
from wsr.models.huggingface.weights import from_huggingface, to_huggingface
from wsr.models.model import Checkpoint
from wsr.models.registry import architectures, build

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
# Where sentence-transformers says how tokens become a sentence.
POOLING_FILE = Path("1_Pooling") / "config.json"
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}

_log = logging.getLogger(__name__)


def import_folder(folder: Path, *, pooling: str | None = None) -> Checkpoint:
    """Returns the checkpoint in a Hugging Face folder (config, safetensors, fast tokenizer).

    Without ``pooling`` the folder's own is taken (a sentence-transformers file), else what the classification
    heads of its Hugging Face models read.

    Raises:
        WsrError: anything in the folder that is missing, broken or not understood.
    """
    name, config = read_config(folder)
    counterpart = architectures()[name].counterpart
    assert counterpart is not None
    tensors = read_tensors(folder)
    present = {attribute: tensor in tensors for attribute, tensor in counterpart.present.items()}
    pooling = pooling or _folder_pooling(folder) or counterpart.pooling
    model = build(name, {**config, **present, "pooling": pooling})
    tokenizer = _tokenizer(folder, model.config["vocab_size"])
    params, dropped = from_huggingface(model, tensors)
    if dropped:
        _log.info("%s: not part of the encoder, dropped: %s", folder, ", ".join(dropped))
    return Checkpoint(model, params, tokenizer)


def export(checkpoint: Checkpoint, folder: Path) -> None:
    """Writes ``checkpoint`` as a Hugging Face folder with the same hidden states.

    A pooler is no part of it: load it with ``AutoModel.from_pretrained(folder, add_pooling_layer=False)``.

    Raises:
        WsrError: ``folder`` is there and not empty, or the architecture has no Hugging Face counterpart.
    """
    from safetensors.numpy import save_file

    config = to_config(checkpoint.model)
    tensors = to_huggingface(checkpoint.model, checkpoint.params)
    if folder.exists() and any(folder.iterdir()):
        raise WsrError(f"{folder}: already there and not empty; choose another folder")
    (folder / POOLING_FILE).parent.mkdir(parents=True)
    config.save_pretrained(folder)
    checkpoint.tokenizer.save_pretrained(folder)
    pooling = checkpoint.model.config["pooling"]
    flags = {flag: mode == pooling for flag, mode in _POOLING_FLAGS.items()}
    content = {"word_embedding_dimension": checkpoint.model.hidden, **flags}
    (folder / POOLING_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def _folder_pooling(folder: Path) -> str | None:
    path = folder / POOLING_FILE
    if not path.exists():
        return None
    modes = [mode for mode, on in read_json(path).items() if mode.startswith("pooling_mode_") and on is True]
    if len(modes) != 1 or modes[0] not in _POOLING_FLAGS:
        raise WsrError(f"{path}: poolings {modes} are not supported; pass pooling='mean', 'cls' or 'last'")
    return _POOLING_FLAGS[modes[0]]


def _tokenizer(folder: Path, vocab_size: int) -> Any:
    from transformers import AutoTokenizer

    # Without its files transformers would make up an empty vocabulary and say nothing.
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise WsrError(f"{folder}: no tokenizer; expected one of {', '.join(TOKENIZER_FILES)}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # Any of a dozen kinds, by tokenizer class.
        raise WsrError(f"{folder}: no readable tokenizer: {' '.join(str(error).split())}") from error
    if not tokenizer.is_fast:
        raise WsrError(f"{folder}: expected a fast tokenizer (tokenizer.json), found {type(tokenizer).__name__}")
    if len(tokenizer) > vocab_size:
        raise WsrError(
            f"{folder}: the tokenizer has {len(tokenizer)} entries, the model only {vocab_size}: "
            "they do not belong together"
        )
    return tokenizer
