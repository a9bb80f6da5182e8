"""Reads LoRA adapters saved by PEFT as low-rank task vectors.

An adapter adds ``scale * lora_B lora_A`` to the weight ``[outputs, inputs]`` of a module, and the transpose to the
weight ``[inputs, outputs]`` of a Conv1D. Our kernels are ``[inputs, outputs]``, so in both cases, whatever
``fan_in_fan_out`` says, their task vector is ``lora_A^T (scale * lora_B^T)``. The scale is ``alpha / rank`` (Hu et al.
2021) or, for rank-stabilised LoRA, ``alpha / sqrt(rank)`` (Kalajdzievski 2023).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.geometry.low_rank import Factors, LowRank
from wsr.geometry.trees import flatten
from wsr.models.counterpart import KINDS, SAME, TRANSPOSED, Counterpart
from wsr.models.huggingface.config import counterpart_of, read_json
from wsr.models.huggingface.files import read_file
from wsr.models.huggingface.weights import is_dropped
from wsr.models.model import Model
from wsr.types import Params

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"

_WRAPPED = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.(lora_(?P<of_layer>[AB])\.weight|lora_embedding_(?P<of_table>[AB]))")
_TAKEN = frozenset(
    (
        *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights", "bias"),
        *("target_modules", "layers_to_transform", "layers_pattern", "exclude_modules"),
    )
)
_HARMLESS = frozenset(
    (
        # about the file and the model it was trained with
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"),
        # about training, or about features that are switched off
        *("eva_config", "lora_dropout", "megatron_core", "qalora_group_size", "runtime_config"),
        # also determined by the tensors
        *("fan_in_fan_out", "modules_to_save"),
    )
)
# Initialisations that leave the base unchanged; others (PiSSA, OLoRA, ...) change the weights that they adapt.
_BEGINNINGS = (True, False, None, "gaussian", "eva")


class Adapter(NamedTuple):
    """An adapter as a task vector of the encoder, its other tensors, and the name of its base."""

    task_vector: LowRank
    """The difference that the adapter makes to the encoder's parameters."""
    head: dict[str, np.ndarray]
    """Tensors outside the encoder, as stored, by their names in the model with a head."""
    base_name: str | None
    """Name of the checkpoint it was trained from, according to its config; the tensors cannot confirm it."""


def read_adapter(folder: Path, model: Model, base: Params) -> Adapter:
    """Returns the adapter in ``folder`` as a task vector; ``wsr.geometry.low_rank.add`` adds it to ``base``.

    Args:
      folder: holds adapter_config.json and adapter_model.safetensors.
      model: the architecture of the adapted model.
      base: its parameters; only their shapes are used.

    Raises:
      WsrError: another kind of adapter, unsupported attributes, a pickle, or tensors that are missing, unexpected or of
        a wrong shape or dtype; the message names all of them.
    """
    path = folder / CONFIG
    raw = read_json(path)
    try:
        lora = _understood(path, raw)
        task_vector, head = _mapped(folder, lora, model, base)
    except re.error as error:
        raise WsrError(f"{path}: a pattern for modules is not a valid regular expression: {error}") from error
    return Adapter(task_vector, head, raw.get("base_model_name_or_path"))


@dataclass(frozen=True)
class _Lora:
    """Ranks, scales and modules from a config; patterns match the end of a module's name."""

    rank: int
    alpha: float
    stabilised: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    targets: str | list[str] | None
    """A regular expression for whole names, or a list of name endings; None: only the tensors determine the modules."""

    def rank_of(self, module: str) -> int:
        return next((rank for pattern, rank in self.ranks.items() if _ends_with(module, pattern)), self.rank)

    def scale_of(self, module: str) -> float:
        alpha = next((alpha for pattern, alpha in self.alphas.items() if _ends_with(module, pattern)), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.stabilised else rank)

    def wants(self, module: str) -> bool:
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, module) is not None
        return any(module == end or module.endswith(f".{end}") for end in self.targets or ())


def _ends_with(module: str, pattern: str) -> bool:
    return re.fullmatch(rf"(.*\.)?({pattern})", module) is not None


