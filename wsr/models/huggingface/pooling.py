"""The pooling of a model folder, in the file where sentence-transformers keeps it."""

import json
from pathlib import Path

from wsr.errors import WsrError
from wsr.models.huggingface.config import read_json
from wsr.models.model import Model
from wsr.runtime.model_folder import CONFIG, module_folders

POOLING_FILE = Path("1_Pooling") / "config.json"
_MODES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
"""The modes of sentence-transformers 5.4 and later, with our names."""
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
"""The flags of earlier versions."""
_OURS = {"eos": "eos", "projection": "projection", "attention": "attention"}
"""Poolings of CLIP and SigLIP, which sentence-transformers does not have."""


def folder_pooling(folder: Path) -> str | None:
    """Returns the pooling that a folder's file of sentence-transformers names, None without one.

    Args:
      folder: a model folder; its modules.json names the folder of the pooling, which is ``1_Pooling`` otherwise.

    Raises:
      WsrError: the file names none, several or an unsupported pooling.
    """
    places = [folder / name / CONFIG for name in module_folders(folder) if name.endswith("_Pooling")]
    return pooling_in(next((own for own in places if own.exists()), folder / POOLING_FILE))


def pooling_in(path: Path) -> str | None:
    """Returns the pooling that a file of sentence-transformers names, None if there is no such file.

    Raises:
      WsrError: the file names none, several or an unsupported pooling.
    """
    if not path.exists():
        return None
    content = read_json(path)
    named = content.get("pooling_mode")
    if named is None:
        named = [mode for mode, on in content.items() if mode.startswith("pooling_mode_") and on is True]
    modes = [str(mode) for mode in named] if isinstance(named, list) else [str(named)]
    known = {**_FLAGS, **_MODES, **_OURS}
    if len(modes) != 1 or modes[0] not in known:
        told = f"the pooling {' and '.join(modes)} is not supported" if modes else "it names no pooling"
        ours = ", ".join(_MODES.values())
        raise WsrError(f"{path}: {told}; choose {ours} with --pooling, or in Python with the argument pooling")
    return known[modes[0]]


def write_pooling(model: Model, folder: Path) -> None:
    """Writes the pooling of a model as all versions of sentence-transformers read it: with the flags of old ones."""
    pooling = model.config["pooling"]
    flags = {flag: mode == pooling for flag, mode in _FLAGS.items()}
    mode = {"pooling_mode": pooling} if pooling in _OURS else {}
    content = {"word_embedding_dimension": model.hidden, **mode, **flags}
    (folder / POOLING_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
