"""Reads PEFT's ``adapter_config.json``: ranks, scales and modules, and what is refused."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsr.errors import WsrError
from wsr.models.counterpart import Counterpart
from wsr.models.huggingface.head_parts import class_of

_TASKS = {
    "SEQ_CLS": "SequenceClassification",
    "TOKEN_CLS": "TokenClassification",
    "QUESTION_ANS": "QuestionAnswering",
    "SEQ_2_SEQ_LM": "ConditionalGeneration",
}
_TAKEN = frozenset(
    (
        *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "init_lora_weights", "bias"),
        *("target_modules", "layers_to_transform", "layers_pattern", "exclude_modules"),
        # ours too: a change of a token table is one of the head that is tied to it
        "ensure_weight_tying",
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


@dataclass(frozen=True)
class LoraConfig:
    """Ranks, scales and modules from a config; patterns match the end of a module's name."""

    rank: int
    alpha: float
    stabilised: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    targets: str | list[str] | None
    """A regular expression for whole names, or a list of name endings; None: only the tensors determine the modules."""
    biases: bool
    """Whether biases were trained."""
    saved: tuple[str, ...]
    """Endings of the names of modules that were trained whole."""

    def trains(self, module: str, tensor: str) -> bool:
        """Returns whether a vector of a module was trained as it is."""
        return (self.biases and tensor == "bias") or module.endswith(self.saved)

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


def read_lora_config(path: Path, raw: Mapping[str, Any]) -> LoraConfig:
    """Returns the config in ``raw``, which was read from ``path``.

    Raises:
      WsrError: another kind of adapter, unsupported attributes or invalid values; the message names all of them.
    """
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
        "modules_to_save": (raw.get("modules_to_save") or [], list),
    }
    wrong = [f"{name} = {value!r}" for name, (value, kinds) in read.items() if not isinstance(value, kinds)]
    ranks = [raw.get("r"), *(raw.get("rank_pattern") or {}).values()] if not wrong else []
    wrong += [f"rank {rank!r}" for rank in ranks if not isinstance(rank, int) or rank < 1]
    if wrong:
        raise WsrError(f"{path}: not a valid LoRA config: {', '.join(wrong)}")
    narrowed = raw.get("layers_to_transform") is not None or raw.get("exclude_modules")
    every = raw.get("target_modules") == "all-linear"
    return LoraConfig(
        rank=raw["r"],
        alpha=raw["lora_alpha"],
        stabilised=bool(raw.get("use_rslora")),
        ranks=raw.get("rank_pattern") or {},
        alphas=raw.get("alpha_pattern") or {},
        targets=None if narrowed or every else raw.get("target_modules"),
        biases=raw.get("bias") in ("all", "lora_only"),
        saved=tuple(raw.get("modules_to_save") or ()),
    )


def _is_understood(name: str, value: Any) -> bool:
    if name == "bias":
        return value in ("none", "all", "lora_only")
    if name == "init_lora_weights":
        return value in _BEGINNINGS
    # Switches that are off and empty tables mean "not used".
    return name in _TAKEN | _HARMLESS or value in (None, False, {}, [])


def model_class_of(counterpart: Counterpart, raw: Mapping[str, Any]) -> str | None:
    """Returns the class that the config names, or that its task has for the architecture."""
    named = raw.get("auto_mapping")
    if isinstance(named, Mapping) and isinstance(named.get("base_model_class"), str):
        return str(named["base_model_class"])
    task = raw.get("task_type")
    if task == "CAUSAL_LM":
        return counterpart.language_model_class
    return class_of(counterpart, _TASKS[task]) if task in _TASKS else None
