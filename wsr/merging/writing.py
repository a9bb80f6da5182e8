"""Writes the merged tensors of a folder in pieces, from several processes or threads."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from wsr.merging.ingredients import Ingredients, Leaf
from wsr.merging.method import Method
from wsr.merging.run import merge_leaves
from wsr.merging.unfinished import Unfinished
from wsr.runtime.one_behind import one_behind
from wsr.runtime.past_cache import WriteBehind
from wsr.runtime.progress import progress
from wsr.runtime.read_ahead import ReadAhead
from wsr.runtime.tensor_files import FLOATS, SINGLE, Tensor, TensorWriter

Form = tuple[str, tuple[int, ...]]
"""Type and shape of a tensor."""


@dataclass(frozen=True)
class Part:
    """A slice whose models are open and fit together."""

    ingredients: Ingredients
    methods: Mapping[str, Method]
    """The method of each float tensor."""
    tensors: tuple[Mapping[str, Tensor], ...]
    """The tensors of each model, by their names in the result."""
    ahead: ReadAhead
    """Where its leaves look for tensors that are in memory."""
    rounded: int
    """Number of float64 tensors that its methods merge in float32."""


def write_parts(parts: Sequence[Part], scratch: Unfinished, dtype: str | None) -> dict[str, Form]:
    """Writes the tensors of all parts and returns their forms.

    Args:
      parts: the slices of the result.
      scratch: the folder to write, and the tensors that it holds already.
      dtype: type of the result; None: that of each tensor in the first model.
    """
    first = {name: tensor for part in parts for name, tensor in part.tensors[0].items()}
    forms = {
        name: (dtype if dtype and tensor.dtype in FLOATS else tensor.dtype, tensor.shape)
        for name, tensor in first.items()
    }
    floats = [name for name, tensor in first.items() if tensor.dtype in FLOATS]
    with ExitStack() as stack:
        writers = _writers(stack, scratch.path, forms)
        left = sum(first[name].size for name in floats if name not in scratch.done)
        counter = stack.enter_context(progress("merging", left // 10**6, "million entries"))
        lock, entries = Lock(), 0
        later = stack.enter_context(one_behind(threaded=True))

        def sync() -> None:
            for writer in dict.fromkeys(writers.values()):
                writer.sync()

        def record(tensors: list[str]) -> None:
            sync()
            scratch.record(tensors)

        def written(leaf: Leaf, _: object) -> None:
            nonlocal entries
            due = scratch.finished(leaf.path, leaf.size)
            with lock:
                if due:
                    later(partial(record, due))  # the other threads merge on while the disk writes
                before, entries = entries // 10**6, entries + leaf.size
                if entries // 10**6 > before:
                    counter.advance(entries // 10**6 - before)

        for name in first.keys() - set(floats):
            writers[name].put(name.rpartition("/")[2], first[name].raw())
        for part in parts:
            merge_leaves(
                part.ingredients,
                part.methods,
                written,
                done=scratch.done,
                out_of=partial(_place, writers, past_cache=part.ahead.past_cache),
                to_files=True,
                coming=partial(_begin_to_read, part),
            )
        sync()
    return forms


@contextmanager
def _place(writers: Mapping[str, TensorWriter], leaf: Leaf, *, past_cache: bool) -> "Iterator[_Place]":
    writer, name = writers[leaf.path], leaf.path.rpartition("/")[2]
    with WriteBehind(writer.file) if past_cache else nullcontext() as behind:
        yield _Place(writer, name, leaf.size, behind)


@dataclass(frozen=True)
class _Place:
    """A tensor of the file that is written: ``place[start:stop] = entries`` writes a piece of it."""

    writer: TensorWriter
    name: str
    size: int
    behind: WriteBehind | None

    def __setitem__(self, where: slice, entries: np.ndarray) -> None:
        start, stop, _ = where.indices(self.size)
        piece = np.broadcast_to(entries, (stop - start,))
        if self.behind is None:
            self.writer.put(self.name, piece, start=start)
        else:
            self.behind.put(*self.writer.placed(self.name, piece, start))


def _begin_to_read(part: Part, leaf: Leaf) -> None:
    """The disk works on the next leaf while this one is merged."""
    part.ahead.begin([own[leaf.path] for own in part.tensors])


def _writers(stack: ExitStack, folder: Path, forms: Mapping[str, Form]) -> dict[str, TensorWriter]:
    """Returns the writer of each tensor: one file for the model, and one for each of its modules."""
    files: dict[str, dict[str, Form]] = {"": {}}
    for name, form in forms.items():
        module, _, own = name.rpartition("/")
        files.setdefault(module, {})[own] = form
    for module in files:
        (folder / module).mkdir(exist_ok=True)
    opened = {
        module: stack.enter_context(TensorWriter(folder / module / SINGLE, own, resumes=True))
        for module, own in files.items()
    }
    return {name: opened[name.rpartition("/")[0]] for name in forms}
