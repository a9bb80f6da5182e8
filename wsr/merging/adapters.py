"""The models that a recipe names: folders, files, models of the hub, and ``BASE+ADAPTER``.

For the last, tensors to which a LoRA adapter is added while they are read.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from wsr.errors import WsrError
from wsr.exchange.door import Brought, open_model
from wsr.runtime.model_folder import refuse_links
from wsr.runtime.tensor_files import FLOATS, Tensor, open_tensors


@dataclass(frozen=True, eq=False)
class Adapted(Tensor):
    """A matrix of the base to which ``left @ right`` is added."""

    left: Float[np.ndarray, "rows rank"]
    right: Float[np.ndarray, "rank columns"]

    def read(self, start: int, out: np.ndarray) -> None:
        """Reads entries of the sum, see ``Tensor.read``."""
        super().read(start, out)
        columns = self.shape[1]
        first, last = start // columns, -(-(start + out.size) // columns)
        rows = (self.left[first:last] @ self.right).reshape(-1)
        out += rows[start - first * columns :][: out.size]

    def whole(self) -> np.ndarray:
        """Returns the whole sum, in float32."""
        content = np.empty(self.size, np.float32)
        self.read(0, content)
        return content.reshape(self.shape)


def parted(name: str) -> tuple[str, str]:
    """Returns the base and the adapter of ``BASE+ADAPTER``; the adapter is empty if there is none.

    A folder may have plus signs in its own name: what exists is not parted, and else the first base that exists counts.
    """
    cuts = [] if Path(name).exists() else [at for at, character in enumerate(name) if character == "+"]
    at = next((at for at in cuts if Path(name[:at]).exists()), cuts[0] if cuts else len(name))
    return name[:at], name[at + 1 :]


def located(name: str) -> Path:
    """Returns the path of a model: the path itself, or the local copy of the hub's model ``owner/name``.

    Raises:
      WsrError: there is no such path, and the hub did not give a model of that name.
    """
    if "/" not in name or Path(name).exists():
        return Path(name)
    from wsr.models.huggingface.hub import download, is_name  # needs JAX

    return download(name) if is_name(name) else Path(name)


def open_named(name: str) -> Brought:
    """Opens a folder, a file or a model of the hub, or one with an adapter: ``BASE+ADAPTER``.

    Args:
      name: a path or a hub name, or two of them with a plus sign between them.

    Raises:
      WsrError: if a model or an adapter is refused, or the adapter does not fit the base.
    """
    base, adapter = parted(name)
    if not adapter:
        return open_model(located(name))
    from wsr.models.huggingface.peft import TENSORS, read_updates

    model, folder = open_model(located(base)), located(adapter)
    refuse_links(folder)
    tensors = dict(model.tensors)
    problems = []
    updates, whole = read_updates(folder)
    stored = open_tensors(folder / TENSORS)
    for name, there in whole.items():  # trained heads, and copies of adapted tables
        path = _path_of(name, tensors)
        if path is None or stored[there].shape != tensors[path].shape:
            problems.append(f"its {name} {stored[there].shape} has no counterpart in {base}")
            continue
        tensors[path] = stored[there]
    for module, update in updates.items():
        path = _path_of(f"{module}.weight", tensors)
        if path is None:
            problems.append(f"it adapts {module}, which {base} does not have")
            continue
        own, (left, right) = tensors[path], map(np.asarray, update)
        if own.shape != (len(left), right.shape[1]) or own.dtype not in FLOATS:
            problems.append(f"its {module} is {(len(left), right.shape[1])}, that of {base} {own.shape}")
            continue
        tensors[path] = Adapted(own.file, own.dtype, own.shape, own.start, left, right)
    if problems:
        raise WsrError(f"{adapter}: the adapter does not fit {base}: {'; '.join(problems)}")
    return replace(model, tensors=tensors)


def _path_of(weight: str, tensors: dict[str, Tensor]) -> str | None:
    """Returns the tensor of an adapted weight; a checkpoint of a bare encoder has no prefix, or one more."""
    if weight in tensors:
        return weight
    ends = [path for path in tensors if weight.endswith(f".{path}") or path.endswith(f".{weight}")]
    return ends[0] if len(ends) == 1 else None
