"""The head of an imported model: its tensors, its labels, and what to tell about them."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax import numpy as jnp

from wsr.errors import WsrError
from wsr.geometry.trees import flatten
from wsr.models.counterpart import Counterpart
from wsr.models.huggingface.config import counterpart_of, other_attributes
from wsr.models.huggingface.files import read_file, read_tensors
from wsr.models.huggingface.peft import Adapter
from wsr.models.huggingface.weights import (
    has_own_head,
    head_tensors,
    is_dropped,
    language_model_heads,
    their_tensors,
    without_prefix,
)
from wsr.models.load import find_folder
from wsr.models.model import Checkpoint
from wsr.runtime.model_folder import BASE_HEAD, CONFIG, transformer_folder
from wsr.types import Params

# The last layer of a classifier; not DistilBERT's pre_classifier, nor ALBERT's sop_classifier.
_CLASSES = re.compile(r"(classifier|classifier\.out_proj|classification_head\.out_proj|score)\.weight")
# ELECTRA is pretrained to detect replaced tokens, without a decoder.
_LANGUAGE_MODEL = re.compile(r"(?!Electra).*PreTraining|.*(MaskedLM|CausalLM|LMHeadModel)")
_DECODERS = ("decoder.weight", "lm_head.weight", "vocab_projector.weight")


def head_of(
    tensors: Mapping[str, np.ndarray],
    dropped: tuple[str, ...],
    params: Params,
    rows: Any,
    their_rows: Any,
    theirs: Mapping[str, Any],
    notes: list[str],
) -> dict[str, np.ndarray]:
    """Returns the float32 tensors of a model's head by their names in the file, and adds notes about them."""
    head = {}
    # An untied matrix is stored even if it is equal.
    tied = theirs.get("tie_word_embeddings") is not False
    tables = [leaf for leaf in flatten(params).values() if tied and leaf.ndim == 2 and leaf.shape[0] == rows]
    for name in dropped:
        tensor = tensors[name]
        # Positions and masks, which are not learned.
        if not jnp.issubdtype(tensor.dtype, np.floating):
            continue
        leaf = np.asarray(tensor, np.float32)
        if leaf.ndim and leaf.shape[0] == their_rows and their_rows != rows:
            if their_rows < rows:
                notes.append(f"{name} does not have a row for every token of the base: left out")
                continue
            leaf = leaf[:rows]
        if any(leaf.shape == table.shape and np.array_equal(leaf, table) for table in tables):
            notes.append(f"{name} is tied to the token embedding: not stored again")
            continue
        head[name] = leaf
    if head:
        notes.append(f"stored separately as its head: {', '.join(sorted(head))}")
    return head


def complete_language_model(
    tensors: dict[str, np.ndarray], base: Checkpoint, theirs: Mapping[str, Any], notes: list[str]
) -> list[str]:
    """Adds the language-modelling head that the base has and a file lacks, and a note.

    Args:
      tensors: the file's, by name; changed.
      base: the base.
      theirs: the file's config.
      notes: for the user; changed.

    Returns:
      A message if the file has a head of its own and the base's is tied to the token embedding; else none.
    """
    counterpart = counterpart_of(base.model)
    tied = theirs.get("tie_word_embeddings", base.model.config.get("tie_word_embeddings", True))
    ours = {theirs_name: path for theirs_name, path, _ in their_tensors(base.model)}
    for head, table in language_model_heads(counterpart).items():
        if head in ours and head not in tensors:
            own = next((name for name in tensors if without_prefix(counterpart, name) == table), None)
            if tied and own:
                tensors[head] = tensors[own]
                notes.append(f"{head} is tied to the token embedding: stored apart from it, as in the base")
            else:
                tensors[head] = _of_rows(np.asarray(flatten(base.params)[ours[head]]).T, theirs.get("vocab_size"))
                notes.append(f"no {head} in the file: taken from the base")
        elif head not in ours and base.model.token_losses and has_own_head(counterpart, tensors):
            return [
                f"{head} differs from the token embedding, and the base ties the two: import the model into a new "
                "store, whose base then gets a head of its own"
            ]
    return []


def complete_projection(tensors: dict[str, np.ndarray], base: Checkpoint, notes: list[str]) -> None:
    """Adds the projection that the base has and a file lacks, and a note: a vision tower alone may have none.

    Args:
      tensors: the file's, by name; changed.
      base: the base.
      notes: for the user; changed.
    """
    counterpart = counterpart_of(base.model)
    if counterpart.projected_class is None:
        return
    ours = {theirs: (path, layout) for theirs, path, layout in their_tensors(base.model)}
    for name in counterpart.present.values():
        if name in ours and name not in tensors:
            path, layout = ours[name]
            tensors[name] = layout.back(np.asarray(flatten(base.params)[path]))
            notes.append(f"no {name} in the file: taken from the base")


def without_frozen(
    tensors: Mapping[str, np.ndarray], names: tuple[str, ...], base: Checkpoint, notes: list[str]
) -> tuple[str, ...]:
    """Returns those of ``names`` that differ from the base's tensors beside the encoder, and adds a note on the others.

    Only parts of a whole model, such as CLIP's text tower, are compared: a store keeps them once, with its base.

    Args:
      tensors: the file's, by name.
      names: tensors beside the encoder.
      base: the base.
      notes: for the user; changed.
    """
    if counterpart_of(base.model).whole is None or not names:
        return names
    of_base = head_of_base(base)
    frozen = [
        name
        for name in names
        if name in of_base and np.array_equal(of_base[name].astype(np.float32), tensors[name].astype(np.float32))
    ]
    if frozen:
        notes.append(f"equal to the base and not stored again: {len(frozen)} tensors beside the encoder")
    return tuple(name for name in names if name not in frozen)


