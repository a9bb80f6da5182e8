"""Converts weights between Hugging Face's encoders and ours, in both directions, as the counterpart declares."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.models.counterpart import KINDS, Counterpart, Layout
from wsr.models.huggingface.config import counterpart_of
from wsr.models.model import Model
from wsr.types import Params

_OLD_NAMES = {"gamma": "weight", "beta": "bias"}


def from_huggingface(model: Model, tensors: Mapping[str, np.ndarray]) -> tuple[Params, tuple[str, ...]]:
    """Returns the float32 parameters of ``model``, and the names of the tensors that do not belong to the encoder.

    Args:
      model: the architecture.
      tensors: by their names in the file, with or without the base model's prefix ("bert."). The old names gamma and
        beta stand for weight and bias.

    Raises:
      WsrError: tensors are missing, unexpected, doubled, or of a wrong shape or dtype; the message names all of them.
    """
    counterpart = counterpart_of(model)
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    table = list(_table(model, counterpart))
    found, dropped, problems = _canonical(counterpart, tensors, {theirs for theirs, _, _ in table})
    leaves: dict[str, jax.Array] = {}
    for theirs, ours, layout in table:
        # Shapes only: a broadcast scalar takes no memory.
        expected = layout.back(np.broadcast_to(np.float32(0), shapes[ours].shape)).shape
        if theirs not in found:
            problems.append(f"missing {theirs}")
            continue
        name = found.pop(theirs)
        tensor = tensors[name]
        if tensor.shape != expected:
            problems.append(f"shape of {name} is {tensor.shape}, expected {expected}")
        elif not jax.numpy.issubdtype(tensor.dtype, np.floating):
            problems.append(f"dtype of {name} is {tensor.dtype}, expected a float")
        else:
            leaves[ours] = jax.numpy.asarray(np.ascontiguousarray(layout.into(tensor), np.float32))
    problems += [f"unexpected {name}" for name in sorted(found.values())]
    if problems:
        raise WsrError(f"the weights do not fit {model.name}: {'; '.join(problems)}")
    return nest(leaves), tuple(sorted(dropped))


def to_huggingface(model: Model, params: Params) -> dict[str, np.ndarray]:
    """Returns ``params`` as float32 tensors by their Hugging Face names, without prefix."""
    leaves = flatten(params)
    return {
        theirs: np.ascontiguousarray(layout.back(np.asarray(leaves[ours], np.float32)))
        for theirs, ours, layout in _table(model, counterpart_of(model))
    }


def their_tensors(model: Model) -> Iterator[tuple[str, str, Layout]]:
    """Yields the Hugging Face name, the path of our leaf and the layout of each tensor of the encoder."""
    return _table(model, counterpart_of(model))


def is_dropped(counterpart: Counterpart, name: str) -> bool:
    """Returns whether the tensor ``name`` is known not to belong to the encoder."""
    return re.fullmatch(counterpart.dropped, name.removeprefix(counterpart.prefix)) is not None


def _canonical(
    counterpart: Counterpart, names: Iterable[str], wanted: Collection[str]
) -> tuple[dict[str, str], list[str], list[str]]:
    """Returns the name in the file of each tensor by its current name, the dropped names, and problems."""
    found: dict[str, str] = {}
    dropped, problems = [], []
    for name in sorted(names):
        # A tensor that one model ignores may be part of another.
        if is_dropped(counterpart, name) and name.removeprefix(counterpart.prefix) not in wanted:
            dropped.append(name)
            continue
        *module, leaf = name.removeprefix(counterpart.prefix).split(".")
        today = ".".join((*module, _OLD_NAMES.get(leaf, leaf)))
        for pattern, replacement in counterpart.aliases:
            today = re.sub(pattern, replacement, today)
        if today in found:
            problems.append(f"doubled {today} ({found[today]} and {name})")
        found[today] = name
    return found, dropped, problems


def _table(model: Model, counterpart: Counterpart) -> Iterator[tuple[str, str, Layout]]:
    for theirs, ours, kind in counterpart.modules(model.config):
        for leaf in KINDS[kind]:
            their_name = f"{theirs}.{leaf.theirs}" if leaf.theirs else theirs
            yield their_name, f"{ours}/{leaf.ours}", leaf.layout
