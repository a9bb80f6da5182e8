"""Converts weights between Hugging Face's encoders and ours, in both directions, as the counterpart declares."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.geometry.trees import flatten, nest
from wsr.models.counterpart import KINDS, Counterpart, Layout
from wsr.models.huggingface.config import counterpart_of
from wsr.models.model import Model
from wsr.runtime.tensor_files import name_today
from wsr.types import Params


def from_huggingface(model: Model, tensors: Mapping[str, np.ndarray]) -> tuple[Params, tuple[str, ...]]:
    """Returns the float32 parameters of ``model``, and the names of the tensors that do not belong to the encoder.

    Args:
      model: the architecture.
      tensors: by their names in the file, with or without the base model's prefix ("bert."). The old names gamma and
        beta stand for weight and bias, and a tied tensor of a head stands for a token embedding that the file lacks.

    Raises:
      WsrError: tensors are missing, unexpected, doubled, or of a wrong shape or dtype; the message names all of them.
    """
    counterpart = counterpart_of(model)
    shapes = flatten(jax.eval_shape(model.init, jax.random.key(0)))
    table = list(_table(model, counterpart))
    wanted = {theirs for theirs, _, _ in table}
    found, dropped, problems = _canonical(counterpart, tensors, wanted)
    if model.config.get("tie_word_embeddings", True):
        _find_tied(counterpart, wanted, found, dropped)
    problems += _unequal(counterpart, tensors)
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


def head_settings(
    counterpart: Counterpart, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> dict[str, bool]:
    """Returns the attributes of our config that depend on which tensors a file holds.

    Like transformers, it takes a language-modelling head that differs from the token embedding for untied, whatever the
    config says.

    Args:
      counterpart: of the architecture.
      config: as ``read_config`` returns it.
      tensors: by their names in the file.
    """
    found = {attribute: name in tensors for attribute, name in counterpart.present.items()}
    found |= {attribute: _differs(counterpart, name, tensors) for attribute, name in counterpart.untied.items()}
    if config.get("tie_word_embeddings") and has_own_head(counterpart, tensors):
        found["tie_word_embeddings"] = False
    return found


def language_model_heads(counterpart: Counterpart) -> dict[str, str]:
    """Returns the tensor of a language-modelling head that may be untied, with the token embedding; or nothing."""
    heads = {*counterpart.present.values(), *counterpart.untied.values()}
    return {head: table for table, copies in counterpart.tied.items() for head in copies if head in heads}


def has_own_head(counterpart: Counterpart, tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether a file holds a language-modelling head that differs from its token embedding."""
    return any(_differs(counterpart, head, tensors) for head in language_model_heads(counterpart))


def _differs(counterpart: Counterpart, head: str, tensors: Mapping[str, np.ndarray]) -> bool:
    table = language_model_heads(counterpart)[head]
    own = next((name for name in tensors if without_prefix(counterpart, name) == table), None)
    return own is not None and head in tensors and not np.array_equal(tensors[own], tensors[head])


def head_tensors(model: Model, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the learned tensors outside the encoder, by their names without prefix.

    Args:
      model: the architecture of the encoder.
      tensors: the tensors of a model's file, by name.
    """
    counterpart = counterpart_of(model)
    kept = [name for name in tensors if is_dropped(counterpart, name) and not is_constant(counterpart, name)]
    return {without_prefix(counterpart, name): tensors[name] for name in kept}


def is_dropped(counterpart: Counterpart, name: str) -> bool:
    """Returns whether the tensor ``name`` is known not to belong to the encoder."""
    pattern = rf"{counterpart.dropped}|{counterpart.constants}"
    return re.fullmatch(pattern, without_prefix(counterpart, name)) is not None


def is_constant(counterpart: Counterpart, name: str) -> bool:
    """Returns whether the tensor ``name`` is known to hold no learned values."""
    return re.fullmatch(counterpart.constants, without_prefix(counterpart, name)) is not None


def without_prefix(counterpart: Counterpart, name: str) -> str:
    """Returns a tensor's name in the encoder's own class, without the prefix of a class with a head."""
    prefix = next((own for own in _prefixes(counterpart) if name.startswith(own)), "")
    return name.removeprefix(prefix)


def current_name(counterpart: Counterpart, name: str) -> str:
    """Returns a tensor's name in the encoder's own class of today's transformers, whatever class wrote the file."""
    today = name_today(without_prefix(counterpart, name))
    for pattern, replacement in counterpart.aliases:
        today = re.sub(pattern, replacement, today)
    return today


def prefix_of(counterpart: Counterpart, names: Iterable[str]) -> str:
    """Returns the prefix of the encoder's tensors among ``names``, empty if they have none."""
    own = [name for name in names if not is_dropped(counterpart, name)]
    return next((prefix for prefix in _prefixes(counterpart) if any(name.startswith(prefix) for name in own)), "")


def _prefixes(counterpart: Counterpart) -> tuple[str, ...]:
    return (counterpart.prefix, *counterpart.other_prefixes)


def _canonical(
    counterpart: Counterpart, names: Iterable[str], wanted: Collection[str]
) -> tuple[dict[str, str], list[str], list[str]]:
    """Returns the name in the file of each tensor by its current name, the dropped names, and problems."""
    found: dict[str, str] = {}
    dropped, problems = [], []
    for name in sorted(names):
        # A tensor that one model ignores may be part of another.
        if is_dropped(counterpart, name) and without_prefix(counterpart, name) not in wanted:
            dropped.append(name)
            continue
        today = current_name(counterpart, name)
        if today in found:
            problems.append(f"doubled {today} ({found[today]} and {name})")
        found[today] = name
    return found, dropped, problems


def _find_tied(counterpart: Counterpart, wanted: Collection[str], found: dict[str, str], dropped: list[str]) -> None:
    """Adds to ``found``, for each tensor that the file lacks, the first that is tied to it, as transformers does."""
    for theirs, copies in counterpart.tied.items():
        there = [name for copy in copies for name in dropped if without_prefix(counterpart, name) == copy]
        if theirs in wanted and theirs not in found and there:
            found[theirs] = there[0]
            dropped.remove(there[0])


def _unequal(counterpart: Counterpart, tensors: Mapping[str, np.ndarray]) -> list[str]:
    by_name = {without_prefix(counterpart, name): tensor for name, tensor in tensors.items()}
    return [
        f"{copy} differs from {original}"
        for copy, original in counterpart.copies.items()
        if copy in by_name and original in by_name and not np.array_equal(by_name[copy], by_name[original])
    ]


def _table(model: Model, counterpart: Counterpart) -> Iterator[tuple[str, str, Layout]]:
    for theirs, ours, kind in counterpart.modules(model.config):
        for leaf in KINDS[kind]:
            their_name = f"{theirs}.{leaf.theirs}" if leaf.theirs else theirs
            yield their_name, f"{ours}/{leaf.ours}", leaf.layout
