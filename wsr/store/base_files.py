"""What a store keeps of its base beside the encoder's weights."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from wsr.errors import WsrError
from wsr.runtime.model_folder import BASE_HEAD, transformer_folder

if TYPE_CHECKING:
    from wsr.models.model import Checkpoint


@contextlib.contextmanager
def files_of_base(base: "Checkpoint") -> Iterator[dict[str, Path]]:
    """Gives the files of a base that a store keeps, by relative path: its companions, and its head if it has one.

    Args:
      base: the base of a new store.
    """
    from safetensors.numpy import save_file

    from wsr.models.huggingface.files import read_tensors
    from wsr.models.huggingface.weights import head_tensors

    with base.companions() as files, TemporaryDirectory() as place:
        head: dict[str, np.ndarray] = {}
        if base.folder is not None and base.folder.is_dir():
            with contextlib.suppress(WsrError):  # a folder without weights
                head = head_tensors(base.model, read_tensors(transformer_folder(base.folder)))
        if head:
            save_file({name: np.asarray(own, order="C") for name, own in head.items()}, Path(place) / BASE_HEAD)
            files = {**files, BASE_HEAD: Path(place) / BASE_HEAD}
        yield files
