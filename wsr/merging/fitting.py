"""Whether models that lie in files fit together: names and shapes of tensors, configs, vocabularies, classes, bases."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from wsr.errors import WsrError
from wsr.exchange.agreement import (
    config_differences,
    last_layer,
    other_base,
    rows_by_label,
    vocabulary_difference,
)
from wsr.exchange.door import Brought
from wsr.merging.run import on_all_cores
from wsr.runtime.tensor_files import FLOATS, Tensor, name_today

MOST_MATRICES = 48
"""Matrices by which two models are compared."""
_COUNTED = re.compile(r"(^|\.)position_ids$")
"""Buffers that hold 0, 1, 2, ... and that some versions of transformers save and others do not."""


def alike(models: Mapping[str, Mapping[str, Tensor]]) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Returns the tensors of each model under the names of the first model's, and what was adapted.

    Args:
      models: the tensors of each model.

    Raises:
      WsrError: if the models do not have tensors of the same names and shapes, or a buffer differs.
    """
    notes = []
    (first_name, first), *_ = models.items()
    counted = {name for own in models.values() for name in own if _COUNTED.search(name)}
    partly = {name for name in counted if not all(name in own for own in models.values())}
    if partly:
        notes.append(f"left out, because not every model has it and it is not learned: {', '.join(sorted(partly))}")
    known = {name_today(name): name for name in first}
    found = {}
    for model, tensors in models.items():
        own = {name if name in first else known.get(name_today(name), name): at for name, at in tensors.items()}
        renamed = len(own.keys() - tensors.keys())
        if renamed:
            notes.append(f"{renamed} tensors of {model} have the names of another version; they were matched")
        if len(own) != len(tensors):
            raise WsrError(f"{model}: tensors under an old and a new name, such as gamma and weight; keep one of each")
        found[model] = {name: at for name, at in own.items() if name not in partly}
    _refuse_other_shapes(found)
    return {model: {name: own[name] for name in found[first_name]} for model, own in found.items()}, notes


def unlike(first: Brought, other: Brought, *, one_vocabulary: bool = False) -> list[str]:
    """Returns why two models do not compute alike: attributes of the config, and tokens.

    Args:
      first: a model.
      other: another.
      one_vocabulary: whether their token tables have been brought under one vocabulary.
    """
    vocabulary = None if one_vocabulary else vocabulary_difference(first, other)
    return [*config_differences(first, other), *([vocabulary] if vocabulary else [])]


def reordered(
    first: Brought, others: Sequence[Brought]
) -> tuple[dict[str, dict[str, list[int]]], list[str], list[str]]:
    """Returns in which order the rows of classifiers are read, what was adapted, and what does not agree.

    Args:
      first: the model whose order of classes the result has.
      others: models with tensors of the same names and shapes.

    Returns:
      The rows by model and tensor, where they stand in another order; notes; and problems: classes that cannot be
      matched.
    """
    rows: dict[str, dict[str, list[int]]] = {}
    notes, problems = [], []
    for other in others:
        order = rows_by_label(first, other)
        if isinstance(order, str):
            problems.append(order)
        elif order:
            rows[str(other.path)] = dict.fromkeys(last_layer(first), order)
            notes.append(f"the classes of {other} stand in another order than in {first}: matched by their names")
    return rows, notes, problems


def of_other_bases(first: Brought, others: Sequence[Brought]) -> list[str]:
    """Returns which models were not fine-tuned from the base of the first, by matrices that both have.

    Of many matrices, some that are spread evenly over the model are enough.

    Args:
      first: a model.
      others: others.
    """

    def told(other: Brought) -> str | None:
        shared = [
            name
            for name, tensor in first.tensors.items()
            if len(tensor.shape) >= 2 and name in other.tensors and other.tensors[name].shape == tensor.shape
        ]
        some = shared[:: -(-len(shared) // MOST_MATRICES) or 1]
        return other_base(replace(first, tensors={name: first.tensors[name] for name in some}), other)

    return [problem for problem in on_all_cores(told, others) if problem]


def refuse_unlike(problems: Sequence[str], *, force: bool) -> list[str]:
    """Raises ``WsrError`` if models do not compute alike; with ``force``, returns a note that says so.

    Args:
      problems: what does not agree.
      force: whether such models are merged all the same.
    """
    if not problems:
        return []
    told = "; ".join(problems[:8]) + (f" (and {len(problems) - 8} more)" if len(problems) > 8 else "")
    if not force:
        raise WsrError(f"the models do not compute alike: {told}; --force merges them all the same")
    return [f"let through by --force: {told}"]


def _refuse_other_shapes(models: Mapping[str, Mapping[str, Tensor]]) -> None:
    first_name, first = next(iter(models.items()))
    problems = []
    for name, tensors in models.items():
        problems += [f"{path} is in {first_name} but not in {name}" for path in first if path not in tensors]
        problems += [f"{path} is in {name} but not in {first_name}" for path in tensors if path not in first]
        for path in first.keys() & tensors.keys():
            if tensors[path].shape != first[path].shape:
                problems.append(f"{path} is {first[path].shape} in {first_name} and {tensors[path].shape} in {name}")
            elif not {first[path].dtype, tensors[path].dtype} <= FLOATS.keys() and not np.array_equal(
                first[path].whole(), tensors[path].whole()
            ):
                problems.append(f"{path} is not a float tensor and differs between {first_name} and {name}")
    if problems:
        more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
        raise WsrError(f"the models do not fit together: {'; '.join(problems[:8])}{more}; import them into a store")
