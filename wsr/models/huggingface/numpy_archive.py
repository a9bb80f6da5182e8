"""Reads NumPy archives (``.npz``) as big_vision writes them; nothing is unpickled."""

from pathlib import Path

import ml_dtypes
import numpy as np

from wsr.errors import WsrError

_PREFIXES = ("params/params/", "params/", "opt/target/")
"""Where the parameters stand in an archive of a whole training state."""


def read_archive(path: Path) -> dict[str, np.ndarray]:
    """Returns the parameters in an archive by path, such as ``Transformer/encoder_norm/scale``.

    Args:
      path: the file.

    Raises:
      WsrError: if the file is damaged or holds Python objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            inside = next((own for own in _PREFIXES if any(name.startswith(own) for name in archive.files)), "")
            names = [name for name in archive.files if name.startswith(inside)]
            leaves = {name.removeprefix(inside): archive[name] for name in names}
    except Exception as error:  # zipfile and NumPy raise kinds of their own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WsrError(f"{path}: not readable as an archive of arrays: {reason[:200]}") from error
    # NumPy writes bfloat16 as two bytes without a type.
    return {name: leaf.view(ml_dtypes.bfloat16) if leaf.dtype == "V2" else leaf for name, leaf in leaves.items()}
