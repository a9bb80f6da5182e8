"""Reads LoRA adapters saved by PEFT as low-rank task vectors.

An adapter adds ``scale * lora_B lora_A`` to the weight ``[outputs, inputs]`` of a module, and the transpose to the
weight ``[inputs, outputs]`` of a Conv1D. Our kernels are ``[inputs, outputs]``, so in both cases, whatever
``fan_in_fan_out`` says, their task vector is ``lora_A^T (scale * lora_B^T)``. The scale is ``alpha / rank`` (Hu et al.
2021) or, for rank-stabilised LoRA, ``alpha / sqrt(rank)`` (Kalajdzievski 2023). Trained biases, and vectors of modules
that were saved whole, are part of the task vector too.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.geometry.low_rank import Factors, LowRank
from wsr.geometry.trees import flatten
from wsr.models.counterpart import KINDS, SAME, TRANSPOSED, Counterpart
from wsr.models.huggingface.config import counterpart_of, read_json
from wsr.models.huggingface.files import read_file
from wsr.models.huggingface.head_parts import complete
from wsr.models.huggingface.peft_config import LoraConfig, model_class_of, read_lora_config
from wsr.models.huggingface.weights import (
    is_dropped,
    language_model_heads,
    prefix_of,
    their_tensors,
    without_prefix,
)
from wsr.models.model import Model
from wsr.types import Params

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"

WRAPPED = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.(lora_(?P<of_layer>[AB])\.weight|lora_embedding_(?P<of_table>[AB]))")


class Adapter(NamedTuple):
    """An adapter as a task vector of the encoder, with its head and what its config says of its model."""

    task_vector: LowRank
    """The difference that the adapter makes to the encoder's parameters."""
    head: dict[str, np.ndarray]
    """Tensors outside the encoder, by their names in the model with a head: the adapter's, and the base's where the
    adapter has none."""
    lacking: tuple[str, ...]
    """Modules of the head that neither the adapter nor the base holds."""
    base_name: str | None
    """Name of the checkpoint it was trained from, according to its config; the tensors cannot confirm it."""
    model_class: str | None
    """Class of the adapted model in transformers, as far as its config names it."""
    prefix: str
    """Prefix of the encoder's tensor names in that class."""


def read_adapter(
    folder: Path, model: Model, base: Params, base_head: Mapping[str, np.ndarray] = MappingProxyType({})
) -> Adapter:
    """Returns the adapter in ``folder`` as a task vector; ``wsr.geometry.low_rank.add`` adds it to ``base``.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      model: the architecture of the adapted model.
      base: its parameters, with which copies in the adapter are compared.
      base_head: the base's tensors outside the encoder, by their names without prefix.

    Raises:
      WsrError: another kind of adapter, unsupported attributes, a pickle, or tensors that are missing, unexpected or of
        a wrong shape or dtype; the message names all of them.
    """
    path = folder / CONFIG
    raw = read_json(path)
    counterpart = counterpart_of(model)
    model_class = model_class_of(counterpart, raw)
    try:
        lora = read_lora_config(path, raw)
        tensors = _read_tensors(folder)
        pairs, others = _paired(tensors)
        prefix = prefix_of(counterpart, (f"{module}.weight" for module in pairs))
        problems: list[str] = []
        if raw.get("ensure_weight_tying"):
            _drop_tied_heads(model, prefix, pairs, others, tensors)
        head, vectors = _whole(lora, counterpart, model, base, others, tensors, problems)
        matrices, on_head = _mapped(lora, model, base, pairs, tensors, prefix, problems)
        lacking = _merge_into_head(lora, on_head, pairs, tensors, head, base_head, counterpart, problems)
        if on_head and _is_tied(model, on_head):
            problems.append(
                "it adapts lm_head, which the base ties to the token embedding; merge the adapter with PEFT and import "
                "the model"
            )
    except re.error as error:
        raise WsrError(f"{path}: a pattern for modules is not a valid regular expression: {error}") from error
    if problems:
        raise WsrError(f"{folder / TENSORS} does not fit {model.name}: {'; '.join(problems)}")
    lacking += complete(head, base_head, counterpart, model_class)
    return Adapter(
        {**matrices, **vectors}, head, tuple(lacking), raw.get("base_model_name_or_path"), model_class, prefix
    )


