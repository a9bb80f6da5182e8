"""A model with its units in the order of another, as a folder: the same function, ready to be merged with the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.door import Brought, open_model
from wsr.exchange.matching import Leaves, Sweep, aligned, moved
from wsr.exchange.named_model import named_leaves
from wsr.models.counterpart import Layout
from wsr.models.huggingface.config import counterpart_of
from wsr.models.huggingface.weights import current_name, is_constant, their_tensors
from wsr.models.load import find_folder
from wsr.models.model import Model
from wsr.models.permutations import permutable
from wsr.runtime.model_folder import MODULES, companions, copy_companions, module_weights
from wsr.runtime.new_folder import new_folder, refuse_taken
from wsr.runtime.tensor_files import FLOATS, SINGLE, Tensor, TensorWriter
from wsr.store import Store


@dataclass(frozen=True)
class Alignment:
    """What an alignment changed."""

    before: float
    """Norm of the difference from the reference, relative to the reference's norm, before."""
    after: float
    """The same afterwards."""
    moved: int
    """Number of leaves whose entries changed places."""
    leaves: int
    """Number of leaves."""
    stream: bool
    """Whether the residual stream could change places, too."""

    def __str__(self) -> str:
        return (
            f"distance from the reference {self.before:.4g} of its norm before, {self.after:.4g} after; units of "
            f"{self.moved} of {self.leaves} leaves changed places"
        )


def align(
    model: str | Path,
    reference: str | Path,
    folder: str | Path,
    *,
    store: Store | None = None,
    stream: bool | None = None,
) -> Alignment:
    """Writes a model with its units in the order in which its weights come closest to the reference's.

    The model computes what it did: hidden units, heads and features within heads change places together with the
    weights that read and write them. See ``wsr.exchange.matching`` for the method. Heads of a file, its tokenizer and
    its dtype stay as they are. Both models are in memory.

    Args:
      model: a Hugging Face folder or a hub name.
      reference: the model whose order is taken: a registered name, a folder, a hub name or a point of ``store``.
      folder: a new or empty folder.
      store: a store whose points ``reference`` may name.
      stream: whether the residual stream may change places, and with it the features of an encoder; None: in language
        models, whose logits stay the same.

    Raises:
      WsrError: if the models have different architectures or shapes, the architecture's units are not known, the stream
        cannot change places because tensors outside the encoder read it, or ``folder`` is not empty.

    Example:
      >>> import tempfile, wsr
      >>> place, base = tempfile.mkdtemp(), wsr.load("tiny")
      >>> wsr.export(base.with_params(wsr.made_up_region(1).members[0].load()), place + "/tuned")
      >>> wsr.align(place + "/tuned", "tiny", place + "/aligned").moved
      0
    """
    refuse_taken(Path(folder))
    source = find_folder(str(model))
    brought = open_model(source)
    architecture, leaves = named_leaves(source)
    theirs, origin = named_leaves(reference, store)
    _refuse_other_shapes(model, reference, (architecture, leaves), (theirs, origin))
    units = permutable(architecture)
    if not units.feed_forwards and not units.attentions:
        raise WsrError(f"{model}: wsr does not know which units of {architecture.name} may change places")
    readers = _readers(source, architecture, brought.tensors)
    if stream and (readers or not units.stream):
        why = f"{', '.join(readers[:3])} would read it" if readers else "wsr does not know every leaf on it"
        raise WsrError(f"{model}: its residual stream stays in order, because {why}; leave out --stream")
    if stream is None:
        stream = not readers and _is_language_model(source, architecture, brought)
    found, steps = aligned(origin, leaves, units, stream=stream)
    _write(source, Path(folder), architecture, brought.tensors, steps)
    changed = sum(not np.array_equal(found[path], leaf) for path, leaf in leaves.items())
    return Alignment(_distance(origin, leaves), _distance(origin, found), changed, len(leaves), stream)


def _refuse_other_shapes(
    model: str | Path, reference: str | Path, ours: tuple[Model, Leaves], theirs: tuple[Model, Leaves]
) -> None:
    shapes, others = ({path: leaf.shape for path, leaf in leaves.items()} for _, leaves in (ours, theirs))
    unlike = [path for path in sorted(shapes.keys() | others.keys()) if shapes.get(path) != others.get(path)]
    if unlike:
        path = unlike[0]
        raise WsrError(
            f"{model} and {reference} have different shapes: {path} is {shapes.get(path)} and {others.get(path)} "
            f"({len(unlike)} leaves)"
        )


def _distance(reference: Leaves, model: Leaves) -> float:
    apart = sum(float(np.square(leaf.astype(np.float64) - model[path]).sum()) for path, leaf in reference.items())
    whole = sum(float(np.square(leaf, dtype=np.float64).sum()) for leaf in reference.values())
    return float(np.sqrt(apart / whole)) if whole else 0.0


def _places(model: Model) -> dict[str, tuple[str, Layout]]:
    """Returns the path and the layout of each tensor of the encoder, and of those that are tied to one."""
    found = {theirs: (ours, layout) for theirs, ours, layout in their_tensors(model)}
    for table, copies in counterpart_of(model).tied.items():
        found |= {copy: found[table] for copy in copies if table in found and copy not in found}
    return found


def _readers(source: Path, model: Model, tensors: Mapping[str, Tensor]) -> list[str]:
    """Returns learned tensors that belong to no leaf of ours: heads, poolers, modules of a SentenceTransformer."""
    counterpart, places = counterpart_of(model), _places(model)
    own = [
        name
        for name, tensor in tensors.items()
        if tensor.dtype in FLOATS
        and current_name(counterpart, name) not in places
        and not is_constant(counterpart, name)
    ]
    return [*own, *module_weights(source)]


def _is_language_model(source: Path, model: Model, brought: Brought) -> bool:
    """Returns whether logits are all that is read of a model: of others, the features may be."""
    classes = (brought.config or {}).get("architectures") or ()
    return counterpart_of(model).language_model_class in classes and not (source / MODULES).exists()


def _write(source: Path, folder: Path, model: Model, tensors: Mapping[str, Tensor], steps: Sequence[Sweep]) -> None:
    counterpart, places = counterpart_of(model), _places(model)
    by_path: dict[str, list[Sweep]] = {}
    for sweep in steps:
        for path in {axis.path for axis in sweep}:
            by_path.setdefault(path, []).append({axis: own for axis, own in sweep.items() if axis.path == path})
    with new_folder(folder) as unfinished:
        copy_companions(companions(source) | module_weights(source), unfinished)
        forms = {name: (own.dtype, own.shape) for name, own in tensors.items()}
        with TensorWriter(unfinished / SINGLE, forms) as writer:
            for name, own in tensors.items():
                path, layout = places.get(current_name(counterpart, name), ("", None))
                values = own.whole()
                if layout is not None and path in by_path:
                    leaf = {path: layout.into(values)}
                    for sweep in by_path[path]:
                        leaf = moved(leaf, sweep)
                    values = np.ascontiguousarray(layout.back(leaf[path]))
                writer.put(name, values.reshape(-1).view(np.uint8))
