"""Reads ``flax_model.msgpack`` of transformers, which wrote it until version 4; nothing in it is a pickle.

Its names are those of PyTorch with other leaves: a kernel is a transposed weight (a convolution's has its axes in
another order), scale and embedding are weights. GPT-2's Conv1D is stored as [outputs, inputs], so the rule holds for
it too (``modeling_flax_pytorch_utils`` of transformers 4).
"""

from pathlib import Path
from typing import Any

import numpy as np
from flax import serialization, traverse_util

from wsr.errors import WsrError
from wsr.models.counterpart import CHANNELS_LAST, TRANSPOSED
from wsr.runtime.tensor_files import HeldTensor, held

FLAX = "flax_model.msgpack"


def open_flax(path: Path) -> dict[str, HeldTensor]:
    """Returns the tensors of a file by their names in PyTorch; the whole model is in memory.

    Args:
      path: the file.

    Raises:
      WsrError: if the file is damaged, or holds something other than a nested table of arrays.
    """
    try:
        content = serialization.msgpack_restore(path.read_bytes())
        leaves = traverse_util.flatten_dict(content)
    except Exception as error:  # msgpack raises kinds of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WsrError(f"{path}: not readable as a Flax model: {reason[:200]}") from error
    strange = [".".join(map(str, name)) for name, leaf in leaves.items() if not isinstance(leaf, np.ndarray)]
    if strange or not leaves:
        raise WsrError(f"{path}: expected a nested table of arrays, found {', '.join(strange[:3]) or 'nothing'}")
    found: dict[str, HeldTensor] = {}
    for name, leaf in leaves.items():
        theirs, values = _in_pytorch(tuple(map(str, name)), leaf)
        found[theirs] = held(path, values)
    return found


def _in_pytorch(name: tuple[str, ...], leaf: np.ndarray) -> tuple[str, Any]:
    *module, last = name
    if last == "kernel":
        return ".".join([*module, "weight"]), (CHANNELS_LAST if leaf.ndim == 4 else TRANSPOSED).back(leaf)
    return ".".join([*module, "weight" if last in ("scale", "embedding") else last]), leaf
