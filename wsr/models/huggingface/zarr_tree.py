"""Reads the model in a checkpoint of levanter: a folder of a step, with one zarr array in a folder of its own.

Sources: ``checkpoint.py`` and ``tensorstore_serialization.py`` of levanter. ``metadata.json`` names the step; the parts
of the training state lie beside it, and the model below ``model``.
"""

from pathlib import Path

import numpy as np

from wsr.errors import WsrError

MODEL, _ARRAY = "model", ".zarray"


def read_zarr(place: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the model by path, such as ``transformer/norm/weight``.

    Args:
      place: the folder of a step.

    Raises:
      WsrError: if there is no array, or one is damaged.
    """
    # Imported here: it takes time.
    import tensorstore

    found: dict[str, np.ndarray] = {}
    for path in sorted(file.parent for file in (place / MODEL).rglob(_ARRAY)):
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path.resolve())}}
        try:
            found[path.relative_to(place / MODEL).as_posix()] = (
                tensorstore.open(spec, read=True).result().read().result()
            )
        except Exception as error:  # TensorStore raises kinds of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise WsrError(f"{path}: not readable as a zarr array: {reason[:200]}") from error
    if not found:
        raise WsrError(f"{place}: expected the arrays of a model below {MODEL}/, found none")
    return found