def read_updates(folder: Path) -> tuple[dict[str, Factors], dict[str, str]]:
    """Returns what an adapter changes in a model as transformers stores it.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.

    Returns:
      What is added to the weight of each module, by the module's name; and the names in the adapter's file of tensors
      that replace those of the model, by their names in the model.

    Raises:
      WsrError: another kind of adapter, unsupported attributes, a pickle, or factors that are missing or of a wrong
        shape or dtype.
    """
    raw = read_json(folder / CONFIG)
    tensors = _read_tensors(folder)
    problems: list[str] = []
    found = {}
    try:
        lora = read_lora_config(folder / CONFIG, raw)
        pairs, others = _paired(tensors)
        for module, names in pairs.items():
            inputs = tensors[names["A"]].shape[-1] if "A" in names else 0
            outputs = tensors[names["B"]].shape[0] if "B" in names else 0
            factors = _factors(lora, module, names, tensors, (inputs, outputs), problems)
            if factors is not None:
                as_it_is = raw.get("fan_in_fan_out") or "lora_embedding" in names["A"]
                found[module] = factors if as_it_is else Factors(factors.b.T, factors.a.T)
    except re.error as error:
        raise WsrError(f"{folder / CONFIG}: a pattern for modules is no regular expression: {error}") from error
    if problems:
        raise WsrError(f"{folder / TENSORS}: {'; '.join(problems)}")
    return found, others


def _whole(
    lora: LoraConfig,
    counterpart: Counterpart,
    model: Model,
    base: Params,
    others: Mapping[str, str],
    tensors: Mapping[str, np.ndarray],
    problems: list[str],
) -> tuple[dict[str, np.ndarray], dict[str, Factors]]:
    """Returns the tensors of a head, and the changes of trained vectors of the encoder.

    Compares copies of the base's tensors, which PEFT saves with an adapted embedding.
    """
    leaves, table = flatten(base), {theirs: (ours, layout) for theirs, ours, layout in their_tensors(model)}
    head, vectors = {}, {}
    for own, name in others.items():
        bare = without_prefix(counterpart, own)
        if bare in table:
            ours, layout = table[bare]
            # In the adapter's precision.
            expected = layout.back(np.asarray(leaves[ours])).astype(tensors[name].dtype)
            if np.array_equal(tensors[name], expected):
                continue
            module, _, tensor = own.rpartition(".")
            if expected.ndim == 1 and expected.shape == tensors[name].shape and lora.trains(module, tensor):
                change = np.asarray(tensors[name], np.float32) - np.asarray(leaves[ours], np.float32)
                vectors[ours] = Factors(np.ones((1, 1), np.float32), change[None])
            else:
                problems.append(f"{name} differs from the base's {bare}: it was trained, or the base is another")
        elif is_dropped(counterpart, own):
            head[own] = tensors[name]
        else:
            problems.append(f"unexpected {name}")
    return head, vectors


def _mapped(
    lora: LoraConfig,
    model: Model,
    base: Params,
    pairs: Mapping[str, Mapping[str, str]],
    tensors: Mapping[str, np.ndarray],
    prefix: str,
    problems: list[str],
) -> tuple[LowRank, list[str]]:
    """Returns the task vector of the encoder, and the adapted modules of a head."""
    counterpart = counterpart_of(model)
    shapes = {path: leaf.shape for path, leaf in flatten(base).items()}
    # By the names of the adapted class, in which a language-modelling head has no prefix.
    matrices = {
        module if is_dropped(counterpart, f"{module}.weight") else f"{prefix}{module}": path
        for module, path in _kernels(model, counterpart)
        if len(shapes[path]) == 2
    }
    # A table that the encoder reads in place of another, as T5's does.
    for copy, original in counterpart.copies.items():
        read, stored = (f"{prefix}{own.removesuffix('.weight')}" for own in (copy, original))
        matrices[read] = matrices[stored]
    task_vector: dict[str, Factors] = {}
    on_head = []
    called = {module: module if module in matrices else _in_files(counterpart, module) for module in pairs}
    for module, names in pairs.items():
        if called[module] in matrices:
            path = matrices[called[module]]
            factors = _factors(lora, module, names, tensors, shapes[path], problems)
            if factors is not None:
                task_vector[path] = factors
        elif is_dropped(counterpart, f"{module}.weight"):
            on_head.append(module)
        else:
            problems += [f"unexpected {name}" for name in names.values()]
    absent = [module for module in matrices if module not in called.values()]
    problems += [f"missing lora_A and lora_B of {module}" for module in absent if lora.wants(module)]
    if len(pairs) == len(on_head):
        problems.append("it has no lora_A and lora_B for the encoder")
    return task_vector, on_head


def _in_files(counterpart: Counterpart, module: str) -> str:
    """Returns the name in files of a module that has another name in memory, as PEFT writes it."""
    name = f"{module}.weight"
    for pattern, replacement in counterpart.aliases:
        name = re.sub(pattern, replacement, name)
    return name.removesuffix(".weight")


