"""The way in for every model that a person brings: its folder or file is opened here, or refused in one line.

``wsr import`` and ``wsr merge --recipe`` both begin here. Nothing is read but headers and JSON, and JAX is not needed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.runtime.model_folder import (
    ADAPTER,
    CONFIG,
    module_folders,
    read_config_file,
    refuse_links,
    transformer_folder,
)
from wsr.runtime.tensor_files import FLOATS, INDEX, PICKLED, SINGLE, Tensor, open_tensors

_PACKED = re.compile(r"(^|\.)(q?weight|weight_packed)$")
"""Names of weights; whole numbers under these names are codes of a quantised model."""
_LORA = re.compile(r"\.lora_(embedding_)?[AB](\.|$)")


@dataclass(frozen=True, eq=False)
class Brought:
    """A model as it lies on the disk; its tensors are read when they are needed."""

    path: Path
    """Its folder or its safetensors file."""
    tensors: Mapping[str, Tensor]
    """Its tensors by name."""
    config: Mapping[str, Any] | None
    """Content of its config.json; None if there is none."""

    def __str__(self) -> str:
        return str(self.path)

    @property
    def transformer(self) -> Path:
        """Where its config and tokenizer lie: its path, or the ``0_Transformer`` of a SentenceTransformer."""
        return transformer_folder(self.path) if self.path.is_dir() else self.path

    @property
    def labels(self) -> list[str] | None:
        """Names of its classes, by row of its classifier; None if its config has none."""
        named = (self.config or {}).get("id2label")
        return [str(named[number]) for number in sorted(named, key=int)] if named else None


def open_model(path: Path) -> Brought:
    """Opens a Hugging Face folder or a safetensors file.

    Args:
      path: the folder or the file.

    Raises:
      WsrError: if links leave the folder, it is an adapter, it is quantised, or its config or its weights are missing
        or damaged; a file needs no config.
    """
    refuse_links(path)
    if (path / ADAPTER).exists():
        raise WsrError(_of_adapter(path))
    inner = transformer_folder(path) if path.is_dir() else path
    tensors = _opened(inner)
    if any(_LORA.search(name) for name in tensors):
        raise WsrError(_of_adapter(path))
    config = read_config_file(inner / CONFIG) if (inner / CONFIG).exists() else None
    codes = [name for name, own in tensors.items() if own.dtype not in FLOATS and _PACKED.search(name)]
    method = (config or {}).get("quantization_config")
    if method or codes:
        told = method.get("quant_method") if isinstance(method, Mapping) else method
        found = f"its config names {told or 'a quantisation'}" if method else f"{codes[0]} is {tensors[codes[0]].dtype}"
        raise WsrError(
            f"{path}: quantised weights are not merged ({found}); load the model with transformers, dequantise it and "
            "save it again"
        )
    return Brought(path, tensors, config)


def open_modules(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of the modules of a SentenceTransformer, such as ``2_Dense/linear.weight``.

    Args:
      folder: a Hugging Face folder; one without modules.json has none.

    Raises:
      WsrError: if modules.json or a module's weights are damaged, or a module has its weights in a pickle.
    """
    found: dict[str, Tensor] = {}
    for module in module_folders(folder):
        own = _of_module(folder / module)
        found |= {f"{module}/{name}": tensor for name, tensor in own.items()}
    return found


def _opened(place: Path) -> Mapping[str, Tensor]:
    """Returns the tensors of a folder or a file; only those of JAX programs need JAX."""
    if place.is_file() or any((place / name).exists() for name in (SINGLE, INDEX)):
        return open_tensors(place)
    from wsr.models.huggingface.files import open_weights

    return open_weights(place)


def _of_adapter(path: Path) -> str:
    return (
        f"{path}: a LoRA adapter, not a whole model; import it into a store (wsr import) and merge there, or merge it "
        "into its base first (PEFT's merge_and_unload)"
    )


def _of_module(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors of a module, of which most have none."""
    if any((folder / name).exists() for name in (SINGLE, INDEX)):
        return open_tensors(folder)
    pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLED)
    if pickled:
        raise WsrError(
            f"{folder}: found {', '.join(pickled)} but no {SINGLE}; pickles are never read: save the model again with "
            "sentence-transformers"
        )
    return {}
