"""Writes low-rank task vectors as LoRA adapters in PEFT's files.

The scale of every module is 1 (its ``lora_alpha`` is its rank), so ``lora_A`` is ``a^T`` and ``lora_B`` is ``b^T``.
Vectors are written whole: biases as PEFT's ``bias``, and norms whose scale changes as ``modules_to_save``.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from wsr.errors import WsrError
from wsr.geometry.low_rank import LowRank
from wsr.geometry.trees import flatten
from wsr.models.counterpart import KINDS, SAME, TRANSPOSED
from wsr.models.huggingface.config import counterpart_of
from wsr.models.huggingface.folder import CARD, full_name, of_other_class
from wsr.models.huggingface.heads import ClassifierHead
from wsr.models.huggingface.peft import CONFIG, TENSORS, WRAPPED
from wsr.models.huggingface.read_attributes import package_of
from wsr.models.huggingface.shards import write_file
from wsr.models.huggingface.weights import language_model_heads
from wsr.models.model import Model
from wsr.runtime.new_folder import new_folder
from wsr.types import AnyArray

_TASKS = {
    "ForSequenceClassification": "SEQ_CLS",
    "ForTokenClassification": "TOKEN_CLS",
    "ForQuestionAnswering": "QUESTION_ANS",
    "ForCausalLM": "CAUSAL_LM",
    "ForConditionalGeneration": "SEQ_2_SEQ_LM",
    "LMHeadModel": "CAUSAL_LM",
}
_TIES_BY_PEFT = "embed_tokens"
"""Name of the token tables whose change PEFT also applies to the head that is tied to them."""
_SAVED_BY_TASK = ("classifier", "score", "qa_outputs")
"""Modules that PEFT saves whole for the tasks above, with everything inside them."""


@dataclass(frozen=True)
class Place:
    """Where an adapter holds the change of a leaf."""

    module: str
    """Name of the module in the adapted class."""
    tensor: str
    """Name of the tensor in the module: weight or bias."""
    kind: Literal["matrix", "table", "vector"]
    """A matrix or a table has factors; a vector is whole."""


def places(model: Model, head: ClassifierHead | None = None) -> dict[str, Place]:
    """Returns the place of each leaf that a LoRA adapter can hold, by the leaf's path.

    It cannot hold convolutions, tables that are no module (a ViT's positions), and a token table with a tied head that
    is not called ``embed_tokens``, because PEFT would leave the head as it is.

    Args:
      model: the adapted model.
      head: the head of the adapted class; None: the encoder or language model alone.
    """
    counterpart = counterpart_of(model)
    shapes = {path: leaf.shape for path, leaf in flatten(jax.eval_shape(model.init, jax.random.key(0))).items()}
    # PEFT must wrap the module that the encoder reads.
    read = {original: copy for copy, original in counterpart.copies.items()}
    found = {}
    for theirs, ours, kind in counterpart.modules(model.config):
        weight = read.get(f"{theirs}.weight", f"{theirs}.weight")
        module = full_name(model, head, weight).removesuffix(".weight")
        if of_other_class(model, head, f"{theirs}.weight") or not KINDS[kind][0].theirs:
            continue
        dense = [own for own in KINDS[kind] if own.ours in ("kernel", "embedding")]
        for leaf in KINDS[kind]:
            path = f"{ours}/{leaf.ours}"
            if leaf in dense and leaf.layout in (SAME, TRANSPOSED) and len(shapes[path]) == 2:
                table = leaf.ours == "embedding"
                if not (table and _heads_tied_to(model, head, theirs) and not theirs.endswith(_TIES_BY_PEFT)):
                    found[path] = Place(module, leaf.theirs, "table" if table else "matrix")
            elif len(shapes[path]) == 1:
                found[path] = Place(module, leaf.theirs, "vector")
    return found


def write_adapter(
    model: Model,
    task_vector: LowRank,
    base_leaf: Callable[[str], AnyArray],
    folder: Path,
    *,
    base_name: str,
    head: ClassifierHead | None = None,
    card: str | None = None,
) -> None:
    """Writes a LoRA adapter, completely or not at all.

    Args:
      model: the adapted model.
      task_vector: factors of the leaves that change; each has a place in ``places``.
      base_leaf: returns a leaf of the base; called for vectors only, of which adapters hold the changed values.
      folder: a new or empty folder.
      base_name: name or folder of the base, for the config.
      head: a classification head, which the adapter then holds whole.
      card: text of the model card, README.md; None: no card.

    Raises:
      WsrError: if no matrix changes, a module of the model has the name of one that must be saved whole, or ``folder``
        is not empty or cannot be written.
    """
    where = places(model, head)
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    whole: set[str] = set()
    for path, (a, b) in task_vector.items():
        place = where[path]
        if place.kind in ("matrix", "table"):
            ranks[place.module] = a.shape[1]
            sides = ("A.weight", "B.weight") if place.kind == "matrix" else ("embedding_A", "embedding_B")
            tensors |= {
                f"{WRAPPED}{place.module}.lora_{side}": np.ascontiguousarray(np.asarray(own).T)
                for side, own in zip(sides, (a, b), strict=True)
            }
            for tied in _heads_tied_to(model, head, place.module):  # PEFT expects their factors in the file too
                tensors |= {
                    f"{WRAPPED}{tied}.lora_{side}.weight": np.ascontiguousarray(own)
                    for side, own in zip("AB", (b, a), strict=True)
                }
        elif place.tensor == "weight":  # of a norm
            whole.add(place.module)
    if not ranks:
        raise WsrError(f"{folder}: no adapter to write: no matrix differs from the base's")
    tensors |= _whole_tensors(where, task_vector, base_leaf, ranks, whole)
    extra = head.tensors if head else {}
    tensors |= {f"{WRAPPED}{name}": np.asarray(own, np.float32) for name, own in extra.items()}
    saved = {*whole, *(_saved_module(name) for name in extra)}
    _refuse_ambiguous(folder, saved, {place.module for place in where.values()} - whole)
    biases = {own.module for path in task_vector if (own := where[path]).kind == "vector"} - whole
    bias = ("lora_only" if biases <= ranks.keys() else "all") if biases else "none"
    config = _config(model, head, ranks) | {
        "base_model_name_or_path": base_name,
        "bias": bias,
        "modules_to_save": sorted(saved) or None,
    }
    with new_folder(folder) as unfinished:
        text = json.dumps(dict(sorted(config.items())), indent=2)
        (unfinished / CONFIG).write_text(text + "\n", encoding="utf-8")
        write_file(unfinished / TENSORS, {name: own.shape for name, own in tensors.items()}, tensors.__getitem__)
        if card is not None:
            (unfinished / CARD).write_text(card, encoding="utf-8")


def _whole_tensors(
    where: Mapping[str, Place],
    task_vector: LowRank,
    base_leaf: Callable[[str], AnyArray],
    ranks: Mapping[str, int],
    whole: set[str],
) -> dict[str, np.ndarray]:
    """Returns changed biases, and all tensors of modules that are saved whole."""
    found = {}
    for path, place in where.items():
        changed = path in task_vector
        if place.kind == "vector" and (changed or place.module in whole):
            value = np.asarray(base_leaf(path), np.float32)
            if changed:
                value = value + (task_vector[path].a @ task_vector[path].b).reshape(-1)
            wrapper = ".base_layer" if place.module in ranks else ""
            found[f"{WRAPPED}{place.module}{wrapper}.{place.tensor}"] = np.asarray(value, np.float32)
    return found


def _config(model: Model, head: ClassifierHead | None, ranks: Mapping[str, int]) -> dict[str, Any]:
    counterpart = counterpart_of(model)
    usual = Counter(ranks.values()).most_common(1)[0][0]
    tied = {own: rank for module, rank in ranks.items() for own in _heads_tied_to(model, head, module)}
    others = {**ranks, **tied}
    # PEFT takes a name for the end of one, and ^ for its beginning.
    pattern = {f"^{module}": rank for module, rank in others.items() if rank != usual}
    default = counterpart.language_model_class if model.token_losses else None
    classes = list(head.config.get("architectures") or ()) if head else []
    projected = counterpart.projected_class if model.config.get("projection") else None
    name = classes[0] if classes else default or projected or counterpart.model_class
    package = package_of(counterpart.model_type)
    return {
        "peft_type": "LORA",
        "task_type": next((task for end, task in _TASKS.items() if name.endswith(end)), "FEATURE_EXTRACTION"),
        "auto_mapping": {
            "base_model_class": name,
            "parent_library": f"transformers.models.{package}.modeling_{package}",
        },
        "revision": None,
        "inference_mode": True,
        "r": usual,
        "lora_alpha": usual,
        "rank_pattern": pattern,
        "alpha_pattern": pattern,
        "use_rslora": False,
        "use_dora": False,
        "lora_dropout": 0.0,
        "fan_in_fan_out": any(kind == "conv1d" for _, _, kind in counterpart.modules(model.config)),
        "init_lora_weights": True,
        "target_modules": sorted(ranks),
        **({"ensure_weight_tying": True} if tied else {}),
    }


def _heads_tied_to(model: Model, head: ClassifierHead | None, module: str) -> list[str]:
    """Returns the language-modelling heads of the adapted class that are tied to a token table."""
    counterpart = counterpart_of(model)
    if model.token_losses is None or head is not None:
        return []
    ours = {f"{theirs}.weight" for theirs, _, _ in counterpart.modules(model.config)}
    tables = language_model_heads(counterpart).items()
    return [
        own.removesuffix(".weight") for own, table in tables if own not in ours and f"{module}.weight".endswith(table)
    ]


def _saved_module(name: str) -> str:
    """Returns the module that holds a tensor of a head, as PEFT names it."""
    first = next((part for part in name.split(".")[:-1] if part in _SAVED_BY_TASK), None)
    return name[: name.index(first) + len(first)] if first else name.rpartition(".")[0]


def _refuse_ambiguous(folder: Path, saved: set[str], others: set[str]) -> None:
    """PEFT saves whole every module whose name ends with one of the names."""
    clashes = sorted(f"{own} as {module}" for module in saved for own in others if own.endswith(module))
    if clashes:
        raise WsrError(f"{folder}: not written: PEFT would take {', '.join(clashes[:3])}; export the whole model")
