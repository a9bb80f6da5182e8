"""The pooling of a model folder, in the file where sentence-transformers keeps it."""

import json
from pathlib import Path

from wsr.errors import WsrError
from wsr.models.huggingface.config import read_json
from wsr.models.model import Model

POOLING_FILE = Path("1_Pooling") / "config.json"
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
}


def folder_pooling(folder: Path) -> str | None:
    """Returns the pooling that a folder's file of sentence-transformers names, None without one.

    Raises:
      WsrError: the file names none, several or an unsupported pooling.
    """
    path = folder / POOLING_FILE
    if not path.exists():
        return None
    modes = [mode for mode, on in read_json(path).items() if mode.startswith("pooling_mode_") and on is True]
    if len(modes) != 1 or modes[0] not in _POOLING_FLAGS:
        raise WsrError(f"{path}: poolings {modes} are not supported; pass pooling='mean', 'cls' or 'last'")
    return _POOLING_FLAGS[modes[0]]


def write_pooling(model: Model, folder: Path) -> None:
    """Writes the pooling of a model as sentence-transformers reads it."""
    pooling = model.config["pooling"]
    flags = {flag: mode == pooling for flag, mode in _POOLING_FLAGS.items()}
    content = {"word_embedding_dimension": model.hidden, **flags}
    (folder / POOLING_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