def _understood(path: Path, raw: Mapping[str, Any]) -> _Lora:
    kind = raw.get("peft_type")
    if kind != "LORA":
        raise WsrError(f"{path}: peft_type = {kind!r} is not supported; known: 'LORA'")
    refused = [f"{name} = {value!r}" for name, value in sorted(raw.items()) if not _is_understood(name, value)]
    if refused:
        raise WsrError(f"{path}: unsupported: {', '.join(refused)}; merge the adapter with PEFT and import the model")
    read: dict[str, tuple[Any, Any]] = {
        "r": (raw.get("r"), int),
        "lora_alpha": (raw.get("lora_alpha"), (int, float)),
        "rank_pattern": (raw.get("rank_pattern") or {}, dict),
        "alpha_pattern": (raw.get("alpha_pattern") or {}, dict),
        "target_modules": (raw.get("target_modules") or [], (str, list)),
    }
    wrong = [f"{name} = {value!r}" for name, (value, kinds) in read.items() if not isinstance(value, kinds)]
    ranks = [raw.get("r"), *(raw.get("rank_pattern") or {}).values()] if not wrong else []
    wrong += [f"rank {rank!r}" for rank in ranks if not isinstance(rank, int) or rank < 1]
    if wrong:
        raise WsrError(f"{path}: not a valid LoRA config: {', '.join(wrong)}")
    narrowed = raw.get("layers_to_transform") is not None or raw.get("exclude_modules")
    every = raw.get("target_modules") == "all-linear"
    return _Lora(
        rank=raw["r"],
        alpha=raw["lora_alpha"],
        stabilised=bool(raw.get("use_rslora")),
        ranks=raw.get("rank_pattern") or {},
        alphas=raw.get("alpha_pattern") or {},
        targets=None if narrowed or every else raw.get("target_modules"),
    )


def _is_understood(name: str, value: Any) -> bool:
    if name == "bias":
        return value == "none"
    if name == "init_lora_weights":
        return value in _BEGINNINGS
    # Switches that are off and empty tables mean "not used".
    return name in _TAKEN | _HARMLESS or value in (None, False, {}, [])


def _mapped(folder: Path, lora: _Lora, model: Model, base: Params) -> tuple[LowRank, dict[str, np.ndarray]]:
    counterpart = counterpart_of(model)
    shapes = {path: leaf.shape for path, leaf in flatten(base).items()}
    matrices = {module: path for module, path in _kernels(model, counterpart) if len(shapes[path]) == 2}
    tensors = _read_tensors(folder)
    pairs, head, problems = _paired(counterpart, tensors)
    prefix = counterpart.prefix if any(module.startswith(counterpart.prefix) for module in pairs) else ""
    task_vector: dict[str, Factors] = {}
    for module, names in pairs.items():
        path = matrices.get(module.removeprefix(counterpart.prefix))
        if path is None:
            problems += [f"unexpected {name}" for name in names.values()]
            continue
        rank, (inputs, outputs) = lora.rank_of(module), shapes[path]
        forms = {"A": (rank, inputs), "B": (outputs, rank)}
        wrong = [_problem(module, side, names, tensors, form) for side, form in forms.items()]
        problems += [problem for problem in wrong if problem]
        if not any(wrong):
            a, b = (np.asarray(tensors[names[side]], np.float32).T for side in forms)
            scaled = np.float32(lora.scale_of(module)) * b
            task_vector[path] = Factors(np.ascontiguousarray(a), np.ascontiguousarray(scaled))
    absent = [f"{prefix}{module}" for module in matrices if f"{prefix}{module}" not in pairs]
    problems += [f"missing lora_A and lora_B of {module}" for module in absent if lora.wants(module)]
    if not pairs:
        problems.append("it has no lora_A and lora_B for the encoder")
    if problems:
        raise WsrError(f"{folder / TENSORS} does not fit {model.name}: {'; '.join(problems)}")
    return task_vector, head


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


def _paired(
    counterpart: Counterpart, names: Mapping[str, np.ndarray]
) -> tuple[dict[str, dict[str, str]], dict[str, np.ndarray], list[str]]:
    """Returns the names of A and B for each module of the encoder, the tensors of a head, and problems."""
    pairs: dict[str, dict[str, str]] = {}
    head: dict[str, np.ndarray] = {}
    problems = []
    for name in sorted(names):
        own = name.removeprefix(_WRAPPED)
        factor = _FACTOR.fullmatch(own)
        if is_dropped(counterpart, f"{factor['module']}.weight" if factor else own):
            head[own] = names[name]
        elif factor:
            pairs.setdefault(factor["module"], {})[factor["of_layer"] or factor["of_table"]] = name
        else:
            problems.append(f"unexpected {name}")
    return pairs, head, problems


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