def _of_rows(matrix: np.ndarray, rows: Any) -> np.ndarray:
    """Returns a matrix with as many rows as the file's vocabulary; rows that the base lacks are removed later."""
    if not isinstance(rows, int) or rows == len(matrix):
        return matrix
    padded = np.zeros((max(rows, len(matrix)), matrix.shape[1]), matrix.dtype)
    padded[: len(matrix)] = matrix
    return padded[:rows]


def head_of_base(base: Checkpoint) -> dict[str, np.ndarray]:
    """Returns the learned tensors outside the encoder of the base, by their names without prefix.

    A store keeps them. A store that was made before stores did so reads the folder of its base; if that is gone, there
    are none.
    """
    if base.folder and (base.folder / BASE_HEAD).is_file():
        return read_file(base.folder / BASE_HEAD)
    try:
        folder = base.folder if base.folder and any(base.folder.glob("*.safetensors")) else find_folder(base.name)
        return head_tensors(base.model, read_tensors(transformer_folder(folder)))
    except WsrError:
        return {}


def about_adapter(adapter: Adapter, base: Checkpoint, notes: list[str]) -> dict[str, Any]:
    """Returns what a member's record says of an adapter, and adds notes about its head."""
    if adapter.head:
        notes.append(f"stored separately as its head: {', '.join(sorted(adapter.head))}")
    if _moves_tied_table(adapter, base):
        notes.append(
            "it adapts the token embedding, to which the head is tied: the head moves with it, as in PEFT's "
            "merge_and_unload"
        )
    # An adapter has no config of the model: other attributes are those of the base.
    config = _attributes_of_base(base)
    about: dict[str, Any] = {"format": "LoRA adapter", "prefix": adapter.prefix, "config": config}
    if adapter.lacking:
        lacking = ", ".join(adapter.lacking)
        notes.append(f"its head also needs {lacking}, which neither the adapter nor the base holds: no export --head")
        about["head_lacks"] = list(adapter.lacking)
    if adapter.model_class:
        config["architectures"] = [adapter.model_class]
    # Nor does it list its labels.
    classes = next((len(leaf) for name, leaf in adapter.head.items() if _CLASSES.fullmatch(name)), 0)
    if classes:
        labels = {str(number): f"LABEL_{number}" for number in range(classes)}
        config |= {"id2label": labels, "label2id": {label: int(own) for own, label in labels.items()}}
    return about


def _moves_tied_table(adapter: Adapter, base: Checkpoint) -> bool:
    """Returns whether an adapter moves the token table of a language model that has no head of its own."""
    ours = {theirs: path for theirs, path, _ in their_tensors(base.model)}
    tied = [table for head, table in language_model_heads(counterpart_of(base.model)).items() if head not in ours]
    return base.model.token_losses is not None and any(ours[table] in adapter.task_vector for table in tied)


def _attributes_of_base(base: Checkpoint) -> dict[str, Any]:
    if base.folder is None or not (transformer_folder(base.folder) / CONFIG).exists():
        return {}
    of_its_head = ("architectures", "id2label", "label2id", "problem_type")
    attributes = other_attributes(transformer_folder(base.folder), base.model.name)
    return {name: value for name, value in attributes.items() if name not in of_its_head}


def head_differences(head: Mapping[str, np.ndarray], theirs: Mapping[str, Any]) -> list[str]:
    """Returns a message if the classifier's number of rows differs from the number of labels in the config."""
    labels = theirs.get("id2label")
    # The classifier of a multiple choice has one row, whatever the labels.
    if not isinstance(labels, Mapping) or any(kind.endswith("MultipleChoice") for kind in _classes(theirs)):
        return []
    rows = {name: leaf.shape[0] for name, leaf in head.items() if _CLASSES.fullmatch(name) and leaf.ndim == 2}
    return [
        f"the head {name} has {count} rows where config id2label names {len(labels)} labels"
        for name, count in rows.items()
        if count != len(labels)
    ]


def tell_of_pooler(counterpart: Counterpart, dropped: tuple[str, ...], notes: list[str]) -> None:
    """Adds a note if the architecture has a pooler and the file has none."""
    known = any(is_dropped(counterpart, name) for name in ("pooler.dense.weight", "pooler.weight"))
    if known and not any("pooler." in name for name in dropped):
        notes.append("no pooler in the file")


def tell_of_tied_decoder(config: Mapping[str, Any], names: tuple[str, ...], notes: list[str]) -> None:
    """Adds a note if the decoder of a language model is tied to the token embedding and not among its tensors."""
    language_model = any(_LANGUAGE_MODEL.fullmatch(kind) for kind in _classes(config))
    in_file = any(name.endswith(_DECODERS) for name in names)
    if language_model and not in_file and config.get("tie_word_embeddings") is not False:
        notes.append("its decoder is tied to the token embedding and not in the file")


def _classes(config: Mapping[str, Any]) -> list[str]:
    named = config.get("architectures")
    return [str(kind) for kind in named] if isinstance(named, list) else []