def _factors(
    lora: LoraConfig,
    module: str,
    names: Mapping[str, str],
    tensors: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    problems: list[str],
) -> Factors | None:
    """Returns factors of a task vector ``[inputs, outputs]``; if they do not fit, adds to ``problems``: None."""
    rank, (inputs, outputs) = lora.rank_of(module), shape
    forms = {"A": (rank, inputs), "B": (outputs, rank)}
    wrong = [_problem(module, side, names, tensors, form) for side, form in forms.items()]
    problems += [problem for problem in wrong if problem]
    if any(wrong):
        return None
    a, b = (np.asarray(tensors[names[side]], np.float32).T for side in forms)
    return Factors(np.ascontiguousarray(a), np.ascontiguousarray(np.float32(lora.scale_of(module)) * b))


def _merge_into_head(
    lora: LoraConfig,
    modules: list[str],
    pairs: Mapping[str, Mapping[str, str]],
    tensors: Mapping[str, np.ndarray],
    head: dict[str, np.ndarray],
    base_head: Mapping[str, np.ndarray],
    counterpart: Counterpart,
    problems: list[str],
) -> list[str]:
    """Adds adapted matrices to ``head``; returns the modules whose matrix neither the adapter nor the base holds."""
    lacking = []
    for module in modules:
        weight, bias = f"{module}.weight", f"{module}.bias"
        origin = head.get(weight, base_head.get(without_prefix(counterpart, weight)))
        if origin is None or origin.ndim != 2:
            lacking.append(module)
            continue
        factors = _factors(lora, module, pairs[module], tensors, origin.shape[::-1], problems)
        if factors is not None:
            head[weight] = np.asarray(origin, np.float32) + (factors.a @ factors.b).T
            own_bias = base_head.get(without_prefix(counterpart, bias))
            if own_bias is not None:
                head.setdefault(bias, own_bias)
    return lacking


def _drop_tied_heads(
    model: Model,
    prefix: str,
    pairs: dict[str, dict[str, str]],
    others: dict[str, str],
    tensors: Mapping[str, np.ndarray],
) -> None:
    """Removes the factors of heads that repeat those of the token table, with which the head moves anyway."""
    for head, table in language_model_heads(counterpart_of(model)).items():
        own, origin = (pairs.get(name.removesuffix(".weight"), {}) for name in (head, f"{prefix}{table}"))
        same = own.keys() == origin.keys() == {"A", "B"} and all(
            np.array_equal(tensors[own[side]], tensors[origin[other]].T) for side, other in ("AB", "BA")
        )
        if same and head not in {theirs for theirs, _, _ in their_tensors(model)}:
            del pairs[head.removesuffix(".weight")]
            others.pop(head, None)


def _is_tied(model: Model, modules: list[str]) -> bool:
    heads = {head.removesuffix(".weight") for head in language_model_heads(counterpart_of(model))}
    return model.token_losses is not None and bool(heads & set(modules))


def _kernels(model: Model, counterpart: Counterpart) -> Iterator[tuple[str, str]]:
    """Yields the name in transformers and the path here of each matrix ``[inputs, outputs]`` and each table."""
    for theirs, ours, kind in counterpart.modules(model.config):
        for leaf in KINDS[kind]:
            if leaf.theirs == "weight" and leaf.ours in ("kernel", "embedding") and leaf.layout in (SAME, TRANSPOSED):
                yield theirs, f"{ours}/{leaf.ours}"


def _read_tensors(folder: Path) -> dict[str, np.ndarray]:
    if (folder / TENSORS).exists():
        return read_file(folder / TENSORS)
    if (folder / PICKLE).exists():
        raise WsrError(
            f"{folder}: found {PICKLE} but no {TENSORS}; opening a pickle can run code, so none is ever read: save "
            "the adapter again with PEFT's save_pretrained"
        )
    raise WsrError(f"{folder}: expected {TENSORS}, found none")


def _paired(names: Iterable[str]) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Returns the names of A and B by adapted module, and those of whole tensors by their names in the model."""
    pairs: dict[str, dict[str, str]] = {}
    others: dict[str, str] = {}
    for name in sorted(names):
        own = name.removeprefix(WRAPPED)
        factor = _FACTOR.fullmatch(own)
        if factor:
            pairs.setdefault(factor["module"], {})[factor["of_layer"] or factor["of_table"]] = name
        elif ".original_module." not in own:  # a module of the base, which a trained copy replaces
            # The name of a module's own weights, within PEFT's wrapper of it.
            others[own.replace(".base_layer.", ".").replace(".modules_to_save.", ".")] = name
    return pairs, others


def _problem(
    module: str, side: str, names: Mapping[str, str], tensors: Mapping[str, np.ndarray], expected: tuple[int, int]
) -> str | None:
    if side not in names:
        return f"missing lora_{side} of {module}"
    name, tensor = names[side], tensors[names[side]]
    if tensor.shape != expected:
        return f"shape of {name} is {tensor.shape}, expected {expected}"
    if not jax.numpy.issubdtype(tensor.dtype, np.floating):
        return f"dtype of {name} is {tensor.dtype}, expected a float"
    return None
