"""Reads the weights of a folder from safetensors, one file or sharded, into memory."""

from pathlib import Path

import numpy as np

from wsr.runtime.tensor_files import open_tensors


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Returns every tensor of the model in ``folder``, by name, in its stored dtype.

    Raises:
      WsrError: the folder has no safetensors or only pickles, the index names files outside it, a file is damaged, or
        a tensor has a type that is not read.
    """
    return {name: tensor.whole() for name, tensor in open_tensors(folder).items()}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of one safetensors file, by name; raises ``WsrError`` if it is damaged."""
    return read_tensors(path)
