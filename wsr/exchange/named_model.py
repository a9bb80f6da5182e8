"""Any model that a person names (a file, a folder, a hub name, a point of a store) under transformers' tensor names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.door import Brought, open_model
from wsr.exchange.member import read_member
from wsr.exchange.named_point import named_point, open_point
from wsr.geometry.trees import flatten
from wsr.models import Checkpoint, Model, architectures
from wsr.models.counterpart import SAME, Counterpart
from wsr.models.huggingface.config import to_config
from wsr.models.huggingface.weights import current_name, their_tensors
from wsr.models.load import find_folder, load
from wsr.models.registry import checkpoints
from wsr.region.learned import names_of_region
from wsr.runtime.model_folder import ADAPTER
from wsr.runtime.tensor_files import Tensor
from wsr.store import Store
from wsr.types import AnyArray

Named = str | Path | Checkpoint
"""A model in memory, or what names one: see ``open_named_model``."""


_NOWHERE = "a model in memory"


@dataclass(frozen=True, eq=False)
class LeafTensor(Tensor):
    """A tensor of a model that lies in a store or in memory, computed each time it is read."""

    leaf: Callable[[], np.ndarray]

    def will_read(self, start: int, entries: int) -> None:
        """Does nothing."""

    def read(self, start: int, out: np.ndarray) -> None:
        """Copies entries, from index ``start`` on, into the flat array ``out``."""
        out[:] = self.whole().reshape(-1)[start : start + out.size]

    def whole(self) -> np.ndarray:
        """Returns the whole tensor."""
        return self.leaf()


def open_named_model(model: Named, store: Store | None = None) -> Brought:
    """Opens a model; its tensors are read when they are needed.

    Args:
      model: a checkpoint; or a member, ``base``, ``centroid`` or coefficients such as ``name=0.5,other=0.5`` of
        ``store``; or a registered name, a Hugging Face folder, a safetensors file or a hub name; or, with ``store``, a
        LoRA adapter of its base.
      store: a store; None: ``model`` is none of its points.

    Returns:
      The model. Its tensors have the names that the encoder has in today's transformers, without the prefix of a class
      with a head; tensors of other architectures have their names in the file.

    Raises:
      WsrError: if there is no such model, or it is damaged.
    """
    if isinstance(model, Checkpoint):
        leaves = flatten(model.params)
        return _in_memory(model.model, lambda path: np.asarray(leaves[path]), model.folder or Path(_NOWHERE))
    name = str(model)
    if store is not None and (point := _point(store, name)) is not None:
        files = store.companions()
        where = next((path.parent for name, path in files.items() if "/" not in name), store.path)
        return _in_memory(store.model, open_point(store, point), where)
    if name in checkpoints():
        return open_named_model(load(name))
    if Path(name).is_file():
        return _renamed(open_model(Path(name)))
    folder = find_folder(name)
    if (folder / ADAPTER).exists() and store is not None:
        adapted = flatten(read_member(folder, store.checkpoint()).params)
        return _in_memory(store.model, lambda path: np.asarray(adapted[path]), folder)
    return _renamed(open_model(folder))


def named_leaves(model: Named, store: Store | None = None) -> tuple[Model, dict[str, np.ndarray]]:
    """Reads a model of a supported architecture into memory.

    Args:
      model: see ``open_named_model``; but no file, because a file has no config.
      store: see there.

    Returns:
      Its architecture, and its float32 leaves by path.

    Raises:
      WsrError: if there is no such model, or its architecture is not supported.
    """
    if store is not None and not isinstance(model, Checkpoint) and (point := _point(store, str(model))) is not None:
        leaf = open_point(store, point)
        return store.model, {path: leaf(path) for path in flatten(store.base())}
    if store is not None and not isinstance(model, Checkpoint) and str(model) not in checkpoints():
        folder = find_folder(str(model))
        if (folder / ADAPTER).exists():
            adapted = flatten(read_member(folder, store.checkpoint()).params)
            return store.model, {path: np.asarray(own, np.float32) for path, own in adapted.items()}
    checkpoint = model if isinstance(model, Checkpoint) else load(model)
    return checkpoint.model, {path: np.asarray(own) for path, own in flatten(checkpoint.params).items()}


def counterpart_of_config(config: Mapping[str, Any] | None) -> Counterpart | None:
    """Returns the supported architecture that a config.json names; None if it names none.

    Args:
      config: content of config.json.
    """
    known = (own.counterpart for own in architectures().values() if own.counterpart is not None)
    return next((own for own in known if own.reads((config or {}).get("model_type"))), None)


def _point(store: Store, name: str) -> dict[str, float] | None:
    """Returns the coefficients of a point of the store; None if ``name`` is a model of another place."""
    if Path(name).exists() and name not in store:
        return None
    members = names_of_region(store) if name == "centroid" else []
    try:
        return named_point(store, name, members)
    except WsrError:
        if "=" in name:
            raise
        return None


def _in_memory(model: Model, leaf: Callable[[str], AnyArray], where: Path) -> Brought:
    import jax

    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    if architectures()[model.name].counterpart is None:
        table, config = [(path, path, SAME) for path in shapes], dict(model.config)
    else:
        table, config = list(their_tensors(model)), to_config(model).to_dict()
    tensors: dict[str, Tensor] = {}
    for theirs, ours, layout in table:
        # Shapes only: a broadcast scalar takes no memory.
        shape = layout.back(np.broadcast_to(np.float32(0), shapes[ours].shape)).shape

        def read(ours: str = ours, back: Callable[[np.ndarray], np.ndarray] = layout.back) -> np.ndarray:
            return np.ascontiguousarray(back(np.asarray(leaf(ours), np.float32)))

        tensors[theirs] = LeafTensor(where, "F32", shape, 0, read)
    return Brought(where, tensors, config)


def _renamed(model: Brought) -> Brought:
    counterpart = counterpart_of_config(model.config)
    if counterpart is None:
        return model
    found: dict[str, Tensor] = {}
    for name, tensor in model.tensors.items():
        today = current_name(counterpart, name)
        found[name if today in found else today] = tensor
    return Brought(model.path, found, model.config)
