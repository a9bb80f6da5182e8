"""Opens the weights of a folder: safetensors, one file or sharded, or else those of a JAX program."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.runtime.model_folder import refuse_links
from wsr.runtime.tensor_files import INDEX, SINGLE, Tensor, held, open_tensors

FLAX, ORBAX, LEVANTER = "flax_model.msgpack", "_METADATA", "metadata.json"
"""The file by which the weights of a JAX program are known."""


def open_weights(place: Path) -> Mapping[str, Tensor]:
    """Returns every tensor of a model by its name in PyTorch.

    Without safetensors, it reads ``flax_model.msgpack``, an Orbax tree or a step of levanter in the folder or below it,
    or one ``.npz`` file; then the whole model is in memory.

    Args:
      place: a Hugging Face folder, or a safetensors file.

    Raises:
      WsrError: the folder has no such weights, or only pickles; the index names files outside it, a file is damaged, a
        tensor has a type that is not read, or a tree has another layout than those known.
    """
    if not place.is_dir() or any((place / name).exists() for name in (SINGLE, INDEX)):
        return open_tensors(place)
    # Imported where they are needed: safetensors need no JAX.
    if (place / FLAX).exists():
        from wsr.models.huggingface.flax_msgpack import open_flax

        return open_flax(place / FLAX)
    depths = ("", "*/", "*/*/", "*/*/*/")
    orbax = {path.parent for depth in depths for path in place.glob(f"{depth}{ORBAX}")}
    steps = {path.parent for depth in depths for path in place.glob(f"{depth}{LEVANTER}")}
    trees = sorted(orbax | {step for step in steps if (step / "model").is_dir()})
    archives = sorted(place.glob("*.npz"))
    if len(trees) + len(archives) > 1:
        told = ", ".join(str(path.relative_to(place)) for path in (*trees, *archives))
        raise WsrError(f"{place}: several trees of weights: {told}; keep one of them")
    for path in (*trees, *archives):
        return _of_tree(path, place)
    return open_tensors(place)


def _of_tree(path: Path, folder: Path) -> Mapping[str, Tensor]:
    from wsr.models.huggingface.tree_layouts import in_pytorch

    if path.is_dir():
        refuse_links(folder, deep=True)
        if (path / ORBAX).exists():
            from wsr.models.huggingface.orbax_tree import read_orbax

            leaves = read_orbax(path)
        else:
            from wsr.models.huggingface.zarr_tree import read_zarr

            leaves = read_zarr(path)
    else:
        from wsr.models.huggingface.numpy_archive import read_archive

        leaves = read_archive(path)
    return {name: held(path, own) for name, own in in_pytorch(leaves, folder, str(path)).items()}


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
    """Returns every tensor of the model in ``folder``, by name, in its stored dtype; see ``open_weights``."""
    return {name: tensor.whole() for name, tensor in open_weights(folder).items()}


def read_file(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of one safetensors file, by name; raises ``WsrError`` if it is damaged."""
    return {name: tensor.whole() for name, tensor in open_tensors(path).items()}
