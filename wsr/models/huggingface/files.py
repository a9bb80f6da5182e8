"""Opens the weights of a folder: safetensors, one file or sharded, or else Flax's msgpack."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsr.models.huggingface.flax_msgpack import FLAX, open_flax
from wsr.runtime.tensor_files import INDEX, SINGLE, Tensor, open_tensors


def open_weights(folder: Path) -> Mapping[str, Tensor]:
    """Returns every tensor of the model in ``folder``, by its name in PyTorch.

    Args:
      folder: a Hugging Face folder, or a safetensors file.

    Raises:
      WsrError: the folder has neither safetensors nor a Flax model, or only pickles; the index names files outside it,
        a file is damaged, or a tensor has a type that is not read.
    """
    if (folder / FLAX).exists() and not any((folder / name).exists() for name in (SINGLE, INDEX)):
        return open_flax(folder / FLAX)
    return open_tensors(folder)


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Returns every tensor of the model in ``folder``, by name, in its stored dtype; see ``open_weights``."""
    return {name: tensor.whole() for name, tensor in open_weights(folder).items()}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of one safetensors file, by name; raises ``WsrError`` if it is damaged."""
    return {name: tensor.whole() for name, tensor in open_tensors(path).items()}
